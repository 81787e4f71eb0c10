"""Gradient steps of one stage: one after the other, compiled, in CUDA graphs, for several seeds.

All of them take the same steps (``Learner.update``) with the same random numbers, up to rounding;
what differs is how fast. ``config.execution`` says which.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from smac_core.algorithms import Learner
from smac_core.algorithms.learner import Sample
from smac_core.config import Execution
from smac_core.data.replay import Replay
from smac_core.errors import InputError
from smac_core.losses import Info
from smac_core.training.seeds import SeedStack

Stage = str  # offline, self_supervised, online; whatever else the algorithm has a loss of
WARM_UP = 3  # steps before a capture: libraries allocate their workspaces in the first ones


class Updates:
    """Takes gradient steps for one learner, or for several of equal configuration at once.

    Args:
        learners: each with the replay that it draws from.
        stage: whose loss.

    Raises:
        InputError: several seeds are to be compiled.
        ValueError: their configurations differ.
    """

    def __init__(self, learners: list[tuple[Learner, Replay]], stage: Stage):
        self._learners = learners
        self._stage = stage
        first, replay = learners[0]
        set_precision(first.config.execution)
        loss = getattr(first, f"{stage}_loss")
        if first.config.execution.compile:
            if len(learners) > 1:
                found = f"{len(learners)} seeds at once"
                raise InputError("execution.compile", "true", found, "one seed at a time")
            loss = torch.compile(loss)
        if len(learners) == 1:
            self._step: Callable[[], Info] = lambda: first.update(loss, self._draw(first, replay))
        else:
            stack = SeedStack([learner for learner, _ in learners], loss)
            self._step = lambda: stack.update([self._draw(*pair) for pair in learners])
        self._at_once = first.config.execution.graph if first.agent.device.type == "cuda" else 0
        self._graph: _Graph | None = None
        self._stream: torch.cuda.Stream | None = None
        self._warm = 0

    def take(self, most: int) -> tuple[int, Info]:
        """Take at least one gradient step and at most ``most``: how many, and their mean scalars.

        Scalars are [], or [S] of S learners. They are overwritten by the next call.
        """
        if not self._at_once or most < self._at_once:
            return 1, self._step()
        if self._warm < WARM_UP:
            self._warm += 1
            return 1, self._beside()
        if self._graph is None or self._graph.storage != self._storage():
            self._graph = None  # its memory goes before the next one takes its own
            generators = [learner.generator for learner, _ in self._learners]
            self._graph = _Graph(self._step, self._at_once, generators, self._storage())
        return self._at_once, self._graph.replay()

    def _beside(self) -> Info:
        """A step on a stream of its own, as a capture's will be."""
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            info = self._step()
        torch.cuda.current_stream().wait_stream(self._stream)
        return info

    def _draw(self, learner: Learner, replay: Replay) -> Sample:
        return getattr(learner, f"{self._stage}_draw")(replay, learner.generator)

    def _storage(self) -> list[tuple[int, int]]:
        """Where the replays' rows lie: a graph reads the addresses that it was captured with."""
        buffers = [b for _, replay in self._learners for b in (replay.rl, replay.context)]
        return [(b.online.data_ptr(), len(b.online)) for b in buffers]


class _Graph:
    """Steps captured as one CUDA graph."""

    def __init__(
        self,
        step: Callable[[], Info],
        count: int,
        generators: list[torch.Generator],
        storage: list[tuple[int, int]],
    ):
        self.storage = storage
        self.graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self.graph.register_generator_state(generator)
        # thread_local: practice ahead allocates in its own thread and on its own stream
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            infos = [step() for _ in range(count)]
            self.info = {name: mean([info[name] for info in infos]) for name in infos[0]}

    def replay(self) -> Info:
        self.graph.replay()
        return self.info


def mean(values: list[Tensor]) -> Tensor:
    """The mean of equally shaped tensors."""
    return torch.stack(values).mean(0)


def set_precision(execution: Execution) -> None:
    """TensorFloat-32 for float32 matrix products on NVIDIA GPUs, where it is asked for."""
    torch.backends.cuda.matmul.allow_tf32 = execution.precision == "tf32"
