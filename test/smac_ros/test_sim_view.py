"""What people see of a simulated robot: markers, transforms, the arm's description, layouts."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")

from robot_client import EMPTY, FULL, Client, sawyer  # noqa: E402
from std_msgs.msg import Header, String  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from sim.sawyer.behaviors import EIGHT, possible  # noqa: E402
from sim.sawyer.engine import pybullet  # noqa: E402
from sim.sawyer.environment import SawyerEnv  # noqa: E402
from smac_ros.base_node import latched, reliable  # noqa: E402
from smac_ros.sawyer_view import (  # noqa: E402
    CYLINDER,
    DELETE_ALL,
    SceneMarkers,
    goal,
    link_transforms,
)

ROOT = Path(__file__).parents[2]


def test_description_for_whoever_comes_later(ros):
    sawyer(ros)
    late, texts = ros.node("late"), []
    late.create_subscription(String, "robot_description", texts.append, latched())
    ros.until(lambda: texts)
    assert '<link name="right_l6">' in texts[0].data


def test_markers_for_whoever_looks(ros):
    sim = sawyer(ros, resend=0.05, task=json.dumps(FULL | {"behavior": "open_button_drawer"}))
    arrays = []
    sim._markers.message = lambda task, make=sim._markers.message: arrays.append(task) or make(task)
    client = Client(ros, "sawyer_sim")
    ros.until(lambda: client.count["endpoint_pose"] > 2)
    assert not arrays  # nobody looks
    pictures = []
    viewer = ros.node("viewer")
    viewer.create_subscription(MarkerArray, "markers", pictures.append, reliable(1))
    ros.until(lambda: pictures)
    names = {marker.ns for marker in pictures[-1].markers} - {""}
    furniture = {"table", "bottom_drawer", "handle_drawer", "button", "tray", "lego"}
    assert names == furniture | {"car", "goal"}
    client.reset(EMPTY)
    ros.until(lambda: len(pictures[-1].markers) < 10)
    clear, *others = pictures[-1].markers
    assert clear.action == DELETE_ALL
    assert {marker.ns for marker in others} == {"table", "goal"}
    assert others[-1].color.a < 0.5


def test_markers_lie_where_the_bodies_are():
    env = SawyerEnv()
    env.reset(options={"task": FULL})
    markers = SceneMarkers(env.scene, Header(frame_id="world"))
    for action in np.array([[1, 1, -1, 1], [0, 0, 0, 1]]):
        first = markers.message(env.task).markers
        shown = {(m.ns, m.id): m for m in first}
        for name in env.scene.present():
            position = shown[name, 0].pose.position
            visual = env.scene.visuals(name)[0]
            base = env.scene.frames(name)[0]
            expected, _ = pybullet.multiplyTransforms(*base, *visual[3:5])
            assert (position.x, position.y, position.z) == pytest.approx(expected, abs=1e-6)
        cap = next(m for m in first if m.ns == "button" and m.color.g < 0.15)
        assert cap.type == CYLINDER and cap.scale.x == pytest.approx(0.05)
        height = env.scene.observe()[12] - 0.003  # the cap's middle in its link
        assert cap.pose.position.z == pytest.approx(height, abs=1e-5)
        box = next(m for m in first if m.ns == "bottom_drawer" and m.color.b > 0.8)
        assert box.pose.position.x == pytest.approx(env.scene.observe()[10], abs=1e-5)
        env.step(action)
    env.close()


def test_every_behavior_has_a_goal_to_show():
    task = FULL | {"bottom_drawer": {"open": True}, "handle_drawer": {"opening": 0.12, "goal": 0.0}}
    closed = {"open_button_drawer", "open_handle_drawer"}
    assert set(possible(task)) == set(EIGHT) - closed
    shown = {name: goal((FULL if name in closed else task) | {"behavior": name}) for name in EIGHT}
    assert shown["move_hand"][1] == (0.675, 0.0, -0.11)
    assert shown["object_in_tray"][1] == pytest.approx((0.79, -0.12, -0.335))
    assert shown["open_button_drawer"][1] == pytest.approx((0.756, 0.125, -0.34))
    assert shown["open_handle_drawer"][1] == pytest.approx((0.6, -0.1325, -0.22))
    assert shown["close_handle_drawer"][1] == pytest.approx((0.6, -0.0125, -0.22))
    assert shown["press_button"][1] == pytest.approx((0.6, 0.125, -0.15))


def test_transforms_are_the_links_poses():
    env = SawyerEnv()
    env.reset(options={"task": FULL})
    env.step(np.array([1, 1, 1, 0]))
    transforms = link_transforms(env.scene, Header(frame_id="world"))
    arm, client = env.scene.arm.body, env.scene.client
    found = {t.child_frame_id: t.transform for t in transforms}
    assert {t.header.frame_id for t in transforms} == {"world"}
    links = 0
    for joint in range(pybullet.getNumJoints(arm, physicsClientId=client)):
        name = pybullet.getJointInfo(arm, joint, physicsClientId=client)[12].decode()
        state = pybullet.getLinkState(arm, joint, physicsClientId=client)
        t, r = found[name].translation, found[name].rotation
        assert (t.x, t.y, t.z) == state[4] and (r.x, r.y, r.z, r.w) == state[5]
        links += 1
    assert links == 9 and found.keys() - {"base"} == {
        *(f"right_l{i}" for i in range(7)), "left_finger", "right_finger"
    }  # fmt: skip
    # the hand's orientation is right_l6's, turned a quarter about its own z
    quarter = (0, 0, 0.5**0.5, 0.5**0.5)
    wrist = pybullet.getLinkState(arm, 6, physicsClientId=client)[5]
    hand = pybullet.multiplyTransforms((0, 0, 0), wrist, (0, 0, 0), quarter)[1]
    assert env.scene.arm.orientation() == pytest.approx(hand, abs=1e-6)
    env.close()


def test_transforms_are_published_where_tf2_is_installed(ros):
    sim, sent = sawyer(ros), []
    sim._tf_type = SimpleNamespace
    sim._tf = SimpleNamespace(get_subscription_count=lambda: len(watching), publish=sent.append)
    watching: list = []
    client = Client(ros, "sawyer_sim")
    client.reset(EMPTY)
    assert not sent
    watching.append("rviz")
    start = client.reset(EMPTY)
    client.command(np.zeros(4), start)
    client.observation(start + client.contract.period_ns)
    assert len(sent) == 2 and len(sent[0].transforms) == 10  # every step, not every tenth


def test_layouts_show_topics_that_exist():
    rviz = yaml.safe_load((ROOT / "config/rviz/sawyer.rviz").read_text())
    displays = rviz["Visualization Manager"]["Displays"]
    kinds = {display["Class"].split("/")[1]: display for display in displays}
    assert kinds.keys() == {"Grid", "RobotModel", "TF", "MarkerArray"}
    assert rviz["Visualization Manager"]["Global Options"]["Fixed Frame"] == "world"
    assert kinds["RobotModel"]["Description Topic"]["Value"] == "robot_description"
    assert kinds["MarkerArray"]["Topic"]["Value"] == "markers"
    layout = json.loads((ROOT / "config/foxglove/sawyer.json").read_text())

    def panels(node):
        return [node] if isinstance(node, str) else panels(node["first"]) + panels(node["second"])

    assert set(panels(layout["layout"])) == layout["configById"].keys()
    assert {name.split("!")[0] for name in layout["configById"]} == {
        "3D", "Plot", "DiagnosticSummary", "RawMessages"
    }  # fmt: skip
