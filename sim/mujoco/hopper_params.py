"""Hopper-Param: a one-legged hopper in the plane, with masses, dampings and frictions unknown.

Tasks, observation (11) and reward: see `random_physics`; 41 factors a task. An episode ends where
the height of the torso falls to 0.7 m, its pitch leaves (-0.2, 0.2) rad, or another position than
x and height, or a velocity, reaches 100.
"""

import numpy as np

from .base import States
from .environment import MujocoTaskEnv
from .random_physics import RandomPhysics
from .vector import MujocoTaskVectorEnv

JOINTS = ("hip", "knee", "ankle")
OBSERVATION_NAMES = (
    *("height", "pitch", *JOINTS),
    *("velocity_x", "velocity_z", "velocity_pitch", *(f"velocity_{name}" for name in JOINTS)),
)
OBSERVATION_UNITS = ("m", *["rad"] * 4, "m/s", "m/s", *["rad/s"] * 4)
ACTION_NAMES = JOINTS
ACTION_UNITS = ("200 N m",) * 3


class HopperParams(RandomPhysics):
    """See the module's text."""

    MODEL = "hopper.xml"
    observation_names, observation_units = OBSERVATION_NAMES, OBSERVATION_UNITS
    action_names, action_units = ACTION_NAMES, ACTION_UNITS

    def terminated(self, states: States) -> np.ndarray:
        height, pitch = states.qpos[:, 1], states.qpos[:, 2]
        largest = np.maximum(np.abs(states.qpos[:, 2:]).max(1), np.abs(states.qvel).max(1))
        return ~((height > 0.7) & (np.abs(pitch) < 0.2) & (largest < 100.0))


class HopperParamsEnv(MujocoTaskEnv):
    """One hopper; options as in `MujocoTaskEnv` and `RandomPhysics`."""

    DOMAIN = HopperParams


class HopperParamsVectorEnv(MujocoTaskVectorEnv):
    """Many hoppers; options as in `MujocoTaskVectorEnv` and `RandomPhysics`."""

    DOMAIN = HopperParams
