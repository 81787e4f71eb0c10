"""Which processes a system has, and what is refused before any of them starts."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smac_core.deployment.hub import KEPT
from smac_core.errors import InputError
from smac_ros.contract import load_contract
from smac_ros.system import SYSTEMS, find_system

ROOT = Path(__file__).parents[2]


def shipped(system: str) -> dict[str, str]:
    """A checkpoint, for a system that takes one."""
    known = [argument.name for argument in SYSTEMS[system].arguments]
    return {"checkpoint": str(ROOT / "pretrained" / "sawyer")} if "checkpoint" in known else {}


def build(system: str, **arguments: str) -> dict:
    return {spec.name: spec for spec in find_system(system).build(arguments)}


@pytest.mark.parametrize("system", SYSTEMS)
def test_nodes_declare_the_parameters_that_they_are_given(system: str):
    """A misspelt one would keep the node from starting, or be ignored."""
    pytest.importorskip("rclpy")
    for spec in SYSTEMS[system].build(shipped(system)):
        module = importlib.import_module(f"smac_ros.{spec.executable}")
        (node,) = (
            one
            for one in vars(module).values()
            if isinstance(one, type) and one.__module__ == module.__name__
            if getattr(one, "parameters", ())
        )
        declared = {p.name: p for p in node.parameters} | {"autostart": None}
        for name, value in spec.parameters.items():
            assert name in declared, f"{spec.name}: {name}"
            parameter = declared[name]
            if name == "autostart":
                assert isinstance(value, bool)
                continue
            assert type(value) is type(parameter.default), f"{spec.name}: {name} is {value!r}"
            assert value in parameter.choices or not parameter.choices
            assert parameter.low is None or parameter.low <= value <= parameter.high


@pytest.mark.parametrize("system", SYSTEMS)
def test_executables_are_there(system: str):
    for spec in SYSTEMS[system].build(shipped(system)):
        assert (ROOT / "smac_ros" / f"{spec.executable}.py").is_file()
        wrapper = ROOT / "nodes" / spec.executable
        assert os.access(wrapper, os.X_OK)
        assert f'start("smac_ros.{spec.executable}")' in wrapper.read_text()


@pytest.mark.parametrize("system", SYSTEMS)
def test_defaults_are_values_of_their_kind(system: str):
    for argument in SYSTEMS[system].arguments:
        argument.parse(argument.default)
        assert argument.description.endswith(".")


def test_the_demo():
    nodes = build("sawyer_sim")
    assert list(nodes) == ["sawyer_sim", "policy", "reward_labeler", "learner", "episode_manager"]
    assert [name for name, spec in nodes.items() if spec.main] == ["episode_manager"]
    manager, learner = nodes["episode_manager"].parameters, nodes["learner"].parameters
    assert {s.parameters["clock"] for n, s in nodes.items() if n != "learner"} == {"lockstep"}
    assert {spec.parameters["contract"] for spec in nodes.values()} == {"sawyer_sim"}
    assert manager["meta_test"] == "both" and manager["iterations"] > 0
    assert manager["results"] == f"{learner['run']}/meta_test"
    assert nodes["policy"].parameters["checkpoint"] == "shipped"
    assert learner["set"] == [""], "as the run has it"


def test_learner_and_manager_agree_on_an_iteration():
    """Otherwise the manager waits for gradient steps that the learner does not owe yet."""
    learner = build(
        "sawyer_sim",
        tasks_per_iteration="3",
        exploration_trajectories="2",
        adapted_trajectories="0",
        horizon="20",
    )["learner"]
    assert learner.parameters["set"] == [
        "self_supervised.tasks_per_iteration=3",
        "self_supervised.exploration_trajectories=2",
        "environment.horizon=20",
        "self_supervised.adapted_trajectories=0",
    ]


def test_without_practice_nobody_labels_or_learns():
    nodes = build("sawyer_sim", iterations="0", meta_test="before")
    assert list(nodes) == ["sawyer_sim", "policy", "episode_manager"]
    assert nodes["episode_manager"].parameters["results"] == ""
    test = build("meta_test", meta_test_tasks="12", results="out", phase="offline")
    assert list(test) == list(nodes)
    manager = test["episode_manager"].parameters
    assert (manager["iterations"], manager["meta_test_tasks"]) == (0, 12)
    assert manager["results"] == "out" and test["policy"].parameters["phase"] == "offline"


def test_a_mujoco_robot_is_alone_without_a_checkpoint():
    assert list(build("mujoco_sim")) == ["mujoco_sim"]
    checkpoint = str(ROOT / "pretrained" / "sawyer")
    nodes = build("mujoco_sim", checkpoint=checkpoint, clock="real_time")
    assert nodes["policy"].parameters["checkpoint"] == checkpoint
    assert nodes["policy"].parameters["clock"] == "real_time"


def test_a_domain_s_robot_is_alone_or_practises(tmp_path):
    """With a checkpoint of that domain it is the system that Sawyer has."""
    (robot,) = build("mujoco_sim", domain="walker_params").values()
    assert robot.parameters["environment"] == "sim:smac/WalkerParam-v0"
    assert robot.parameters["contract"] == "walker_params" and robot.parameters["options"] == ""
    environment = {"id": "sim:smac/AntDir-v0", "kwargs": {"gear": 30.0}}
    config = {"domain": "ant_direction", "environment": environment}
    (tmp_path / "run.json").write_text(json.dumps({"config": config}))
    given = {"domain": "ant_direction", "checkpoint": str(tmp_path)}
    nodes = build("mujoco_sim", **given)
    assert list(nodes) == ["mujoco_sim", *list(build("sawyer_sim"))[1:]]
    assert nodes["mujoco_sim"].parameters["options"] == '{"gear": 30.0}', "as the run had it"
    assert nodes["episode_manager"].parameters["robot"] == "mujoco_sim"
    assert {spec.parameters["contract"] for spec in nodes.values()} == {"ant_direction"}
    for wrong, text in (
        ({"domain": "ant_directoin"}, "did you mean 'ant_direction'"),
        ({"domain": "sawyer"}, "one of ant_direction, cheetah_velocity"),
        (given | {"domain": "hopper_params"}, "found 'ant_direction'; expected hopper_params"),
        (given | {"environment": "Ant-v5"}, "environment: found Ant-v5; expected its default"),
        ({"domain": "ant_direction", "iterations": "3"}, "iterations: found 3; .*a checkpoint"),
        ({"checkpoint": str(tmp_path), "scale": "smoke"}, "scale: found smoke; .*a domain"),
        ({"dataset": __file__}, "dataset: found .*as nothing practises"),
        (given | {"checkpoint": "shipped"}, "none is shipped for ant_direction"),
    ):
        with pytest.raises(InputError, match=text):
            build("mujoco_sim", **wrong)


def test_an_export_is_tested_and_acts_but_does_not_practise(tmp_path):
    """What left the project for a robot or a hub has no run.json; practice needs the run."""
    shipped, ours = ROOT / "pretrained" / "sawyer", tmp_path / "hub"
    ours.mkdir()
    tree = json.loads((shipped / "run.json").read_text())["config"]
    told = dict.fromkeys((*KEPT, "run", "model_sha256", "dataset"), 1)
    told |= {"format": "smac-hub", "schema_version": 1, "phase": "control", "config": tree}
    (ours / "config.json").write_text(json.dumps(told))
    given = {"checkpoint": str(ours)}
    for system, more in (
        ("meta_test", {}),
        ("sawyer_sim", {"iterations": "0"}),
        ("mujoco_sim", {}),
        ("robot", {}),
    ):
        policy = build(system, **given, **more)["policy"].parameters
        assert (policy["checkpoint"], policy["phase"]) == (str(ours), "")
    with pytest.raises(InputError, match="'sawyer'; expected ant_direction"):
        build("mujoco_sim", **given, domain="ant_direction")
    for system in ("sawyer_sim", "robot"):
        with pytest.raises(InputError, match="found an export; .* with iterations:=0 an export"):
            build(system, **given, iterations="1")
    (ours / "model.safetensors").touch()
    (ours / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json: content: found Expecting"):
        build("meta_test", **given)
    with pytest.raises(InputError, match=r"run\.json: found no such file"):
        build("robot", checkpoint=str(tmp_path))


def test_one_namespace_for_all():
    assert {spec.namespace for spec in build("meta_test").values()} == {""}
    assert {spec.namespace for spec in build("meta_test", namespace="/left/").values()} == {"left"}


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"iteratons": "3"}, "did you mean 'iterations'"),
        ({"iterations": "three"}, "iterations: found 'three'; expected integer"),
        ({"iterations": "-1"}, "at least 0"),
        ({"factor": "0"}, "at least 0.5"),
        ({"factor": "nan"}, "at least 0.5"),
        ({"clock": "lock_step"}, "one of lockstep, real_time"),
        ({"start": "yes"}, "one of true, false"),
        ({"namespace": "2 arms"}, "namespace: found '2 arms'"),
        ({"checkpoint": "/nowhere"}, "no folder /nowhere"),
        ({"checkpoint": "/"}, "a run's folder, as smac train makes it"),
        ({"dataset": "/nowhere.h5"}, "no file /nowhere.h5"),
        ({"contract": "sawer_sim"}, "did you mean 'sawyer_sim'"),
    ],
)
def test_wrong_arguments(arguments: dict, text: str):
    with pytest.raises(InputError, match=text.replace(".", r"\.")):
        build("sawyer_sim", **arguments)


def test_an_unknown_system():
    with pytest.raises(InputError, match="did you mean 'sawyer_sim'"):
        find_system("sawyer_simm")


def test_no_ros_and_no_torch_to_describe_a_system():
    """``ros2 launch`` imports this; and ``smac up`` keeps it in memory all along."""
    code = (
        "import sys; from smac_ros.system import SYSTEMS; SYSTEMS['sawyer_sim'].build({});"
        "import smac_ros.up, smac_ros.launching;"
        "print(sorted({'torch', 'rclpy', 'launch_ros'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("episodes", "iterations", "tasks"),
    [(0, 15, 0), (1, 1, 1), (20, 1, 2), (100, 1, 10), (250, 3, 10)],
)
def test_episodes_in_all(episodes: int, iterations: int, tasks: int):
    """The shipped run practises with 10 tasks x (4 + 6) trajectories an iteration."""
    specs = SYSTEMS["sawyer_sim"].build({"episodes": str(episodes)})
    manager = next(spec for spec in specs if spec.main).parameters
    assert (manager["iterations"], manager["tasks_per_iteration"]) == (iterations, tasks)
    learner = next(spec for spec in specs if spec.name == "learner").parameters
    assert (f"self_supervised.tasks_per_iteration={tasks}" in learner["set"]) == bool(tasks)


def test_scale_smoke_does_all_of_it_briefly():
    specs = SYSTEMS["sawyer_sim"].build({"scale": "smoke", "meta_test_tasks": "5"})
    manager = next(spec for spec in specs if spec.main).parameters
    assert manager["iterations"] == 1 and manager["exploration_trajectories"] == 2
    assert manager["meta_test_tasks"] == 5  # what is asked for stays
    assert manager["meta_test"] == "both" and len(specs) == 5


def test_a_clock_of_its_own_is_published_and_followed():
    specs = SYSTEMS["sawyer_sim"].build({"clock": "real_time", "factor": "2"})
    robot, *others = specs
    assert robot.parameters["publish_clock"] is True
    assert all(spec.parameters["use_sim_time"] is True for spec in others)
    plain = SYSTEMS["sawyer_sim"].build({"clock": "real_time"})
    assert not any({"publish_clock", "use_sim_time"} & spec.parameters.keys() for spec in plain)


def test_rviz_follows_the_frames_of_its_namespace():
    specs = SYSTEMS["sawyer_sim"].build({"rviz": "true", "namespace": "left"})
    assert ("/tf", "tf") in specs[-1].remappings and specs[-1].namespace == "left"


def test_a_recorder_of_the_system_s_robot(tmp_path):
    """The manager waits for it, and by the robot's clock it records, too; it may end before."""
    new = str(tmp_path / "new")
    for system, robot in (("sawyer_sim", "sawyer_sim"), ("mujoco_sim", "mujoco_sim")):
        nodes = build(system, record=new)
        contract = nodes[robot].parameters["contract"]
        assert nodes["recorder"].parameters == {"contract": contract, "out": new}
        assert not nodes["recorder"].required and "recorder" not in build(system)
    assert build("meta_test", record=new)["episode_manager"].parameters["recorder"] == "recorder"
    faster = build("sawyer_sim", record=new, clock="real_time", factor="2", namespace="left")
    assert faster["recorder"].parameters["use_sim_time"] is True
    assert faster["recorder"].namespace == "left"
    with pytest.raises(InputError, match="record: found the folder .*; expected a new one"):
        build("sawyer_sim", record=str(tmp_path))


