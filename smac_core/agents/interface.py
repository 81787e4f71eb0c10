"""What evaluation asks of an agent: explore, adapt to what was seen, act.

E meta-episodes run side by side; each is a few exploration episodes in a task, and a last one that
is scored. An agent makes an ``Actor`` for either.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from smac_core.config import Evaluation
from smac_core.data.dataset import TaskData
from smac_core.data.trajectories import Trajectories


class Actor(ABC):
    """Acts in E episodes at once; ``device`` is where its tensors lie."""

    device: torch.device
    observes = False  # whether it wants to be told of every step

    @abstractmethod
    def act(self, episodes: np.ndarray, observations: Tensor) -> Tensor:
        """Actions [n, da] for raw observations [n, ds] of the episodes with numbers [n]."""

    def observe(  # noqa: B027 - most wait for the episode's end
        self,
        episodes: np.ndarray,
        observations: Tensor,
        actions: Tensor,
        rewards: Tensor,
        next_observations: Tensor,
    ) -> None:
        """Take in a raw transition of each of these episodes: [n, ds], [n, da], [n], [n, ds]."""


class Adaptation(NamedTuple):
    """What adapting to a history gave, in E meta-episodes."""

    actor: Actor  # deterministic
    kl: Tensor | None = None  # [E], D_KL(posterior || prior), where there is a posterior
    # rewards [E, H] that the agent expects of trajectories, where it expects any
    expected_rewards: Callable[[Trajectories], Tensor] | None = None


class MetaAgent(nn.Module, ABC):
    """Networks that adapt. An algorithm trains them; the agent only runs them.

    ``standardizer`` stands in front of them; it is fitted to the data before training begins.
    ``adapts_to`` says what a result from online, offline and no context is a result of.
    """

    adapts_to: ClassVar[dict[str, str]]

    observation_dim: int
    action_dim: int
    standardizer: nn.Module

    @property
    def device(self) -> torch.device:
        """Where its tensors lie."""
        return self.standardizer.mean.device

    @abstractmethod
    def explorer(
        self, count: int, settings: Evaluation, generator: torch.Generator | None
    ) -> Callable[[], Actor]:
        """What explores ``count`` tasks that nothing is known of: an actor an episode, in turn."""

    @abstractmethod
    def unadapted(
        self, count: int, settings: Evaluation, generator: torch.Generator | None
    ) -> Actor:
        """Acts in ``count`` tasks as if nothing were known of them, and stays so; deterministic."""

    @abstractmethod
    def adapt(
        self,
        history: list[Trajectories],
        settings: Evaluation,
        generator: torch.Generator | None,
    ) -> Adaptation:
        """Adapt to each task's history: E episodes of each of the list, in the order collected."""

    @abstractmethod
    def recall(
        self, data: list[TaskData], settings: Evaluation, horizon: int, generator: torch.Generator
    ) -> list[Trajectories]:
        """A history of each task's offline data, as long as exploration would be."""
