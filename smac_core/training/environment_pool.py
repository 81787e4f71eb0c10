"""Many Gymnasium environments stepped as one, spread over worker processes.

A worker hosts several environments, since a physics step costs far less than a message between
processes. Observations, actions and rewards travel in shared memory; the pipes carry only the word
to go. Nothing here imports torch: workers start in half a second and stay small.
"""

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium
import numpy as np


class EnvironmentPoolError(RuntimeError):
    """A worker failed: carries the worker's own traceback, or says that it died."""


class Step(NamedTuple):
    """What one step of k environments gives."""

    observations: np.ndarray  # [k, ds] float32
    rewards: np.ndarray  # [k] float32
    terminated: np.ndarray  # [k] bool
    success: np.ndarray  # [k] bool; info["success"] where the environment has it


def make_environment(environment_id: str, kwargs: dict[str, Any], horizon: int) -> gymnasium.Env:
    """The environment with its time limit set to ``horizon`` steps.

    Passive checks are left out: they cost more than the physics, and tests run the full checker.
    """
    return gymnasium.make(
        environment_id, max_episode_steps=horizon, disable_env_checker=True, **kwargs
    )


class EnvironmentPool:
    """``size`` environments in ``workers`` processes; environment i lives in worker i % workers.

    ``workers=0`` keeps them all in this process (a debugger can step into them).
    """

    def __init__(
        self,
        environment_id: str,
        size: int,
        *,
        workers: int,
        horizon: int,
        kwargs: dict[str, Any] | None = None,
    ):
        arguments = (environment_id, kwargs or {}, horizon)
        probe = make_environment(*arguments)
        ds, da = probe.observation_space.shape[0], probe.action_space.shape[0]
        probe.close()
        self.size, self.observation_dim, self.action_dim = size, ds, da
        self._closed = False
        self._workers: list[_Worker] = []
        workers = min(workers, size)
        if workers == 0:
            self._shared = _Shared.create(size, ds, da, lambda n: np.zeros(n, np.float32))
            self._local = _Host(arguments, self._shared)
            return
        context = multiprocessing.get_context("spawn")
        raw = [context.RawArray("f", n) for n in _Shared.lengths(size, ds, da)]
        self._shared = _Shared.create(size, ds, da, iter_arrays(raw))
        self._local = None
        for _ in range(workers):
            self._workers.append(_Worker(context, arguments, raw, (size, ds, da)))

    def reset(
        self,
        environments: Sequence[int],
        tasks: Sequence[dict[str, Any]],
        seeds: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Put environments into tasks, seeded where ``seeds`` are given; observations [k, ds]."""
        environments = np.asarray(environments)
        seeds = [None] * len(environments) if seeds is None else seeds
        self._command("reset", environments, list(zip(tasks, seeds, strict=True)))
        return self._shared.observations[environments].copy()

    def step(self, environments: np.ndarray, actions: np.ndarray) -> Step:
        """Step the environments [k] named with actions [k, da]."""
        shared = self._shared
        shared.actions[environments] = actions
        self._command("step", environments)
        return Step(
            shared.observations[environments].copy(),
            shared.rewards[environments].copy(),
            shared.terminated[environments] > 0,
            shared.success[environments] > 0,
        )

    def _command(self, word: str, environments: np.ndarray, tasks: list | None = None) -> None:
        if self._local is not None:
            self._local.execute(word, environments.tolist(), tasks)
            return
        busy, count = [], len(self._workers)
        for number, worker in enumerate(self._workers):
            mine = np.flatnonzero(environments % count == number)
            if len(mine):
                theirs = None if tasks is None else [tasks[i] for i in mine]
                worker.send((word, environments[mine].tolist(), theirs))
                busy.append(worker)
        failures = [failure for worker in busy if (failure := worker.receive())]
        if failures:
            raise EnvironmentPoolError(failures[0])

    def close(self) -> None:
        """Close every environment and end the workers."""
        if self._closed:
            return
        self._closed = True
        if self._local is not None:
            self._local.close()
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> "EnvironmentPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Shared(NamedTuple):
    """float32 views of the memory that parent and workers share."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    success: np.ndarray

    @staticmethod
    def lengths(size: int, ds: int, da: int) -> list[int]:
        return [size * ds, size * da, size, size, size]

    @classmethod
    def create(cls, size: int, ds: int, da: int, allocate) -> "_Shared":
        arrays = [allocate(n) for n in cls.lengths(size, ds, da)]
        return cls(arrays[0].reshape(size, ds), arrays[1].reshape(size, da), *arrays[2:])


def iter_arrays(raw: list):
    """An allocator that hands out numpy views of shared memory, in order."""
    remaining = iter(raw)
    return lambda _: np.frombuffer(next(remaining), np.float32)


class _Host:
    """Environments by number, made when first used."""

    def __init__(self, arguments: tuple, shared: _Shared):
        self.arguments = arguments
        self.shared = shared
        self.environments: dict[int, gymnasium.Env] = {}

    def execute(self, word: str, environments: list[int], tasks: list | None) -> None:
        if word == "reset":
            for number, (task, seed) in zip(environments, tasks, strict=True):
                self._reset(number, task, seed)
            return
        for number in environments:
            self._step(number)

    def _reset(self, number: int, task: dict[str, Any], seed: int | None) -> None:
        if number not in self.environments:
            self.environments[number] = make_environment(*self.arguments)
        options = {"task": task}
        observation, info = self.environments[number].reset(seed=seed, options=options)
        self.shared.observations[number] = observation
        self.shared.success[number] = info.get("success", False)

    def _step(self, number: int) -> None:
        shared = self.shared
        observation, reward, terminated, _, info = self.environments[number].step(
            shared.actions[number].copy()
        )
        shared.observations[number] = observation
        shared.rewards[number] = reward
        shared.terminated[number] = terminated
        shared.success[number] = info.get("success", False)

    def close(self) -> None:
        for environment in self.environments.values():
            environment.close()


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, context, arguments: tuple, raw: list, sizes: tuple[int, int, int]):
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, arguments, raw, sizes), daemon=True
        )
        self.process.start()
        theirs.close()

    def send(self, message: tuple) -> None:
        try:
            self.pipe.send(message)
        except BrokenPipeError:
            raise EnvironmentPoolError(self._death()) from None

    def receive(self) -> str | None:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return self._death()

    def _death(self) -> str:
        self.process.join(1)
        return f"an environment worker died (exit code {self.process.exitcode})"

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send(None)
        self.process.join(5)
        if self.process.is_alive():
            self.process.terminate()
        self.pipe.close()


def _work(pipe: Connection, arguments: tuple, raw: list, sizes: tuple[int, int, int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    host = _Host(arguments, _Shared.create(*sizes, iter_arrays(raw)))
    while True:
        try:
            message = pipe.recv()
        except EOFError:  # the parent is gone
            message = None
        if message is None:
            host.close()
            return
        try:
            host.execute(*message)
            pipe.send(None)
        except Exception:
            story = traceback.format_exc()
            pipe.send(f"{story.strip().splitlines()[-1]}\n(in an environment worker)\n{story}")
