"""The agent on one robot, its networks run by ONNX Runtime. Loads no torch.

Random numbers are NumPy's, from the episode's seed: the same seed gives the same episode here, and
another one than with PyTorch. What is not drawn is equal up to rounding.
"""

from typing import NamedTuple

import numpy as np

from smac_core.deployment.exported import ExportedAgent
from smac_core.deployment.interface import RobotController, Rows


class Posterior(NamedTuple):
    """A diagonal normal distribution over z: mean and variance, float32, both [1, dz]."""

    mean: np.ndarray
    variance: np.ndarray


class OnnxController(RobotController):
    """z, context and posterior of an export, and its policy in buffers that are allocated once."""

    def __init__(self, agent: ExportedAgent):
        super().__init__(agent.observation_dim, agent.action_dim)
        self._generator = np.random.default_rng()
        self._observation, self._z, self._noise, self._action = (
            np.zeros((1, size), np.float32)
            for size in (agent.observation_dim, agent.latent_dim, *2 * (agent.action_dim,))
        )
        self._install(agent)

    def _install(self, agent: ExportedAgent) -> None:
        self.agent = agent
        self._binding = binding = agent.policy.io_binding()
        inputs = {"observation": self._observation, "z": self._z, "noise": self._noise}
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        action = self._action
        binding.bind_output("action", "cpu", 0, np.float32, action.shape, action.ctypes.data)
        self._run = agent.policy.run_with_iobinding

    def swap(self, agent: ExportedAgent) -> None:
        for name in ("observation_dim", "action_dim", "latent_dim"):
            found, expected = getattr(agent, name), getattr(self.agent, name)
            if found != expected:
                raise ValueError(f"{name}: found {found}; expected {expected}")
        self._install(agent)
        self._posterior = None

    def _begin(self, seed: int, latent: str) -> None:
        self._generator = np.random.default_rng(seed)
        self._noise[:] = 0  # what a deterministic episode keeps
        if latent != "step":
            mean, variance = Posterior(*self._prior()) if latent == "trajectory" else self.posterior
            self._z[:] = mean
            if latent != "mean":
                self._z += np.sqrt(variance) * self._normal(self._z.shape)

    def _normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._generator.standard_normal(shape, np.float32)

    def _draw_z(self) -> None:
        self._generator.standard_normal(dtype=np.float32, out=self._z)

    def _draw_noise(self) -> None:
        self._generator.standard_normal(dtype=np.float32, out=self._noise)

    def _compute(self, observation: np.ndarray) -> np.ndarray:
        self._observation[0] = observation
        self._run(self._binding)
        return self._action[0].copy()

    @property
    def z(self) -> np.ndarray:
        return self._z[0].copy()

    def _prior(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(self._z), np.ones_like(self._z)

    def _infer(self, context: list[Rows]) -> Posterior:
        if not context:
            return Posterior(*self._prior())
        rows = (np.concatenate(part) for part in zip(*context, strict=True))
        return Posterior(*(part[None] for part in self.agent.infer(*rows)))
