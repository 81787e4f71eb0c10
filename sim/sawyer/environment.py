"""Sawyer Manipulation as a Gymnasium environment.

Observation (13, float32, SI units, world frame; an absent object reads 0):

    0-2    end-effector xyz
    3      distance between the fingers
    4-6    graspable object xyz
    7-9    lego block in the bottom drawer, xyz
    10     bottom (button-operated) drawer x
    11     handle of the other drawer, y
    12     button z

Action (4, float32, in [-1, 1]): end-effector increments of up to 0.05 m along x, y, z, and the
gripper, absolute, from -1 open to +1 closed. Control runs at 24 Hz. The reward is 0 where the
task's behavior is achieved and -1 elsewhere; episodes end by time limit alone.
"""

import copy
import os
import sys
from collections.abc import Sequence
from math import isfinite
from typing import Any

import gymnasium
import numpy as np

from .behaviors import THREE, success
from .scene import CONTROL_PERIOD, Scene
from .tasks import sample_task, validate

_BOUND = np.full(13, 2.0, dtype=np.float32)  # m; nothing in the scene comes near it


class SawyerEnv(gymnasium.Env):
    """One Sawyer at a table. A task is plain JSON (see `tasks`), given to `reset`."""

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": round(1 / CONTROL_PERIOD)}

    def __init__(
        self,
        render_mode: str | None = None,
        behaviors: Sequence[str] = THREE,  # to draw a task from where `reset` is given none
        width: int = 640,
        height: int = 480,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"render_mode: found {render_mode!r}, expected None, 'rgb_array' or 'human'"
            )
        if render_mode == "human" and sys.platform == "linux" and not os.environ.get("DISPLAY"):
            raise RuntimeError(
                "render_mode 'human' opens PyBullet's window and found no display (DISPLAY is not "
                "set); use render_mode 'rgb_array' on a machine without one"
            )
        self.render_mode, self.width, self.height = render_mode, width, height
        self.behaviors = tuple(behaviors)
        self.observation_space = gymnasium.spaces.Box(-_BOUND, _BOUND, dtype=np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), dtype=np.float32)
        self.scene = Scene(gui=render_mode == "human")
        self.task: dict | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in ``options["task"]``, or the present task, or a drawn one."""
        super().reset(seed=seed)
        for key in options or {}:
            if key != "task":
                raise ValueError(f"reset option {key!r}: expected only 'task'")
        task = (options or {}).get("task")
        if task is None:
            task = self.task or sample_task(self.np_random, self.behaviors)
        if task is not self.task:
            validate(task)
            self.task = copy.deepcopy(task)
        self.scene.reset(self.task)
        observation, achieved = self._judged(self.scene.observe())
        return observation, {"success": achieved, "behavior": self.task["behavior"]}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply `action` (4,) for one control period."""
        if self.task is None:
            raise RuntimeError("call reset before step")
        observation, achieved = self._judged(self.scene.step(self._checked(action)))
        info = {"success": achieved, "behavior": self.task["behavior"]}
        return observation, float(achieved) - 1.0, False, False, info

    def step_engine(self) -> None:
        """Physics of one control period and nothing else: what benchmarks compare `step` with."""
        self.scene.advance()

    @staticmethod
    def _checked(action: np.ndarray) -> list[float]:
        array = np.asarray(action, dtype=np.float64)
        if array.shape != (4,):
            raise ValueError(f"action: found shape {array.shape}, expected (4,)")
        values = array.tolist()
        if not all(map(isfinite, values)):
            raise ValueError(f"action: found {values}, expected four finite numbers")
        return [min(max(value, -1.0), 1.0) for value in values]

    def _judged(self, values: list[float]) -> tuple[np.ndarray, bool]:
        """The observation (13,) float32 and whether it shows the task's behavior achieved."""
        achieved = success(self.task["behavior"], self.task, values)
        return np.array(values, dtype=np.float32), achieved

    def render(self) -> np.ndarray | None:
        """An image (height, width, 3) uint8 in mode "rgb_array"; the window draws itself."""
        if self.render_mode != "rgb_array":
            return None
        from .rendering import picture  # only those who look at pictures pay for it

        with self.scene.all_in_place():
            return picture(self.scene.client, self.width, self.height)

    def close(self) -> None:
        self.scene.close()
