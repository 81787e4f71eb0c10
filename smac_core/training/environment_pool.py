"""Many Gymnasium environments stepped as one, spread over worker processes.

A worker hosts several environments, since a physics step costs far less than a message between
processes. Observations, actions, rewards and which environments step are in shared memory; the
pipes carry only the word to go. Nothing here imports torch: workers start in half a second and
stay small.
"""

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError

from smac_core.errors import InputError
from smac_core.training.environment_host import (
    BatchHost,
    SeparateHost,
    Shared,
    make_environment,
    steps_in_batches,
)


class EnvironmentPoolError(RuntimeError):
    """A worker failed: carries the worker's own traceback, or says that it died."""


class Step(NamedTuple):
    """What one step of k environments gives."""

    observations: np.ndarray  # [k, ds] float32
    rewards: np.ndarray  # [k] float32
    terminated: np.ndarray  # [k] bool
    success: np.ndarray  # [k] bool; info["success"] where the environment has it


class EnvironmentPool:
    """``size`` environments in ``workers`` processes; environment i lives in worker i % workers.

    ``workers=0`` keeps them all in this process (a debugger can step into them). Episodes are
    their caller's to end: a time limit's truncation is not passed on.
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
        host = BatchHost if steps_in_batches(probe.spec) else SeparateHost
        probe.close()
        self.size, self.observation_dim, self.action_dim = size, ds, da
        self._closed = False
        self._stepping: np.ndarray | None = None  # environments between step_async and step_wait
        self._workers: list[_Worker] = []
        self._local = None
        workers = min(workers, size)
        sizes = (size, ds, da)
        if workers == 0:
            self._shared = Shared.over(np.zeros(Shared.length(*sizes), np.float32), *sizes)
            self._local = host(arguments, self._shared)
            return
        context = multiprocessing.get_context("spawn")
        memory = context.RawArray("f", Shared.length(*sizes))
        self._shared = Shared.over(np.frombuffer(memory, np.float32), *sizes)
        for number in range(workers):
            job = (host, arguments, memory, sizes, (workers, number))
            self._workers.append(_Worker(context, job))

    def reset(
        self,
        environments: Sequence[int],
        tasks: Sequence[dict[str, Any]],
        seeds: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Put environments into tasks, seeded where ``seeds`` are given; observations [k, ds].

        Raises:
            InputError: a task that the environment does not take.
            EnvironmentPoolError: an environment failed, or its worker died.
        """
        self._expect_idle()
        environments = np.asarray(environments)
        seeds = [None] * len(environments) if seeds is None else seeds
        triples = list(zip(environments.tolist(), tasks, seeds, strict=True))
        if self._local is not None and triples:
            self._local.reset(*zip(*triples, strict=True))
        count = len(self._workers)
        for number, worker in enumerate(self._workers):
            theirs = [(e // count, task, seed) for e, task, seed in triples if e % count == number]
            if theirs:
                worker.send(tuple(zip(*theirs, strict=True)))
        self._collect()
        return self._shared.observations[environments].copy()

    def step(self, environments: np.ndarray, actions: np.ndarray) -> Step:
        """Step the environments [k] named with actions [k, da]."""
        self.step_async(environments, actions)
        return self.step_wait()

    def step_async(self, environments: np.ndarray, actions: np.ndarray) -> None:
        """Let the workers begin a step; `step_wait` gives what came of it.

        Raises:
            AlreadyPendingCallError: a step is under way.
        """
        self._expect_idle()
        shared, count = self._shared, len(self._workers)
        shared.actions[environments] = actions
        shared.chosen[:] = 0
        shared.chosen[environments] = 1
        self._stepping = environments
        for number, worker in enumerate(self._workers):
            if shared.chosen[number::count].any():
                worker.send("step")

    def step_wait(self) -> Step:
        """Wait for the step that `step_async` began.

        Raises:
            EnvironmentPoolError: an environment failed, or its worker died.
            NoAsyncCallError: no step is under way.
        """
        if self._stepping is None:
            raise NoAsyncCallError("step_wait: found no step under way", "step_async")
        shared, environments = self._shared, self._stepping
        if self._local is not None:
            self._stepping = None
            self._local.step()
        self._collect()
        self._stepping = None
        return Step(
            shared.observations[environments],
            shared.rewards[environments],
            shared.terminated[environments] > 0,
            shared.success[environments] > 0,
        )

    def _expect_idle(self) -> None:
        if self._stepping is not None or any(worker.busy for worker in self._workers):
            raise AlreadyPendingCallError("the pool has a step or reset under way", "step_async")

    def _collect(self) -> None:
        """Wait for every busy worker."""
        failures = [
            failure for worker in self._workers if worker.busy and (failure := worker.receive())
        ]
        if failures:
            self._stepping = None
            first = failures[0]
            raise first if isinstance(first, InputError) else EnvironmentPoolError(first)

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


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, context, job: tuple):
        self.busy = False  # an answer is due
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, *job), daemon=True)
        self.process.start()
        theirs.close()

    def send(self, message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # `receive` will tell
            self.pipe.send(message)
        self.busy = True

    def receive(self) -> str | InputError | None:
        """What went wrong with the last message, or None."""
        try:
            failure = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(1)
            failure = f"an environment worker died (exit code {self.process.exitcode})"
        self.busy = False
        return failure

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send(None)
        self.process.join(5)
        if self.process.is_alive():
            self.process.terminate()
        self.pipe.close()


def _work(
    pipe: Connection,
    host_class: type,
    arguments: tuple,
    memory: Any,
    sizes: tuple[int, int, int],
    share: tuple[int, int],
) -> None:
    """A worker's life: "step", (rows, tasks, seeds) to reset, or None to end; answers by pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    shared = Shared.over(np.frombuffer(memory, np.float32), *sizes)
    host = host_class(arguments, shared.every(*share))
    while True:
        try:
            message = pipe.recv()
        except EOFError:  # the parent is gone
            message = None
        if message is None:
            host.close()
            return
        try:
            host.step() if message == "step" else host.reset(*message)
            pipe.send(None)
        except InputError as error:
            pipe.send(error)
        except Exception:
            story = traceback.format_exc()
            pipe.send(f"{story.strip().splitlines()[-1]}\n(in an environment worker)\n{story}")
