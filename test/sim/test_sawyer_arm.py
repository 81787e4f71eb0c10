"""The arm: kinematics, response to actions, drift, gripper."""

import numpy as np
import pybullet
import pytest

# Parent -> child origins of the seven joints (axis +z everywhere), the manufacturer's table.
JOINTS = [
    ((0, 0, 0.08), (0, 0, 0)),
    ((0.081, 0.05, 0.237), (-np.pi / 2, np.pi / 2, 0)),
    ((0, -0.14, 0.1425), (np.pi / 2, 0, 0)),
    ((0, -0.042, 0.26), (-np.pi / 2, 0, 0)),
    ((0, -0.125, -0.1265), (np.pi / 2, 0, 0)),
    ((0, 0.031, 0.275), (-np.pi / 2, 0, 0)),
    ((0, -0.11, 0.1053), (-np.pi / 2, -0.17453, 3.1416)),
]
HAND = [((0, 0, 0.0245), (0, 0, np.pi / 2)), ((0, 0, -0.005), (0, 0, 0)), ((0, 0, 0.1), (0, 0, 0))]
LIMITS = [(-3.0503, 3.0503), (-3.8183, 2.2824), *[(-3.0514, 3.0514)] * 2]
LIMITS += [*[(-2.9842, 2.9842)] * 2, (-4.7104, 4.7104)]


def transform(xyz, rpy):
    """Homogeneous (4, 4) of a URDF origin: R = Rz(yaw) Ry(pitch) Rx(roll)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    rx = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    ry = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    rz = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rz @ ry @ rx, xyz
    return out


def forward(angles):
    """End-effector position (3,) in the world frame, m."""
    pose = transform((0.1, 0, -0.07), (0, 0, 0))
    for (xyz, rpy), angle in zip(JOINTS, angles, strict=True):
        pose = pose @ transform(xyz, rpy) @ transform((0, 0, 0), (0, 0, angle))
    for xyz, rpy in HAND:
        pose = pose @ transform(xyz, rpy)
    return pose[:3, 3]


def test_kinematics_match_the_joint_table(sawyer, empty_task):
    sawyer.reset(options={"task": empty_task})
    arm, client = sawyer.scene.arm, sawyer.scene.client
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = [rng.uniform(*limits) for limits in LIMITS]
        for joint, angle in enumerate(angles):
            pybullet.resetJointState(arm.body, joint, angle, physicsClientId=client)
        assert arm.position() == pytest.approx(forward(angles), abs=1e-5)


def test_limits_and_masses_are_the_arms(sawyer):
    arm, client = sawyer.scene.arm, sawyer.scene.client
    masses = [5.3213, 4.505, 1.7251, 2.4743, 1.0433, 1.5343, 0.3292]
    for joint, ((low, high), mass) in enumerate(zip(LIMITS, masses, strict=True)):
        info = pybullet.getJointInfo(arm.body, joint, physicsClientId=client)
        assert info[1].decode() == f"right_j{joint}" and info[8:10] == (low, high)
        dynamics = pybullet.getDynamicsInfo(arm.body, joint, physicsClientId=client)
        assert dynamics[0] == pytest.approx(mass)


@pytest.mark.parametrize("side", [1, -1])
def test_home(sawyer, empty_task, side):
    observation, _ = sawyer.reset(options={"task": empty_task | {"side": side}})
    assert observation[:3] == pytest.approx([0.6, -0.15 * side, -0.2], abs=1e-4)
    assert observation[3] == pytest.approx(0.0715, abs=1e-3)


@pytest.mark.parametrize("axis,sign", [(0, 1), (1, 1), (2, -1)])
def test_full_action_moves_65_percent_of_the_command(sawyer, empty_task, axis, sign):
    """0.030 to 0.034 m per step once moving, as measured on the authors' environment."""
    before, _ = sawyer.reset(options={"task": empty_task})
    action = np.zeros(4)
    action[axis], action[3] = sign, -1
    before = sawyer.step(action)[0]
    for _ in range(2):
        after = sawyer.step(action)[0]
        assert 0.0295 < sign * (after - before)[axis] < 0.0345
        before = after


@pytest.mark.parametrize("side", [1, -1])
def test_zero_actions_hardly_drift(sawyer, full_task, side):
    start, _ = sawyer.reset(options={"task": full_task(side)})
    for _ in range(50):
        observation = sawyer.step([0, 0, 0, -1])[0]
    assert np.abs(observation - start).max() < 3e-4


def test_hand_stays_in_the_workspace_and_upright(sawyer, empty_task):
    sawyer.reset(options={"task": empty_task})
    arm, client = sawyer.scene.arm, sawyer.scene.client
    rng = np.random.default_rng(1)
    for _ in range(20):
        action = rng.choice([-1.0, 1.0], 4)
        for _ in range(12):
            observation = sawyer.step(action)[0]
            x, y, z = observation[:3]
            assert 0.48 < x < 0.87 and -0.22 < y < 0.22 and -0.37 < z < -0.08
        for _ in range(5):  # pushing into the table tilts it by up to 12 degrees
            sawyer.step([0, 0, 0, 0])
        quaternion = pybullet.getLinkState(arm.body, 6, physicsClientId=client)[5]
        down = np.reshape(pybullet.getMatrixFromQuaternion(quaternion), (3, 3))[:, 2]
        assert down[2] < -0.9995


def test_gripper_reading_falls_with_closing(sawyer, empty_task):
    """Pins a flaw of the authors' version, where it rises and falls."""
    sawyer.reset(options={"task": empty_task})
    readings = []
    for command in np.linspace(-1, 1, 9):
        for _ in range(5):
            observation = sawyer.step([0, 0, 0, command])[0]
        readings.append(observation[3])
    assert (np.diff(readings) < -0.005).all()
    assert readings[0] == pytest.approx(0.0715, abs=1e-3)
    assert readings[-1] == pytest.approx(0.0, abs=1e-3)
