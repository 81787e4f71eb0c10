"""One robot of a MuJoCo domain as a Gymnasium environment.

Observations are float32, actions in [-1, 1]. A task is plain JSON (see the domain's module), given
to ``reset(options={"task": ...})``.
"""

import copy
import os
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np

from .base import Domain, States, settle

# After one of these MuJoCo starts again from the model's own pose, in the middle of a step.
DIVERGED = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)


def spaces(domain: Domain) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
    """Observation and action space of one robot."""
    observations = gymnasium.spaces.Box(-np.inf, np.inf, (len(domain.observation_names),))
    return observations, gymnasium.spaces.Box(-1.0, 1.0, (len(domain.action_names),))


def checked_actions(actions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`actions` as an array, refused with a ValueError unless of `shape` and finite."""
    array = np.asarray(actions)
    if array.shape != shape:
        raise ValueError(f"action: found shape {array.shape}, expected {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"action: found {array.tolist()}, expected finite numbers")
    return array


class MujocoTaskEnv(gymnasium.Env):
    """One robot; a subclass names its domain.

    Args:
        render_mode: "rgb_array", or None.
        width, height: of an image, in pixels.
        options: the domain's.

    Attributes:
        domain, model, data, dt: the definition, MuJoCo's model and data, and a step's length in s.
        task: the present one.
    """

    DOMAIN: ClassVar[type[Domain]]
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(
        self,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        **options: Any,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode: found {render_mode!r}, expected None or 'rgb_array'")
        self.domain = self.DOMAIN(**options)
        self.dt = self.domain.dt
        self.metadata = self.metadata | {"render_fps": round(1 / self.dt)}
        self.render_mode, self.width, self.height = render_mode, width, height
        self.observation_space, self.action_space = spaces(self.domain)
        self.model = copy.copy(self.domain.model)
        self.data = mujoco.MjData(self.model)
        self.task: dict | None = None
        self._goals = np.empty((1, 0))
        self._renderer: mujoco.Renderer | None = None

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
            present = self.task is not None
            task = self.task if present else self.domain.sample_task(self.np_random)
        if task is not self.task:
            self.domain.validate(task)
            self.task = copy.deepcopy(task)
            self.domain.edit(self.model, self.task)
            self._goals = np.array([self.domain.goal(self.task)])
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = self.domain.initial(self.np_random)
        settle(self.model, self.data)
        self._states = self._read()
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply `action` (da,) for one control period.

        Where MuJoCo cannot go on (its numbers have outgrown it) the episode ends where it was.
        """
        if self.task is None:
            raise RuntimeError("call reset before step")
        action = checked_actions(action, self.action_space.shape)
        control = self.domain.control(action[None])
        before, last_control = self._states, self.data.ctrl.copy()
        diverged = self._advance(control[0])
        if diverged:
            self.data.qpos[:], self.data.qvel[:] = before.qpos[0], before.qvel[0]
            self.data.ctrl[:] = last_control  # forces follow from it, too
            settle(self.model, self.data)
        else:
            self._states = self._read()
        reward = self.domain.reward(before, self._states, control, self._goals)[0]
        terminated = diverged or bool(self.domain.terminated(self._states)[0])
        return self._observe(), float(reward), terminated, False, {}

    def _advance(self, control: np.ndarray) -> bool:
        """Move time by a control step; returns whether the simulation diverged on the way."""
        self.data.ctrl[:] = control
        self.data.qacc_warmstart[:] = 0.0  # the next state depends on this state and action alone
        mujoco.mj_step(self.model, self.data, nstep=self.domain.frame_skip)
        diverged = any(self.data.warning[kind].number for kind in DIVERGED)
        if not diverged and self.domain.derived_size:
            settle(self.model, self.data)
        return diverged

    def _read(self) -> States:
        derived = self.domain.derive(self.model, self.data)
        return States(self.data.qpos[None].copy(), self.data.qvel[None].copy(), derived[None])

    def _observe(self) -> np.ndarray:
        return self.domain.observe(self._states)[0].astype(np.float32)

    def render(self) -> np.ndarray | None:
        """An image (height, width, 3) uint8 from the camera that follows the robot.

        Raises:
            gymnasium.error.Error: there is no OpenGL to draw with.
        """
        if self.render_mode is None:
            return None
        if self._renderer is None:
            buffer = self.model.vis.global_
            buffer.offwidth = max(buffer.offwidth, self.width)
            buffer.offheight = max(buffer.offheight, self.height)
            try:
                self._renderer = mujoco.Renderer(self.model, self.height, self.width)
            except mujoco.FatalError as error:
                found = f"{error} (MUJOCO_GL: {os.environ.get('MUJOCO_GL', 'not set')})"
                expected = "a display, or MUJOCO_GL=egl or osmesa and the library that it names"
                message = f"render: OpenGL: found {found}; expected {expected}"
                raise gymnasium.error.Error(message) from error
        self._renderer.update_scene(self.data, camera="track")
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