def test_a_recording_by_rosbag2(tmp_path):
    """Its recorder gets the contract's topics and text; ours is the default."""
    (ours,) = build("record").values()
    assert (ours.executable, ours.package, ours.main) == ("recorder_node", "smac_ros", True)
    given = {"writer": "ros2bag", "out": "bags/one", "max_size": "2.5", "namespace": "left"}
    (theirs,) = build("record", **given, use_sim_time="true").values()
    assert (theirs.executable, theirs.package) == ("recorder", "rosbag2_transport")
    assert theirs.main and theirs.namespace == "left"
    parameters = theirs.parameters
    assert parameters["record.topics"][-3:] == ["reward", "episode", "terminated"]
    assert parameters["storage.uri"] == "bags/one" and parameters["use_sim_time"] is True
    assert parameters["storage.max_bagfile_size"] == 2_500_000
    (custom,) = parameters["storage.custom_data"]
    assert custom == f"smac_ros_contract={load_contract('sawyer_sim').text}"


def test_an_operator_rewards_in_real_time():
    """A joystick's node is one of the system's; a keyboard's has a terminal of its own."""
    for system in ("sawyer_sim", "meta_test"):
        assert "rewards" not in build(system)["episode_manager"].parameters
        for device in ("joystick", "keyboard"):
            nodes = build(system, operator=device, clock="real_time")
            assert nodes["episode_manager"].parameters["rewards"] == "operator"
            assert ("operator" in nodes) == (device == "joystick")
            assert list(nodes)[-1] == "episode_manager" and nodes["episode_manager"].main
        with pytest.raises(InputError, match="operator: found joystick; expected none, or clock"):
            build(system, operator="joystick")
    operator = build("meta_test", operator="joystick", clock="real_time")["operator"]
    assert operator.parameters == {"contract": "sawyer_sim", "input": "joystick"}
