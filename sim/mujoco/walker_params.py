"""Walker-Param: a two-legged walker in the plane, with masses, dampings and frictions unknown.

Tasks, observation (17) and reward: see `random_physics`; 65 factors a task. An episode ends where
the height of the torso leaves (0.8, 2) m or its pitch (-1, 1) rad.
"""

import numpy as np

from .base import States
from .environment import MujocoTaskEnv
from .random_physics import RandomPhysics
from .vector import MujocoTaskVectorEnv

JOINTS = ("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle")
OBSERVATION_NAMES = (
    *("height", "pitch", *JOINTS),
    *("velocity_x", "velocity_z", "velocity_pitch", *(f"velocity_{name}" for name in JOINTS)),
)
OBSERVATION_UNITS = ("m", *["rad"] * 7, "m/s", "m/s", *["rad/s"] * 7)
ACTION_NAMES = JOINTS
ACTION_UNITS = ("100 N m",) * 6


class WalkerParams(RandomPhysics):
    """See the module's text."""

    MODEL = "walker2d.xml"  # the one with the old model's frictions; walker2d_v5.xml has others
    observation_names, observation_units = OBSERVATION_NAMES, OBSERVATION_UNITS
    action_names, action_units = ACTION_NAMES, ACTION_UNITS

    def terminated(self, states: States) -> np.ndarray:
        height, pitch = states.qpos[:, 1], states.qpos[:, 2]
        return ~((height > 0.8) & (height < 2.0) & (np.abs(pitch) < 1.0))


class WalkerParamsEnv(MujocoTaskEnv):
    """One walker; options as in `MujocoTaskEnv` and `RandomPhysics`."""

    DOMAIN = WalkerParams


class WalkerParamsVectorEnv(MujocoTaskVectorEnv):
    """Many walkers; options as in `MujocoTaskVectorEnv` and `RandomPhysics`."""

    DOMAIN = WalkerParams
