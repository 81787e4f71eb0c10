"""The agent on one robot: one observation in, one action out, whatever runs its networks.

Loads no torch: ``controller`` runs them by PyTorch, ``deployment.onnx_controller`` by ONNX Runtime.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np

LATENTS = {  # how z may be chosen in each mode
    "explore": ("step", "trajectory"),
    "adapt": ("step", "trajectory"),
    "exploit": ("sample", "mean"),
}

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # s [n, ds], a [n, da], r [n], float32


def finite(values: np.ndarray) -> bool:
    """Whether all numbers are finite: their sum is. (Where it overflows, they are of no use.)"""
    return math.isfinite(np.add.reduce(values))


class RobotController(ABC):
    """z, context and posterior of an agent, and its policy.

    Attributes:
        environment_seed: what ``rollout`` would have seeded the episode's environment with; None
            where the random numbers are not those of a training process.
    """

    environment_seed: int | None = None

    def __init__(self, observation_dim: int, action_dim: int):
        self._observation_shape, self._action_dim = (observation_dim,), action_dim
        self._context: list[Rows] = []
        self._posterior: Any = None
        self._every_step = self._deterministic = True
        self._drawn = False

    @abstractmethod
    def swap(self, agent: Any) -> None:
        """Go on with newer weights; the episode's z stays, the posterior follows from the context.

        Raises:
            ValueError: the networks have other sizes.
        """

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
        self._drawn = False
        self._every_step, self._deterministic = latent == "step", deterministic
        self._begin(seed, latent)

    @abstractmethod
    def _begin(self, seed: int, latent: str) -> None:
        """Seed the random numbers, and draw z where an episode has one."""

    def prepare(self) -> None:
        """Draw the next step's random numbers; ``act`` does it itself where nobody has."""
        if self._drawn:
            return
        if self._every_step:
            self._draw_z()
        if not self._deterministic:
            self._draw_noise()
        self._drawn = True

    @abstractmethod
    def _draw_z(self) -> None:
        """z of the prior for the next step."""

    @abstractmethod
    def _draw_noise(self) -> None:
        """The next action's noise."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action [da] for a raw observation [ds], float32.

        Raises:
            FloatingPointError: the observation or the action holds NaN or infinity. A bad
                observation takes no random numbers.
            ValueError: an observation of another size.
        """
        if observation.shape != self._observation_shape:
            expected = self._observation_shape
            raise ValueError(f"observation: found shape {observation.shape}; expected {expected}")
        if not finite(observation):
            raise FloatingPointError(f"observation {observation.tolist()} is not finite")
        self.prepare()
        action = self._compute(observation)
        self._drawn = False
        if not finite(action):
            found = f"action {action.tolist()} for observation {observation.tolist()}"
            raise FloatingPointError(f"{found} is not finite")
        return action

    @abstractmethod
    def _compute(self, observation: np.ndarray) -> np.ndarray:
        """The action [da], an array of its own, of the numbers drawn."""

    @property
    @abstractmethod
    def z(self) -> np.ndarray:
        """The latent [dz] of the last action; once the next one is prepared, of that."""

    def add(self, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> None:
        """Append a trajectory, [n, ds], [n, da], [n] in raw units, to the context.

        Raises:
            FloatingPointError: it holds NaN or infinity.
            ValueError: it is empty, or of other sizes.
        """
        arrays = [np.asarray(a, np.float32) for a in (observations, actions, rewards)]
        n = len(arrays[0])
        wanted = ((n, *self._observation_shape), (n, self._action_dim), (n,))
        for name, array, shape in zip(
            ("observations", "actions", "rewards"), arrays, wanted, strict=True
        ):
            if array.shape != shape or not n:
                raise ValueError(f"{name}: found shape {array.shape}; expected {shape}, n > 0")
            if not np.isfinite(array).all():
                raise FloatingPointError(f"{name} of a trajectory for the context are not finite")
        self._context.append(tuple(array.copy() for array in arrays))
        self._posterior = None

    def forget(self) -> None:
        """Empty the context: the posterior is the prior again."""
        self._context.clear()
        self._posterior = None

    @property
    def context_trajectories(self) -> int:
        return len(self._context)

    @property
    def posterior(self) -> Any:
        """q(z | context): mean and variance [1, dz]; the prior while the context is empty.

        Computed when it is first asked for after a change.
        """
        if self._posterior is None:
            self._posterior = self._infer(self._context)
        return self._posterior

    @abstractmethod
    def _infer(self, context: list[Rows]) -> Any:
        """The posterior given trajectories; the prior given none."""
