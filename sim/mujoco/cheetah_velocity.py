"""Cheetah-Vel: a two-legged half cheetah that should run at a given speed.

A task is ``{"velocity": m/s along x}``, drawn uniformly from 0 to 3.

Observation (20): height, pitch and six joint angles; their velocities behind that of x; position of
the torso. Reward: -|v - velocity| - 0.05 |action|^2 with v the mean over the step. No early end.
"""

import functools

import numpy as np

from .base import Domain, States
from .environment import MujocoTaskEnv
from .tasks import check_fields, check_number
from .vector import MujocoTaskVectorEnv

JOINTS = ("back_thigh", "back_shin", "back_foot", "front_thigh", "front_shin", "front_foot")
OBSERVATION_NAMES = (
    *("height", "pitch", *JOINTS),
    *("velocity_x", "velocity_z", "velocity_pitch", *(f"velocity_{name}" for name in JOINTS)),
    *("torso_x", "torso_y", "torso_z"),
)
OBSERVATION_UNITS = ("m", *["rad"] * 7, "m/s", "m/s", *["rad/s"] * 7, "m", "m", "m")
ACTION_NAMES = JOINTS
ACTION_UNITS = ("120 N m", "90 N m", "60 N m", "120 N m", "60 N m", "30 N m")
VELOCITIES = (0.0, 3.0)  # m/s
TORSO_HEIGHT = 0.7  # m, where the joint that slides along z reads 0


class CheetahVelocity(Domain):
    """See the module's text."""

    MODEL, FRAME_SKIP = "half_cheetah.xml", 5
    observation_names, observation_units = OBSERVATION_NAMES, OBSERVATION_UNITS
    action_names, action_units = ACTION_NAMES, ACTION_UNITS

    def sample_task(self, rng: np.random.Generator | np.random.RandomState) -> dict:
        return {"velocity": float(rng.uniform(*VELOCITIES))}

    def validate(self, task: dict) -> None:
        check_fields(task, ("velocity",))
        check_number("velocity", task["velocity"], "a number of m/s")

    def goal(self, task: dict) -> tuple[float]:
        return (task["velocity"],)

    def initial(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        qpos = self.model.qpos0 + rng.uniform(-0.1, 0.1, self.model.nq)
        return qpos, 0.1 * rng.standard_normal(self.model.nv)

    def observe(self, states: States) -> np.ndarray:
        torso = np.zeros((len(states.qpos), 3))
        torso[:, 0] = states.qpos[:, 0]
        torso[:, 2] = states.qpos[:, 1] + TORSO_HEIGHT
        return np.concatenate((states.qpos[:, 1:], states.qvel, torso), axis=1)

    def reward(
        self, before: States, after: States, control: np.ndarray, goals: np.ndarray
    ) -> np.ndarray:
        velocity = (after.qpos[:, 0] - before.qpos[:, 0]) / self.dt
        return -np.abs(velocity - goals[:, 0]) - 0.05 * np.square(control).sum(axis=1)

    def terminated(self, states: States) -> np.ndarray:
        return np.zeros(len(states.qpos), bool)


def rewards(
    observations: np.ndarray, actions: np.ndarray, next_observations: np.ndarray, task: dict
) -> np.ndarray:
    """What a task pays for steps [n] of the usual robot, from observations alone, in float64.

    Observations [n, 20] and next_observations [n, 20], actions [n, 6]. The mean velocity comes
    from the torso's positions: of float32 observations it is exact to about 1e-4 m/s.
    """
    domain = _usual()
    before, after = (_along_x(rows) for rows in (observations, next_observations))
    goals = np.tile(domain.goal(task), (len(observations), 1))
    return domain.reward(before, after, domain.control(actions), goals)


@functools.cache
def _usual() -> CheetahVelocity:
    return CheetahVelocity()


def _along_x(observations: np.ndarray) -> States:
    """What the reward reads of the states that observations [n, 20] show."""
    position = observations[:, OBSERVATION_NAMES.index("torso_x")].astype(np.float64)
    nothing = np.empty((len(observations), 0))
    return States(position[:, None], nothing, nothing)


class CheetahVelocityEnv(MujocoTaskEnv):
    """One cheetah; options as in `MujocoTaskEnv` and `CheetahVelocity`."""

    DOMAIN = CheetahVelocity


class CheetahVelocityVectorEnv(MujocoTaskVectorEnv):
    """Many cheetahs; options as in `MujocoTaskVectorEnv` and `CheetahVelocity`."""

    DOMAIN = CheetahVelocity
