"""A small domain for tests: a point that must find a goal on a half circle, in 2-D.

It stands in for a robot where the algorithms are tested: real Gymnasium environment, real tasks,
learned in seconds. Registered as smac_test/PointMass-v0.
"""

import math
from typing import Any

import gymnasium
import numpy as np

HORIZON = 20
STEP = 0.1  # distance of a full action
RADIUS = 1.0
REACHED = 0.2


class PointMass(gymnasium.Env):
    """Observation: position (2); action: displacement / STEP (2); reward: minus the distance."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, fail: bool = False):
        self.fail = fail  # raises in the third step of an episode
        self.angle = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if options and "task" in options:
            self.angle = options["task"]["angle"]
        self.position, self.steps = np.zeros(2, np.float32), 0
        return self.position.copy(), {"success": False}

    def step(self, action: np.ndarray):
        self.steps += 1
        if self.fail and self.steps == 3:
            raise RuntimeError("the point fell off the table")
        self.position = self.position + STEP * np.clip(action, -1, 1).astype(np.float32)
        goal = RADIUS * np.array([math.cos(self.angle), math.sin(self.angle)])
        distance = float(np.linalg.norm(self.position - goal))
        return self.position.copy(), -distance, False, False, {"success": distance < REACHED}


class NoisyWalk:
    """A behaviour policy that does not know the goal: towards a random angle, with noise."""

    def __init__(self, env: gymnasium.Env, seed: int, noise: float = 0.3):
        self.rng, self.noise = np.random.default_rng(seed), noise

    def reset(self) -> None:
        angle = self.rng.uniform(0, math.pi)
        self.target = RADIUS * np.array([math.cos(angle), math.sin(angle)])

    def act(self, observation: np.ndarray) -> np.ndarray:
        action = (self.target - observation) / STEP + self.rng.normal(0, self.noise, 2)
        return np.clip(action, -1, 1).astype(np.float32)


gymnasium.register("smac_test/PointMass-v0", entry_point=PointMass)
