"""Ant-Dir: a four-legged ant that should run in a given direction.

A task is ``{"direction": degrees from x towards y}``, drawn uniformly from 0 to 360.

Observation (27): height, orientation (w, x, y, z) and eight joint angles; velocity of the torso, in
the world's frame, and about its own axes; velocities of the joints. The paper lists 20 of them:
orientation, angles and velocities of the joints. Reward:
v . direction + 1 - 0.5 |action|^2 - 0.5e-3 |clip(contact forces, -1, 1)|^2, with v the mean over
the step and six forces and torques a body. An episode ends where the height leaves [0.2, 1] m.
"""

from math import cos, radians, sin

import mujoco
import numpy as np

from .base import Domain, States, unit_quaternion
from .environment import MujocoTaskEnv
from .tasks import check_fields, check_number
from .vector import MujocoTaskVectorEnv

LEGS = ("front_left", "front_right", "back_left", "back_right")
JOINTS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "ankle"))
OBSERVATION_NAMES = (
    *("height", "orientation_w", "orientation_x", "orientation_y", "orientation_z", *JOINTS),
    *("velocity_x", "velocity_y", "velocity_z", "rotation_x", "rotation_y", "rotation_z"),
    *(f"velocity_{name}" for name in JOINTS),
)
OBSERVATION_UNITS = ("m", *["1"] * 4, *["rad"] * 8, *["m/s"] * 3, *["rad/s"] * 11)
ACTION_NAMES = (*JOINTS[-2:], *JOINTS[:-2])  # the model's actuators begin with the last leg
ACTION_UNITS = ("150 N m",) * 8
OBSERVATIONS = {"code": slice(0, 27), "paper": np.r_[1:13, 19:27]}


class AntDirection(Domain):
    """See the module's text.

    Args:
        frame_skip: physics steps of 0.01 s to a control step; None is 5.
        observation: "code", 27 numbers, or "paper", 20.
        gear: N m at action 1.
        contact_forces: whether contacts cost reward. False is how the authors' code behaves, for
            whose MuJoCo these forces read 0, and saves a forward pass a step.
    """

    MODEL, FRAME_SKIP = "ant.xml", 5
    action_names = ACTION_NAMES

    def __init__(
        self,
        frame_skip: int | None = None,
        observation: str = "code",
        gear: float = 150.0,
        contact_forces: bool = True,
    ) -> None:
        super().__init__(frame_skip)
        if observation not in OBSERVATIONS:
            raise ValueError(f"observation: found {observation!r}, expected 'code' or 'paper'")
        self._shown = OBSERVATIONS[observation]
        self.observation_names = tuple(np.array(OBSERVATION_NAMES)[self._shown].tolist())
        self.observation_units = tuple(np.array(OBSERVATION_UNITS)[self._shown].tolist())
        self.action_units = (f"{gear:g} N m",) * 8
        self.model.actuator_gear[:, 0] = gear
        self.derived_size = 6 * self.model.nbody if contact_forces else 0  # forces and torques

    def sample_task(self, rng: np.random.Generator | np.random.RandomState) -> dict:
        return {"direction": float(rng.uniform(0.0, 360.0))}

    def validate(self, task: dict) -> None:
        check_fields(task, ("direction",))
        check_number("direction", task["direction"], "a number of degrees")

    def goal(self, task: dict) -> tuple[float, float]:
        angle = radians(task["direction"])
        return cos(angle), sin(angle)

    def initial(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        qpos = self.model.qpos0 + rng.uniform(-0.1, 0.1, self.model.nq)
        return unit_quaternion(qpos), 0.1 * rng.standard_normal(self.model.nv)

    def derive(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        return data.cfrc_ext.flatten()

    def observe(self, states: States) -> np.ndarray:
        return np.concatenate((states.qpos[:, 2:], states.qvel), axis=1)[:, self._shown]

    def reward(
        self, before: States, after: States, control: np.ndarray, goals: np.ndarray
    ) -> np.ndarray:
        velocity = (after.qpos[:, :2] - before.qpos[:, :2]) / self.dt
        forward = (velocity * goals).sum(axis=1)
        effort = 0.5 * np.square(control).sum(axis=1)
        contact = 0.5e-3 * np.square(np.clip(after.derived, -1.0, 1.0)).sum(axis=1)
        return forward + 1.0 - effort - contact

    def terminated(self, states: States) -> np.ndarray:
        height = states.qpos[:, 2]
        return ~((height >= 0.2) & (height <= 1.0))


class AntDirectionEnv(MujocoTaskEnv):
    """One ant; options as in `MujocoTaskEnv` and `AntDirection`."""

    DOMAIN = AntDirection


class AntDirectionVectorEnv(MujocoTaskVectorEnv):
    """Many ants; options as in `MujocoTaskVectorEnv` and `AntDirection`."""

    DOMAIN = AntDirection
