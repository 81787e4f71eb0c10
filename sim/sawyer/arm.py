"""The Sawyer arm and its parallel gripper in one PyBullet world."""

from pathlib import Path

import numpy as np

from .engine import pybullet

ASSETS = Path(__file__).parent / "assets"
BASE = (0.1, 0.0, -0.07)  # m, world frame
WORKSPACE_LOW = (0.5, -0.2, -0.36)  # m, of the end-effector
WORKSPACE_HIGH = (0.85, 0.2, -0.1)
STEP = 0.05  # m commanded by a full action
SITE_DEPTH = 0.0245 - 0.005 + 0.1  # m from right_l6 along its z to the end-effector's site
OPEN = 0.03575  # m, each finger
ARM_JOINTS, FINGER_JOINTS = range(7), (7, 8)
JOINT_NAMES = (*(f"right_j{i}" for i in range(7)), "left_finger_joint", "right_finger_joint")
LINK_NAMES = (*(f"right_l{i}" for i in range(7)), "left_finger", "right_finger")
WRIST = 6  # link index of right_l6

# Near the home pose of either side (m, rad); refined when the arm is made.
_NEAR_HOME = {
    1: (-0.754, -0.502, 0.270, 1.780, -0.670, 0.386, -1.384),
    -1: (-0.079, -0.478, 0.098, 1.810, -0.350, 0.256, -1.091),
}
HOME = {side: (0.6, -0.15 * side, -0.2) for side in (1, -1)}
# right_l6's orientation (x, y, z, w) when the hand, turned 90 degrees against it, points down
_DOWN = (0.5**0.5, 0.5**0.5)

_SITE = (0.0, 0.0, SITE_DEPTH)
_ZEROS = [0.0] * 9
_DAMPING = 1e-4 * np.eye(6)  # of the least-squares step, m^2 and rad^2
_REST_GAIN = 0.1  # share of the way to the rest posture per step, in the null space
_POSITION_GAINS = [0.1] * 9  # of a substep: ten of them cover 1 - 0.9^10 = 65 % of a command
_VELOCITY_GAINS = [1.0] * 9
_FORCES = [100.0] * 7 + [10.0] * 2  # N m and N


