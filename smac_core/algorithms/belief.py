"""What BOReL's belief learns from: rollouts of several episodes of a task, and its loss."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from smac_core.agents.borel import Belief, BeliefDecoder, BeliefEncoder
from smac_core.data.dataset import TaskData
from smac_core.data.replay import Batch, Layout
from smac_core.losses import Info


class Rollouts:
    """Training tasks' transitions, and the rollouts that they make.

    A rollout is ``episodes`` trajectories of a task, one right after the other, so that what is
    missing after early ends is missing at the rollout's end. All the data of a task take part, its
    histories too, and trajectories that are cut: a belief may meet a task in mid-motion.

    Args:
        tasks: each task's data.
        openings: other trajectories for the first place of a rollout (relabelled rewards), a task
            each; None: any of the task's own.
        standardize: for observations [n, ds]; applied once, here.
        horizon: the longest trajectory that there may be; seeds that train at once, each with data
            of its own, so draw rollouts of equal length.
        device: where the rows [M, width] lie.
    """

    def __init__(
        self,
        tasks: list[TaskData],
        openings: list[TaskData] | None,
        standardize: Callable[[Tensor], Tensor],
        layout: Layout,
        *,
        episodes: int,
        horizon: int = 0,
        device: torch.device,
    ):
        self.layout = layout
        self.episodes = episodes
        each = [[part for part in (t, t.context) if part is not None] for t in tasks]
        each += [[t] for t in openings or ()]
        parts = [part for of_task in each for part in of_task]
        self.rows = torch.cat([_rows(part, standardize, layout, device) for part in parts])
        lengths = [
            [rows.stop - rows.start for part in of_task for rows in part.trajectories]
            for of_task in each
        ]
        flat = torch.tensor([n for of_task in lengths for n in of_task], device=device)
        self.lengths = flat  # [number of trajectories]
        self.starts = flat.cumsum(0) - flat  # where they begin in rows
        counts = torch.tensor([len(of_task) for of_task in lengths], device=device)
        firsts = counts.cumsum(0) - counts
        count = len(tasks)
        # a task's trajectories: the number of the first, and how many
        self.first, self.count = firsts[:count], counts[:count]
        self.openings = None if openings is None else (firsts[count:], counts[count:])
        self.most = int(self.count.max())
        # of the longest rollout that there may be
        self.steps = episodes * max(horizon, int(flat.max()))

    def draw(self, tasks: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Trajectories [T * count, episodes] of random rollouts, ``count`` of each of tasks [T].

        A rollout's are different ones where the task has enough; else they come again in turn.
        """
        device = tasks.device
        keys = torch.rand(len(tasks), count, self.most, device=device, generator=generator)
        here = torch.arange(self.most, device=device) < self.count[tasks, None]
        order = keys.masked_fill(~here.unsqueeze(1), 2.0).argsort(-1)
        turn = torch.arange(self.episodes, device=device) % self.count[tasks, None]
        chosen = order.gather(-1, turn.unsqueeze(1).expand(-1, count, -1))
        found = self.first[tasks, None, None] + chosen
        if self.openings is not None:
            first, many = (x[tasks, None] for x in self.openings)
            uniform = torch.rand(len(tasks), count, device=device, generator=generator)
            found[..., 0] = first + torch.minimum((uniform * many).long(), many - 1)
        return found.flatten(0, 1)

    def orders(self, task: int, count: int) -> Tensor:
        """Trajectories [count * n, episodes] of one task's n: each as often in each place.

        Of each of ``count`` random orders, neighbours; the same in every run. Relabelled openings
        take the first place in their turn.
        """
        choice = torch.Generator().manual_seed(task)
        n, first = int(self.count[task]), int(self.first[task])
        turns = torch.arange(n)[:, None] + torch.arange(self.episodes)
        orders = torch.stack([torch.randperm(n, generator=choice) for _ in range(count)])
        found = first + orders[:, turns % n].flatten(0, 1)
        if self.openings is not None:
            first, many = (int(x[task]) for x in self.openings)
            found[:, 0] = first + torch.arange(len(found)) % many
        return found.to(self.rows.device)

    def places(self, trajectories: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [B, steps] of rollouts of trajectories [B, episodes], and which there are."""
        lengths = self.lengths[trajectories]
        ends = lengths.cumsum(-1)
        step = torch.arange(self.steps, device=ends.device).expand(len(ends), -1).contiguous()
        episode = torch.searchsorted(ends, step, right=True).clamp_max(self.episodes - 1)
        begin = self.starts[trajectories] - (ends - lengths)
        present = step < ends[:, -1:]
        return torch.where(present, step + begin.gather(-1, episode), 0), present

    def batch(self, places: Tensor) -> Batch:
        """Transitions at rows [...]."""
        return self.layout.unpack(self.rows[places])


class BeliefSample(NamedTuple):
    """All that is random in a gradient step of the belief: B rollouts of at most N steps."""

    batch: Batch  # [B, N, ...]
    present: Tensor  # [B, N]
    times: Tensor  # [B, K] from 0 (the prior) to a rollout's length: which posteriors reconstruct
    weights: Tensor  # [B, K] of theirs, 1 in all for a rollout
    noise: Tensor  # [B, K, dz], standard normal, for their z


def belief_loss(
    encoder: BeliefEncoder, decoder: BeliefDecoder, sample: BeliefSample, *, kl_weight: float
) -> tuple[Tensor, Info]:
    """The belief's ELBO: E_t [ sum_t' (r_t' - r(z_t, t'))^2 + kl_weight D_KL(q_t || q_{t-1}) ].

    z_t ~ q_t is the belief after t of a rollout's L steps. Each reconstructs all L rewards, past
    and future; the K posteriors of the sample, with their weights, stand for all L + 1. The
    divergences are of all, with q_{-1} = N(0, I). Mean over rollouts. Rewards are unscaled.
    ``reward_error`` is the mean squared error of a reward, ``kl`` the divergence of a step.
    """
    batch, present = sample.batch, sample.present.float()
    lengths = present.sum(-1)
    beliefs = encoder(batch.next_observations, batch.actions, batch.rewards)
    index = sample.times.unsqueeze(-1).expand(*sample.noise.shape)
    z = Belief(*(part.gather(1, index) for part in beliefs)).at(sample.noise)
    expected = decoder(z, batch.next_observations, batch.actions, batch.observations)
    errors = ((expected - batch.rewards.unsqueeze(1)) ** 2 * present.unsqueeze(1)).sum(-1)
    errors = (errors * sample.weights).sum(-1)
    before = Belief(*(_following(part) for part in beliefs))
    of_prior = torch.ones_like(present[:, :1])
    divergences = beliefs.divergence(before) * torch.cat([of_prior, present], 1)
    divergence = divergences.sum(-1) / (lengths + 1)
    loss = (errors + kl_weight * divergence).mean()
    return loss, {
        "belief_loss": loss.detach(),
        "reward_error": (errors / lengths).mean().detach(),
        "kl": divergence.mean().detach(),
    }


def _following(values: Tensor) -> Tensor:
    """Values [B, N + 1, dz] a step later, after the zeros of N(0, I)'s mean and log-variance."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)


def _rows(
    data: TaskData, standardize: Callable[[Tensor], Tensor], layout: Layout, device: torch.device
) -> Tensor:
    names = ("observations", "actions", "rewards", "next_observations", "terminals")
    parts = [torch.from_numpy(np.ascontiguousarray(getattr(data, n))).to(device) for n in names]
    parts[0], parts[3] = standardize(parts[0]), standardize(parts[3])
    return layout.pack(*parts)
