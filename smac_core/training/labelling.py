"""Equation (4): rewards for practice, from the decoder and a task's offline history.

In the process of ``smac self-train`` and in the reward labeler's node alike.
"""

import numpy as np
import torch
from torch import Tensor

from smac_core.agent import Agent
from smac_core.config import Config
from smac_core.data.dataset import Dataset
from smac_core.data.replay import Replay
from smac_core.errors import InputError
from smac_core.training.rollout import Trajectories
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
    offline = torch.zeros(len(tasks), dtype=torch.bool, device=tasks.device)
    history = replay.context.sample(tasks, context, generator, from_online=offline)
    z = agent.encoder(history).sample(generator)
    rewards = agent.label(trajectories.observations, trajectories.actions, z)
    return rewards * trajectories.present


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
