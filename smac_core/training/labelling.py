"""Equation (4): rewards for practice, from the decoder and a task's offline history.

In the process of ``smac self-train`` and in the reward labeler's node alike.
"""

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from smac_core.agents.context import Agent
from smac_core.config import Config
from smac_core.data.dataset import Dataset
from smac_core.data.replay import Replay, TaskBuffer
from smac_core.data.trajectories import Trajectories
from smac_core.errors import InputError
from smac_core.networks import ContextEncoder, Gaussian
from smac_core.training.run import make_replay


@torch.no_grad()
def label(
    agent: Agent,
    replay: Replay,
    trajectories: Trajectories,
    tasks: Tensor,
    context: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Equation (4): rewards [E, H], one z ~ q(z | h_offline) a trajectory; absent steps get 0.

    ``tasks`` [E] says whose offline history labels each trajectory.
    """
    if replay not in _factors:
        _factors[replay] = OfflineFactors(replay)
    z = _factors[replay].posterior(agent.encoder, tasks, context, generator).sample(generator)
    rewards = agent.label(trajectories.observations, trajectories.actions, z)
    return rewards * trajectories.present


class OfflineFactors:
    """The Gaussian factor of every offline transition, so that none is encoded twice.

    A posterior is a product of one factor a transition, and a transition's factor depends on
    nothing else: with the encoder frozen, drawing transitions and encoding them is drawing factors.
    """

    def __init__(self, replay: Replay):
        buffer = replay.context
        self._rows = buffer.offline.split(buffer.offline_sizes.tolist())  # a view a task
        self._weights = torch.empty(0)  # that the factors are of
        self._factors: TaskBuffer | None = None

    @torch.no_grad()
    def posterior(
        self,
        encoder: ContextEncoder,
        tasks: Tensor,
        count: int,
        generator: torch.Generator | None = None,
    ) -> Gaussian:
        """q(z | h) [E, dz], each h ``count`` offline transitions of a task in ``tasks`` [E]."""
        # by value: some ways of writing into a tensor leave its version as it is
        weights = torch.cat([parameter.flatten() for parameter in encoder.parameters()])
        if self._factors is None or not torch.equal(weights, self._weights):
            factors = [torch.cat(encoder.factors(rows), -1) for rows in self._rows]
            self._factors = TaskBuffer(factors, 0, weights.device)
            self._weights = weights
        drawn = self._factors.sample(tasks, count, generator)
        return encoder.product(*drawn.chunk(2, -1))


_factors: WeakKeyDictionary[Replay, OfflineFactors] = WeakKeyDictionary()


class Labeler:
    """Labels trajectories one at a time, each from a random number generator of its own.

    What a trajectory's labels are does so not depend on which others were seen, or lost, before.

    Args:
        agent: encoder, decoder and standardiser; its weights may be replaced at any time.
        dataset: the offline histories.
        task: whose history labels, "same" (as the scene's) or "uniform"; "": as configured.
        context: how many of its transitions; 0: as configured.
        seed: of all draws, together with the episode's.
    """

    def __init__(
        self,
        agent: Agent,
        dataset: Dataset,
        config: Config,
        *,
        task: str = "",
        context: int = 0,
        seed: int = 0,
    ):
        self.agent, self.dataset = agent, dataset
        self.how = task or config.self_supervised.labelling_task
        self.context = context or config.self_supervised.labelling_context
        self.seed = seed
        self._mean = self._deviation = torch.empty(0)
        self._standardize()

    @property
    def tasks(self) -> int:
        """How many tasks have a history."""
        return self.replay.tasks

    def _standardize(self) -> None:
        """The histories as the agent's encoder takes them."""
        scales = self.agent.standardizer
        if torch.equal(self._mean, scales.mean) and torch.equal(self._deviation, scales.deviation):
            return
        self._mean, self._deviation = scales.mean.clone(), scales.deviation.clone()
        self.replay = make_replay(self.agent, self.dataset.train, 0, str(self.agent.device))

    def choose(self, scene: int, group: int, session: int = 0) -> int:
        """Whose history labels the episodes of a group, which share a scene of task ``scene``.

        Raises:
            InputError: there is no such task.
        """
        if self.how == "uniform" or scene < 0:
            draws = np.random.default_rng([self.seed, session % 2**64, group % 2**64])
            return int(draws.integers(self.tasks))
        if scene >= self.tasks:
            raise InputError(
                self.dataset.path, "train", f"{self.tasks} tasks", f"task {scene} of the episode"
            )
        return scene

    def generator(self, seed: int) -> torch.Generator:
        """Of the labels of the episode with this seed; not the policy's, which has it too."""
        mixed = np.random.SeedSequence([self.seed, seed % 2**64]).generate_state(1, np.uint64)
        return torch.Generator(self.agent.device).manual_seed(int(mixed[0]) >> 1)

    def label(self, trajectory: Trajectories, task: int, seed: int) -> Tensor:
        """Rewards [1, H] of one trajectory, see ``label``."""
        self._standardize()
        tasks = torch.tensor([task], device=self.agent.device)
        generator = self.generator(seed)
        return label(self.agent, self.replay, trajectory, tasks, self.context, generator)
