"""Many robots of a MuJoCo domain stepped at once, each with a task of its own.

Time moves in `mujoco.rollout`, which leaves Python for a whole batch and can use several threads;
observation and reward are one array operation each. What follows from a robot's state and is no
part of it (contact forces) takes one forward pass a robot.

One robot alone (`environment`) does the same, to the last bit.
"""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from mujoco import rollout

from .base import Domain, States, settle
from .environment import checked_actions, spaces

CONTROL = int(mujoco.mjtState.mjSTATE_CTRL)
CHUNKS = 2  # pieces of a batch for each thread; MuJoCo's ten cost more than a Cheetah's step


class MujocoTaskVectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` robots; a subclass names their domain.

    Args:
        num_envs: number of robots.
        max_episode_steps: where `step` cuts an episode short; None nowhere. `step_at` leaves
            episodes to its caller.
        threads: among which a batch is divided.
        options: the domain's.
    """

    DOMAIN: ClassVar[type[Domain]]
    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}
    _rollout: rollout.Rollout | None = None  # Gymnasium closes what was refused, too

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        threads: int = 1,
        **options: Any,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("threads", threads)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name}: found {value!r}, expected a whole number from 1")
        self.domain = domain = self.DOMAIN(**options)
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.single_observation_space, self.single_action_space = spaces(domain)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.tasks: list[dict | None] = [None] * num_envs
        model = domain.model
        self._models = [
            copy.copy(model) if domain.varies_physics else model for _ in range(num_envs)
        ]
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._rollout = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        # MuJoCo's full physics: time, qpos, qvel
        self._physics = np.zeros((num_envs, 1 + model.nq + model.nv))
        self._derived = np.zeros((num_envs, domain.derived_size))
        self._goals = np.zeros((num_envs, 0))
        self._controls = np.empty((num_envs, domain.frame_skip, model.nu))
        self._path = np.empty((num_envs, domain.frame_skip, self._physics.shape[1]))
        self._lengths = np.zeros(num_envs, int)
        self._over = np.zeros(num_envs, bool)

    # -------------------------------------------------------------------------- some of the robots
    def reset_at(
        self,
        indices: np.ndarray,
        tasks: Sequence[dict | None],
        seeds: Sequence[int | None],
    ) -> np.ndarray:
        """Start episodes of the robots `indices` [k], all different; observations [k, ds].

        A task of None is the robot's present one, or a drawn one; a seed of None goes on with the
        robot's own random numbers.
        """
        domain, data = self.domain, self._data[0]
        for index, task, seed in zip(indices, tasks, seeds, strict=True):
            if seed is not None or self._generators[index] is None:
                self._generators[index] = seeding.np_random(seed)[0]
            rng = self._generators[index]
            self._set_task(index, task if task is not None else self.tasks[index], rng)
            qpos, qvel = domain.initial(rng)
            # time not from 0, so that a start anew by MuJoCo shows (see _advance)
            self._physics[index] = np.concatenate(((domain.dt,), qpos, qvel))
            if domain.derived_size:
                data.ctrl[:] = 0.0
                self._derived[index] = self._derive(index, data)
        self._lengths[indices], self._over[indices] = 0, False
        return domain.observe(self._states(indices)).astype(np.float32)

    def step_at(
        self, indices: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Apply `actions` [k, da] to the robots `indices` [k], all different, for a control period.

        Returns observations [k, ds], rewards [k], terminated [k] and success [k].
        """
        domain = self.domain
        indices = np.asarray(indices)
        for index in indices:
            if self.tasks[index] is None:
                raise RuntimeError("call reset before step")
        shape = (len(indices), *self.single_action_space.shape)
        control = domain.control(checked_actions(actions, shape))
        before = self._states(indices)
        diverged = self._advance(indices, control)
        after = self._states(indices)
        rewards = domain.reward(before, after, control, self._goals[indices])
        terminated = domain.terminated(after) | diverged
        observations = domain.observe(after).astype(np.float32)
        return observations, rewards, terminated, domain.success(after)

    def _set_task(self, index: int, task: dict | None, rng: np.random.Generator) -> None:
        domain = self.domain
        if task is None:
            task = domain.sample_task(rng)
        if task is self.tasks[index]:
            return
        domain.validate(task)
        self.tasks[index] = copy.deepcopy(task)
        domain.edit(self._models[index], task)
        goal = domain.goal(task)
        if self._goals.shape[1] != len(goal):
            self._goals = np.zeros((self.num_envs, len(goal)))
        self._goals[index] = goal

    def _states(self, indices: np.ndarray) -> States:
        physics, nq = self._physics[indices], self.domain.model.nq
        return States(physics[:, 1 : 1 + nq], physics[:, 1 + nq :], self._derived[indices])

    def _derive(self, index: int, data: mujoco.MjData) -> np.ndarray:
        """What follows from the robot's state, and from the controls that `data` holds."""
        model = self._models[index]
        data.qpos[:] = self._physics[index, 1 : 1 + model.nq]
        data.qvel[:] = self._physics[index, 1 + model.nq :]
        settle(model, data)
        return self.domain.derive(model, data)

    def _advance(self, indices: np.ndarray, control: np.ndarray) -> np.ndarray:
        """Move time by a control step; bool [k], whose simulation diverged and stays where it was.

        `mujoco.rollout` starts every robot's solver cold. Where numbers outgrow it MuJoCo starts
        anew from the model's own pose at time 0.
        """
        size, steps = len(indices), self.domain.frame_skip
        if size == 0:
            return np.zeros(0, bool)
        models = [self._models[index] for index in indices]
        controls, path = self._controls[:size], self._path[:size]
        controls[:] = control[:, None]
        initial = self._physics[indices]
        self._rollout.rollout(
            models, self._data, initial, controls,
            control_spec=CONTROL, skip_checks=True, nstep=steps, state=path,
            chunk_size=-(-size // (CHUNKS * len(self._data))),
        )  # fmt: skip
        final = path[:, -1]
        step = self.domain.dt / steps
        diverged = np.abs(final[:, 0] - initial[:, 0] - self.domain.dt) > step / 2
        self._physics[indices] = np.where(diverged[:, None], initial, final)
        if self.domain.derived_size:
            data = self._data[0]
            for row, index in enumerate(indices):
                if not diverged[row]:
                    data.ctrl[:] = control[row]
                    self._derived[index] = self._derive(index, data)
        return diverged

    # --------------------------------------------------------------------------- all of the robots
    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start all; ``options`` may hold one "task" for all, or "tasks" with one for each.

        An integer seed counts on from robot to robot, as in Gymnasium's own.
        """
        options = options or {}
        for key in options:
            if key not in ("task", "tasks"):
                raise ValueError(f"reset option {key!r}: expected only 'task' or 'tasks'")
        tasks = options.get("tasks", [options.get("task")] * self.num_envs)
        if isinstance(seed, (int, np.integer)):
            seed = [int(seed) + index for index in range(self.num_envs)]
        seeds = [None] * self.num_envs if seed is None else seed
        return self.reset_at(np.arange(self.num_envs), tasks, seeds), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all; one whose episode ended in the step before starts anew instead."""
        observations = np.empty(self.observation_space.shape, np.float32)
        rewards, terminations = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        ended, going = np.flatnonzero(self._over), np.flatnonzero(~self._over)
        if len(ended):
            nothing = [None] * len(ended)
            observations[ended] = self.reset_at(ended, nothing, nothing)
        result = self.step_at(going, np.asarray(actions)[going])
        observations[going], rewards[going], terminations[going], _ = result
        self._lengths[going] += 1
        limit = self.max_episode_steps
        truncations = np.zeros(self.num_envs, bool)
        if limit is not None:
            truncations = self._lengths >= limit
        self._over = terminations | truncations
        return observations, rewards, terminations, truncations, {}

    def close_extras(self, **kwargs: Any) -> None:
        if self._rollout is not None:
            self._rollout.close()
