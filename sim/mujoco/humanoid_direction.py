"""Humanoid-Dir: a humanoid that should walk in a given direction.

A task is ``{"direction": degrees from x towards y}``, drawn uniformly from 0 to 360.

Observation (376): height, orientation (w, x, y, z) and 17 joint angles; velocity of the torso, in
the world's frame, and about its own axes; velocities of the joints; then of the world and the 13
bodies inertia (10 numbers each) and velocity (6), of the degrees of freedom the actuators' forces
(23), of the bodies again the contact forces (6). Action (17): +-1 is +-0.4 of the model's control.
Reward: 1.25 v . direction + 5 - 0.1 |control|^2 - min(0.5e-6 |contact forces|^2, 10), with v the
mean velocity of the centre of mass over the step. An episode ends where the height of the torso
leaves [1, 2] m.
"""

from math import cos, radians, sin

import mujoco
import numpy as np

from .base import Domain, States, unit_quaternion
from .environment import MujocoTaskEnv
from .tasks import check_fields, check_number
from .vector import MujocoTaskVectorEnv

JOINTS = (
    *("abdomen_z", "abdomen_y", "abdomen_x"),
    *("right_hip_x", "right_hip_z", "right_hip_y", "right_knee"),
    *("left_hip_x", "left_hip_z", "left_hip_y", "left_knee"),
    *("right_shoulder1", "right_shoulder2", "right_elbow"),
    *("left_shoulder1", "left_shoulder2", "left_elbow"),
)
BODIES = (
    *("world", "torso", "lower_waist", "pelvis"),
    *("right_thigh", "right_shin", "right_foot", "left_thigh", "left_shin", "left_foot"),
    *("right_upper_arm", "right_lower_arm", "left_upper_arm", "left_lower_arm"),
)
FREEDOMS = (
    *("velocity_x", "velocity_y", "velocity_z", "rotation_x", "rotation_y", "rotation_z"),
    *(f"velocity_{name}" for name in JOINTS),
)
INERTIA = ("xx", "yy", "zz", "xy", "xz", "yz", "mass_x", "mass_y", "mass_z", "mass")
SPATIAL = ("rotation_x", "rotation_y", "rotation_z", "x", "y", "z")
OBSERVATION_NAMES = (
    *("height", "orientation_w", "orientation_x", "orientation_y", "orientation_z", *JOINTS),
    *FREEDOMS,
    *(f"inertia_{body}_{part}" for body in BODIES for part in INERTIA),
    *(f"velocity_{body}_{part}" for body in BODIES for part in SPATIAL),
    *(f"actuation_{name}" for name in FREEDOMS),
    *(f"contact_{body}_{part}" for body in BODIES for part in SPATIAL),
)
OBSERVATION_UNITS = (
    *("m", *["1"] * 4, *["rad"] * 17, *["m/s"] * 3, *["rad/s"] * 20),
    *(*["kg m^2"] * 6, *["kg m"] * 3, "kg") * 14,
    *(*["rad/s"] * 3, *["m/s"] * 3) * 14,
    *(*["N"] * 3, *["N m"] * 20),
    *(*["N m"] * 3, *["N"] * 3) * 14,
)
ACTION_NAMES = (JOINTS[1], JOINTS[0], *JOINTS[2:])
ACTION_UNITS = (
    *["40 N m"] * 5,
    *("120 N m", "80 N m", "40 N m", "40 N m", "120 N m", "80 N m"),
    *["10 N m"] * 6,
)
_CENTRE = slice(0, 2)  # of mass, in what is derived
_SHOWN = slice(2, None)
_FORCES = slice(2 + 140 + 84 + 23, None)


class HumanoidDirection(Domain):
    """See the module's text.

    Args:
        frame_skip: physics steps of 0.003 s to a control step; None is 5.
        velocity_weight: what a speed of 1 m/s earns. The authors' 0.25 multiplies a displacement
            over five physics steps divided by the length of one, so it is 1.25.
        contact_forces: whether contacts are observed and cost reward. False reads 0 everywhere, as
            in the authors' MuJoCo.
    """

    MODEL, FRAME_SKIP = "humanoid.xml", 5
    observation_names, observation_units = OBSERVATION_NAMES, OBSERVATION_UNITS
    action_names, action_units = ACTION_NAMES, ACTION_UNITS
    derived_size = 2 + 140 + 84 + 23 + 84

    def __init__(
        self,
        frame_skip: int | None = None,
        velocity_weight: float = 1.25,
        contact_forces: bool = True,
    ) -> None:
        super().__init__(frame_skip)
        self.velocity_weight, self.contact_forces = velocity_weight, contact_forces

    def sample_task(self, rng: np.random.Generator | np.random.RandomState) -> dict:
        return {"direction": float(rng.uniform(0.0, 360.0))}

    def validate(self, task: dict) -> None:
        check_fields(task, ("direction",))
        check_number("direction", task["direction"], "a number of degrees")

    def goal(self, task: dict) -> tuple[float, float]:
        angle = radians(task["direction"])
        return cos(angle), sin(angle)

    def initial(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        qpos = self.model.qpos0 + rng.uniform(-0.01, 0.01, self.model.nq)
        return unit_quaternion(qpos), rng.uniform(-0.01, 0.01, self.model.nv)

    def derive(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        forces = data.cfrc_ext.ravel() if self.contact_forces else np.zeros(6 * model.nbody)
        parts = (data.cinert.ravel(), data.cvel.ravel(), data.qfrc_actuator, forces)
        return np.concatenate((data.subtree_com[0, :2], *parts))

    def observe(self, states: States) -> np.ndarray:
        shown = (states.qpos[:, 2:], states.qvel, states.derived[:, _SHOWN])
        return np.concatenate(shown, axis=1)

    def reward(
        self, before: States, after: States, control: np.ndarray, goals: np.ndarray
    ) -> np.ndarray:
        velocity = (after.derived[:, _CENTRE] - before.derived[:, _CENTRE]) / self.dt
        forward = self.velocity_weight * (velocity * goals).sum(axis=1)
        effort = 0.1 * np.square(control).sum(axis=1)
        impact = np.minimum(0.5e-6 * np.square(after.derived[:, _FORCES]).sum(axis=1), 10.0)
        return forward + 5.0 - effort - impact

    def terminated(self, states: States) -> np.ndarray:
        height = states.qpos[:, 2]
        return ~((height >= 1.0) & (height <= 2.0))


class HumanoidDirectionEnv(MujocoTaskEnv):
    """One humanoid; options as in `MujocoTaskEnv` and `HumanoidDirection`."""

    DOMAIN = HumanoidDirection


class HumanoidDirectionVectorEnv(MujocoTaskVectorEnv):
    """Many humanoids; options as in `MujocoTaskVectorEnv` and `HumanoidDirection`."""

    DOMAIN = HumanoidDirection