class Arm:
    """Moves the end-effector by position increments with the hand pointing down."""

    def __init__(self, client: int) -> None:
        self._client = client
        self.body = pybullet.loadURDF(
            str(ASSETS / "sawyer.urdf"), BASE, useFixedBase=True, physicsClientId=client
        )
        self._joints = list(range(9))
        limits = [pybullet.getJointInfo(self.body, j, physicsClientId=client) for j in ARM_JOINTS]
        self._lower = np.array([info[8] for info in limits])
        self._upper = np.array([info[9] for info in limits])
        self._rest = np.zeros(7)
        self._home = {side: self._solve_home(side) for side in (1, -1)}
        self.reset(1)

    def _solve_home(self, side: int) -> np.ndarray:
        self._rest = np.array(_NEAR_HOME[side])
        self._place(self._rest)
        for _ in range(20):
            self._place(self._posture_towards(HOME[side], *self._wrist()))
        return self._posture_towards(HOME[side], *self._wrist())

    def _place(self, posture: np.ndarray, finger: float = OPEN) -> None:
        for joint, angle in enumerate((*posture, finger, finger)):
            pybullet.resetJointState(self.body, joint, angle, physicsClientId=self._client)

    def reset(self, side: int) -> None:
        """Put the arm at rest at the home of `side` with the gripper open."""
        self._rest = self._home[side]
        self._place(self._rest)
        self._drive(self._rest.tolist(), OPEN)

    def position(self) -> tuple[float, float, float]:
        """The end-effector's position, m."""
        return self._wrist()[0]

    def orientation(self) -> tuple[float, float, float, float]:
        """The hand's orientation (x, y, z, w): (1, 0, 0, 0) where it points straight down."""
        x, y, z, w = self._wrist()[1]
        s = 0.5**0.5  # the hand is right_l6 turned 90 degrees about z
        return s * (x + y), s * (y - x), s * (z + w), s * (w - z)

    def link_poses(self) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
        """World pose (xyz, xyzw) of every link, in the frames of the URDF."""
        states = pybullet.getLinkStates(self.body, self._joints, physicsClientId=self._client)
        poses = {"base": (BASE, (0.0, 0.0, 0.0, 1.0))}
        return poses | {name: (s[4], s[5]) for name, s in zip(LINK_NAMES, states, strict=True)}

    def opening(self) -> float:
        """Distance between the fingers, m: 0 closed, 0.0715 open."""
        states = pybullet.getJointStates(self.body, FINGER_JOINTS, physicsClientId=self._client)
        return states[0][0] + states[1][0]

    def joint_states(self) -> tuple[list[float], list[float]]:
        """Positions (9) and velocities (9) of JOINT_NAMES: rad, and m for the fingers."""
        states = pybullet.getJointStates(self.body, self._joints, physicsClientId=self._client)
        return [s[0] for s in states], [s[1] for s in states]

    def _wrist(self) -> tuple[tuple[float, float, float], tuple[float, float, float, float]]:
        """The end-effector's position and right_l6's quaternion (x, y, z, w)."""
        state = pybullet.getLinkState(self.body, WRIST, physicsClientId=self._client)
        (px, py, pz), (x, y, z, w) = state[4], state[5]
        site = (
            px + SITE_DEPTH * 2 * (x * z + w * y),
            py + SITE_DEPTH * 2 * (y * z - w * x),
            pz + SITE_DEPTH * (1 - 2 * (x * x + y * y)),
        )
        return site, (x, y, z, w)

    def _posture_towards(
        self,
        target: tuple[float, float, float],
        site: tuple[float, float, float],
        quaternion: tuple[float, float, float, float],
    ) -> np.ndarray:
        """One damped least-squares step: joint angles (7,) that bring the site to `target`.

        The same step turns the hand upright and, in what freedom is left, leans to the rest
        posture, so that the seventh joint does not wander.
        """
        states = pybullet.getJointStates(self.body, self._joints, physicsClientId=self._client)
        angles = [state[0] for state in states]
        linear, angular = pybullet.calculateJacobian(
            self.body, WRIST, _SITE, angles, _ZEROS, _ZEROS, self._client
        )
        jacobian = np.array(linear + angular)[:, :7]
        # rotation from the present orientation q to the one wanted d, as d * conj(q)
        x, y, z, w = quaternion
        dx, dy = _DOWN
        twice = 2.0 if dx * x + dy * y >= 0 else -2.0
        error = np.array(
            (
                target[0] - site[0],
                target[1] - site[1],
                target[2] - site[2],
                twice * (dx * w - dy * z),
                twice * (dy * w + dx * z),
                twice * (dy * x - dx * y),
            )
        )
        posture = np.array(angles[:7])
        lean = _REST_GAIN * (self._rest - posture)
        step = np.linalg.solve(jacobian @ jacobian.T + _DAMPING, error - jacobian @ lean)
        posture += lean + jacobian.T @ step
        return np.minimum(np.maximum(posture, self._lower), self._upper)

    def command(self, action: list[float]) -> tuple[float, float, float]:
        """Set the motors for `action`: three increments and the gripper, each in [-1, 1].

        Returns the end-effector's present position, m.
        """
        site, quaternion = self._wrist()
        x, y, z = site
        low, high = WORKSPACE_LOW, WORKSPACE_HIGH
        target = (
            min(max(x + STEP * action[0], low[0]), high[0]),
            min(max(y + STEP * action[1], low[1]), high[1]),
            min(max(z + STEP * action[2], low[2]), high[2]),
        )
        posture = self._posture_towards(target, site, quaternion)
        self._drive(posture.tolist(), OPEN * (1 - action[3]) / 2)
        return site

    def _drive(self, posture: list[float], finger: float) -> None:
        pybullet.setJointMotorControlArray(
            self.body,
            self._joints,
            pybullet.POSITION_CONTROL,
            targetPositions=[*posture, finger, finger],
            positionGains=_POSITION_GAINS,
            velocityGains=_VELOCITY_GAINS,
            forces=_FORCES,
            physicsClientId=self._client,
        )
