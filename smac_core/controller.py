"""The agent on one robot: one observation in, one action out.

Random numbers come in the order of ``training.rollout`` for a single episode, so that an episode on
a robot's topics can be compared with one in a training process, number for number.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import nn

from smac_core.agents.context import Agent, choose
from smac_core.networks import LOG_STD_RANGE, Gaussian

LATENTS = {  # how z may be chosen in each mode
    "explore": ("step", "trajectory"),
    "adapt": ("step", "trajectory"),
    "exploit": ("sample", "mean"),
}


def check_sizes(agent: Agent, present: Agent) -> None:
    """Raise ValueError unless two agents' networks have the same sizes."""
    found, expected = (
        {name: tuple(value.shape) for name, value in a.state_dict().items()}
        for a in (agent, present)
    )
    for name in found | expected:
        if found.get(name) != expected.get(name):
            raise ValueError(f"{name}: found {found.get(name)}; expected {expected.get(name)}")


def finite(values: np.ndarray) -> bool:
    """Whether all numbers are finite: their sum is. (Where it overflows, they are of no use.)"""
    return math.isfinite(np.add.reduce(values))


class Controller:
    """z, context and posterior of an agent (CPU), and its policy without PyTorch's overheads.

    ``act`` computes what ``Agent.act`` does in buffers that are allocated once. It leaves out the
    action's log-density, which only training needs.

    Args:
        exact: bit for bit what ``Agent.act`` computes, in a third of its time; else by NumPy, equal
            up to rounding, in half of that when the processor has slept since the last step.

    Attributes:
        environment_seed: what ``rollout`` would have seeded the episode's environment with.
    """

    def __init__(self, agent: Agent, *, exact: bool = True):
        self.exact = exact
        self.environment_seed: int | None = None
        self._generator = torch.Generator()
        self._context: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._posterior: Gaussian | None = None
        self._every_step = self._deterministic = True
        self._drawn = False
        self._install(agent)

    def _install(self, agent: Agent) -> None:
        standardizer, ds, da = agent.standardizer, agent.observation_dim, agent.action_dim
        self.agent = agent
        self._scales = [
            part.numpy()
            for part in (
                standardizer.mean,
                standardizer.deviation,
                -standardizer.largest,
                standardizer.largest,
            )
        ]
        layers = [layer for layer in agent.policy.body if isinstance(layer, nn.Linear)]
        parts = [
            (layer.bias.detach(), layer.weight.detach().t(), torch.empty(1, layer.out_features))
            for layer in layers
        ]
        self._hidden, self._last = parts[:-1], parts[-1]
        self._mean, self._log_std = self._last[2][:, :da], self._last[2][:, da:]
        self._noise = torch.empty(1, da)
        self._input = torch.zeros(1, ds + agent.latent_dim)
        self._z = self._input[:, ds:]
        self._values = self._input.numpy()[0]  # the same memory, as are the next ones
        self._observation = self._values[:ds]
        self._noise_values = self._noise.numpy()[0]
        self._layers = [
            (np.ascontiguousarray(layer.weight.detach().numpy()), layer.bias.detach().numpy(), out)
            for layer, out in zip(layers, (part[2].numpy()[0] for part in parts), strict=True)
        ]

    def swap(self, agent: Agent) -> None:
        """Go on with newer weights; the episode's z stays, the posterior follows from the context.

        Raises:
            ValueError: the networks have other sizes.
        """
        check_sizes(agent, self.agent)
        z, noise = self._z, self._noise
        self._install(agent)
        self._z.copy_(z)
        self._noise.copy_(noise)
        self._posterior = None

    def begin(
        self,
        mode: Literal["explore", "adapt", "exploit"],
        *,
        seed: int,
        deterministic: bool,
        latent: Literal["step", "trajectory", "sample", "mean"],
    ) -> None:
        """A new episode.

        Args:
            mode: z from the prior (explore, adapt) or from the posterior (exploit).
            latent: z for every ``step`` or ``trajectory``; the posterior's ``sample`` or ``mean``.

        Raises:
            ValueError: no such mode, or a latent of another one.
        """
        if latent not in LATENTS.get(mode, ()):
            known = "; ".join(f"{name}: {' or '.join(how)}" for name, how in LATENTS.items())
            raise ValueError(f"mode {mode} with latent {latent}; expected {known}")
        self._generator.manual_seed(seed)
        self._drawn = False
        self._every_step, self._deterministic = latent == "step", deterministic
        if latent == "trajectory":
            self._z.copy_(self.agent.prior(1).sample(self._generator))
        elif mode == "exploit":
            self._z.copy_(choose(self.posterior, latent, self._generator))
        drawn = torch.randint(2**31 - 1, (1,), generator=self._generator)
        self.environment_seed = int(drawn)

    def prepare(self) -> None:
        """Draw the next step's random numbers; ``act`` does it itself where nobody has."""
        if self._drawn:
            return
        if self._every_step:
            self._z.normal_(generator=self._generator)
        if not self._deterministic:
            self._noise.normal_(generator=self._generator)
        self._drawn = True

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action [da] for a raw observation [ds], float32.

        Raises:
            FloatingPointError: the observation or the action holds NaN or infinity. A bad
                observation takes no random numbers.
            ValueError: an observation of another size.
        """
        standardized = self._observation
        if observation.shape != standardized.shape:
            raise ValueError(
                f"observation: found shape {observation.shape}; expected {standardized.shape}"
            )
        if not finite(observation):
            raise FloatingPointError(f"observation {observation.tolist()} is not finite")
        mean, deviation, least, largest = self._scales
        np.subtract(observation, mean, out=standardized)
        np.divide(standardized, deviation, out=standardized)
        np.maximum(standardized, least, out=standardized)
        np.minimum(standardized, largest, out=standardized)
        self.prepare()
        action = self._exactly() if self.exact else self._quickly()
        self._drawn = False
        if not finite(action):
            found = f"action {action.tolist()} for observation {observation.tolist()}"
            raise FloatingPointError(f"{found} is not finite")
        return action

    @torch.inference_mode()
    def _exactly(self) -> np.ndarray:
        values = self._input
        for bias, weight, out in self._hidden:
            values = torch.addmm(bias, values, weight, out=out).relu_()
        bias, weight, out = self._last
        torch.addmm(bias, values, weight, out=out)
        if self._deterministic:
            action = self._mean.tanh_()
        else:
            deviation = self._log_std.clamp_(*LOG_STD_RANGE).exp_()
            action = deviation.mul_(self._noise).add_(self._mean).tanh_()
        return action.numpy()[0].copy()

    def _quickly(self) -> np.ndarray:
        values = self._values
        for weight, bias, out in self._layers:
            if values is not self._values:
                np.maximum(values, 0.0, out=values)
            values = np.dot(weight, values, out=out)
            values += bias
        size = len(self._noise_values)
        action, log_std = values[:size], values[size:]
        if not self._deterministic:
            np.maximum(log_std, LOG_STD_RANGE[0], out=log_std)
            np.minimum(log_std, LOG_STD_RANGE[1], out=log_std)
            np.exp(log_std, out=log_std)
            log_std *= self._noise_values
            action += log_std
        return np.tanh(action)

    @property
    def z(self) -> np.ndarray:
        """The latent [dz] of the last action; once the next one is prepared, of that."""
        return self._z.numpy()[0].copy()

    def add(self, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> None:
        """Append a trajectory, [n, ds], [n, da], [n] in raw units, to the context.

        Raises:
            FloatingPointError: it holds NaN or infinity.
            ValueError: it is empty, or of other sizes.
        """
        arrays = [np.asarray(a, np.float32) for a in (observations, actions, rewards)]
        n = len(arrays[0])
        wanted = ((n, self.agent.observation_dim), (n, self.agent.action_dim), (n,))
        for name, array, shape in zip(
            ("observations", "actions", "rewards"), arrays, wanted, strict=True
        ):
            if array.shape != shape or not n:
                raise ValueError(f"{name}: found shape {array.shape}; expected {shape}, n > 0")
            if not np.isfinite(array).all():
                raise FloatingPointError(f"{name} of a trajectory for the context are not finite")
        self._context.append(tuple(torch.from_numpy(array.copy()) for array in arrays))
        self._posterior = None

    def forget(self) -> None:
        """Empty the context: the posterior is the prior again."""
        self._context.clear()
        self._posterior = None

    @property
    def context_trajectories(self) -> int:
        return len(self._context)

    @property
    def posterior(self) -> Gaussian:
        """q(z | context) [1, dz]; the prior while the context is empty.

        Computed when it is first asked for after a change.
        """
        if self._posterior is None:
            if self._context:
                parts = (torch.cat(part)[None] for part in zip(*self._context, strict=True))
                self._posterior = self.agent.infer(*parts)
            else:
                self._posterior = self.agent.prior(1)
        return self._posterior
