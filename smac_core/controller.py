"""The agent on one robot, its networks run by PyTorch.

Random numbers come in the order of ``training.rollout`` for a single episode, so that an episode on
a robot's topics can be compared with one in a training process, number for number.
"""

import numpy as np
import torch
from torch import nn

from smac_core.agents.context import Agent, choose
from smac_core.deployment.interface import RobotController, Rows
from smac_core.networks import LOG_STD_RANGE, Gaussian


def check_sizes(agent: Agent, present: Agent) -> None:
    """Raise ValueError unless two agents' networks have the same sizes."""
    found, expected = (
        {name: tuple(value.shape) for name, value in a.state_dict().items()}
        for a in (agent, present)
    )
    for name in found | expected:
        if found.get(name) != expected.get(name):
            raise ValueError(f"{name}: found {found.get(name)}; expected {expected.get(name)}")


class Controller(RobotController):
    """z, context and posterior of an agent (CPU), and its policy without PyTorch's overheads.

    ``act`` computes what ``Agent.act`` does in buffers that are allocated once. It leaves out the
    action's log-density, which only training needs.

    Args:
        exact: bit for bit what ``Agent.act`` computes, in a third of its time; else by NumPy, equal
            up to rounding, in half of that when the processor has slept since the last step.
    """

    def __init__(self, agent: Agent, *, exact: bool = True):
        super().__init__(agent.observation_dim, agent.action_dim)
        self.exact = exact
        self._generator = torch.Generator()
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
        check_sizes(agent, self.agent)
        z, noise = self._z, self._noise
        self._install(agent)
        self._z.copy_(z)
        self._noise.copy_(noise)
        self._posterior = None

    def _begin(self, seed: int, latent: str) -> None:
        self._generator.manual_seed(seed)
        if latent == "trajectory":
            self._z.copy_(self.agent.prior(1).sample(self._generator))
        elif latent != "step":
            self._z.copy_(choose(self.posterior, latent, self._generator))
        drawn = torch.randint(2**31 - 1, (1,), generator=self._generator)
        self.environment_seed = int(drawn)

    def _draw_z(self) -> None:
        self._z.normal_(generator=self._generator)

    def _draw_noise(self) -> None:
        self._noise.normal_(generator=self._generator)

    def _compute(self, observation: np.ndarray) -> np.ndarray:
        standardized = self._observation
        mean, deviation, least, largest = self._scales
        np.subtract(observation, mean, out=standardized)
        np.divide(standardized, deviation, out=standardized)
        np.maximum(standardized, least, out=standardized)
        np.minimum(standardized, largest, out=standardized)
        return self._exactly() if self.exact else self._quickly()

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
        return self._z.numpy()[0].copy()

    def _infer(self, context: list[Rows]) -> Gaussian:
        if not context:
            return self.agent.prior(1)
        parts = (np.concatenate(part)[None] for part in zip(*context, strict=True))
        return self.agent.infer(*map(torch.from_numpy, parts))
