"""The environments of one process, driven through arrays that other processes may share.

Nothing here imports torch: workers start in half a second and stay small.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from smac_core.errors import InputError


def make_environment(environment_id: str, kwargs: dict[str, Any], horizon: int) -> gymnasium.Env:
    """The environment with its time limit set to ``horizon`` steps.

    Passive checks are left out: they cost more than the physics, and tests run the full checker.
    """
    return gymnasium.make(
        environment_id, max_episode_steps=horizon, disable_env_checker=True, **kwargs
    )


def steps_in_batches(spec: EnvSpec) -> bool:
    """Whether the registration names a vector environment that can step a part of its batch.

    That is a `gymnasium.vector.VectorEnv` with ``reset_at(indices, tasks, seeds)``, which gives
    observations [k, ds], and ``step_at(indices, actions)``, which gives observations [k, ds],
    rewards, terminated and success [k].
    """
    entry = spec.vector_entry_point
    if isinstance(entry, str):
        entry = load_env_creator(entry)
    return hasattr(entry, "reset_at") and hasattr(entry, "step_at")


class Shared(NamedTuple):
    """float32 views of the memory in which a pool and its hosts meet; a row an environment."""

    observations: np.ndarray  # [n, ds]
    actions: np.ndarray  # [n, da]
    rewards: np.ndarray  # [n]
    terminated: np.ndarray  # [n]
    success: np.ndarray  # [n]
    chosen: np.ndarray  # [n], 1 for those to step

    @staticmethod
    def length(size: int, ds: int, da: int) -> int:
        """Numbers that ``size`` environments need."""
        return size * (ds + da + 4)

    @classmethod
    def over(cls, memory: np.ndarray, size: int, ds: int, da: int) -> "Shared":
        """Views of ``memory`` [length]."""
        arrays = np.split(memory, np.cumsum([size * ds, size * da, size, size, size]))
        return cls(arrays[0].reshape(size, ds), arrays[1].reshape(size, da), *arrays[2:])

    def every(self, count: int, first: int) -> "Shared":
        """Rows first, first + count, ..."""
        return Shared(*(array[first::count] for array in self))


@contextlib.contextmanager
def _task_refused(environment_id: str) -> Iterator[None]:
    """Data of a robot may hold tasks that its simulation does not know."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        expected = "what reset(options={'task': ...}) takes"
        raise InputError(environment_id, "task", f"{kind}{error}", expected) from error


class SeparateHost:
    """One Gymnasium environment for each row, made when it is first reset."""

    def __init__(self, arguments: tuple[str, dict[str, Any], int], shared: Shared):
        self._arguments, self._shared = arguments, shared
        self._environments: dict[int, gymnasium.Env] = {}

    def reset(
        self, rows: Sequence[int], tasks: list[dict[str, Any]], seeds: list[int | None]
    ) -> None:
        """Start episodes of ``rows``, each in its task."""
        for row, task, seed in zip(rows, tasks, seeds, strict=True):
            if row not in self._environments:
                self._environments[row] = make_environment(*self._arguments)
            with _task_refused(self._arguments[0]):
                observation, _ = self._environments[row].reset(seed=seed, options={"task": task})
            self._shared.observations[row] = observation

    def step(self) -> None:
        """Step the chosen rows."""
        shared = self._shared
        actions = shared.actions.copy()  # an environment may keep what it is given
        for row in np.flatnonzero(shared.chosen).tolist():
            observation, reward, terminated, _, info = self._environments[row].step(actions[row])
            shared.observations[row] = observation
            shared.rewards[row] = reward
            shared.terminated[row] = terminated
            shared.success[row] = info.get("success", False)

    def close(self) -> None:
        for environment in self._environments.values():
            environment.close()


class BatchHost:
    """One vector environment for all rows (see `steps_in_batches`), made at the first reset."""

    def __init__(self, arguments: tuple[str, dict[str, Any], int], shared: Shared):
        self._arguments, self._shared = arguments, shared
        self._batch: gymnasium.vector.VectorEnv | None = None

    def reset(
        self, rows: Sequence[int], tasks: list[dict[str, Any]], seeds: list[int | None]
    ) -> None:
        """Start episodes of ``rows``, each in its task."""
        if self._batch is None:
            environment_id, kwargs, horizon = self._arguments
            self._batch = gymnasium.make_vec(
                environment_id,
                num_envs=len(self._shared.rewards),
                vectorization_mode="vector_entry_point",
                max_episode_steps=horizon,
                **kwargs,
            )
        rows = np.asarray(rows)
        with _task_refused(self._arguments[0]):
            self._shared.observations[rows] = self._batch.reset_at(rows, tasks, seeds)

    def step(self) -> None:
        """Step the chosen rows."""
        shared = self._shared
        rows = np.flatnonzero(shared.chosen)
        found = self._batch.step_at(rows, shared.actions[rows])
        for array, values in zip(
            (shared.observations, shared.rewards, shared.terminated, shared.success),
            found,
            strict=True,
        ):
            array[rows] = values

    def close(self) -> None:
        if self._batch is not None:
            self._batch.close()
