"""Several seeds' networks trained as one: a small network leaves a GPU idle, four fill it better.

The parameters of S learners are stacked, ``torch.vmap`` maps a loss over them, and one optimiser
steps them all. Each learner's own parameters and optimiser state are views of the stack, so that it
acts, is evaluated and is saved as if it had been trained alone, with the same random numbers.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree

from smac_core.algorithms.learner import Learner, Loss, Sample, adam
from smac_core.losses import Info


class SeedStack:
    """Gradient steps of S learners of one configuration.

    Args:
        learners: of equal configuration; their parameters become views from here on.
        loss_of: the first one's loss, in which its parameters stand for each one's in turn. Buffers
            (a standardiser's) are the first one's throughout: a loss does not read them.

    Raises:
        ValueError: their configurations differ.
    """

    def __init__(self, learners: list[Learner], loss_of: Loss):
        first = learners[0]
        if any(learner.config != first.config for learner in learners):
            raise ValueError("seeds trained at once: found several configurations; expected one")
        self.learners = learners
        self._loss = _Loss(first, loss_of)
        each = [_parameters(learner) for learner in learners]
        self.parameters = {name: _stack([of_seed[name] for of_seed in each]) for name in each[0]}
        names = {parameter: name for name, parameter in each[0].items()}
        self.optimizers = {}
        self._members: dict[str, list[str]] = {}
        for name, optimizer in first.optimizers.items():
            (group,) = optimizer.param_groups
            self._members[name] = [names[p] for p in group["params"]]
            stacked = [self.parameters[member] for member in self._members[name]]
            self.optimizers[name] = adam(stacked, group["lr"], graph=group["capturable"])
        self._shared = False
        self._take_over()

    def update(self, samples: list[Sample]) -> Info:
        """One gradient step of every learner; scalars [S]."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        stacked = _pytree.tree_map(lambda *parts: torch.stack(parts), samples[0], *samples[1:])
        with self.learners[0].precision():
            losses, info = torch.vmap(self._loss_of_seed)(self.parameters, stacked)
        losses.sum().backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        for learner in self.learners:
            learner.follow()
        if not self._shared:
            self._hand_over()
        return info

    def _loss_of_seed(
        self, parameters: dict[str, Tensor], sample: Sample
    ) -> tuple[Tensor, Info]:
        return functional_call(self._loss, parameters, (sample,))

    def _take_over(self) -> None:
        """Continue with the learners' optimiser states, where they have some."""
        for name, optimizer in self.optimizers.items():
            for index, member in enumerate(self._members[name]):
                states = [_state(learner, name, index) for learner in self.learners]
                if not all(states):
                    continue
                stacked = {k: torch.stack([s[k] for s in states]) for k in states[0] if k != "step"}
                optimizer.state[self.parameters[member]] = {"step": states[0]["step"], **stacked}

    def _hand_over(self) -> None:
        """Make the learners' optimiser states views of the stack's, which now has some."""
        for name, optimizer in self.optimizers.items():
            for index, member in enumerate(self._members[name]):
                stacked = optimizer.state.get(self.parameters[member])
                if not stacked:  # a loss that does not reach these parameters
                    continue
                for seed, learner in enumerate(self.learners):
                    own = {k: v if k == "step" else v[seed] for k, v in stacked.items()}
                    group = learner.optimizers[name].param_groups[0]
                    learner.optimizers[name].state[group["params"][index]] = own
        self._shared = True


class _Loss(nn.Module):
    """A learner's loss with its networks as submodules, for ``functional_call``."""

    def __init__(self, learner: Learner, loss_of: Loss):
        super().__init__()
        self.networks = nn.ModuleDict(learner.networks)
        self.loss_of = loss_of

    def forward(self, sample: Sample) -> tuple[Tensor, Info]:
        return self.loss_of(sample)


def _parameters(learner: Learner) -> dict[str, nn.Parameter]:
    return {
        f"networks.{network}.{name}": parameter
        for network, module in learner.networks.items()
        for name, parameter in module.named_parameters()
    }


def _stack(parameters: list[nn.Parameter]) -> Tensor:
    """Parameters of S networks as one [S, ...]; each becomes a view of it."""
    stacked = torch.stack([parameter.detach() for parameter in parameters])
    for parameter, own in zip(parameters, stacked, strict=True):
        parameter.data = own
    return stacked.requires_grad_(parameters[0].requires_grad)


def _state(learner: Learner, optimizer: str, index: int) -> dict[str, Tensor]:
    owner = learner.optimizers[optimizer]
    return owner.state.get(owner.param_groups[0]["params"][index], {})
