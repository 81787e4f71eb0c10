"""What a MuJoCo domain is: a model, its tasks, and observation, reward and end of an episode.

Nothing here moves time: `environment` does for one robot, `vector` for many. Both call the same
functions, which take arrays with a row for each robot, so that the two cannot come apart.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple

import gymnasium.envs.mujoco
import mujoco
import numpy as np

ASSETS = Path(gymnasium.envs.mujoco.__file__).parent / "assets"


@functools.cache
def shipped_model(file: str) -> mujoco.MjModel:
    """The model that Gymnasium ships as `file`, loaded once per process; copy it to edit it.

    A total mass asked for in the file is given here, as MuJoCo wants it: left to its compiler, it
    writes a warning to a log in the working directory.
    """
    spec = mujoco.MjSpec.from_file(str(ASSETS / file))
    mass, spec.compiler.settotalmass = spec.compiler.settotalmass, -1.0
    model = spec.compile()
    if mass > 0:
        mujoco.mj_setTotalmass(model, mass)
        mujoco.mj_setConst(model, mujoco.MjData(model))
        model.stat.meaninertia = model.dof_M0.mean()  # scales the solver's tolerance
    return model


class States(NamedTuple):
    """What n robots are in, float64."""

    qpos: np.ndarray  # [n, nq]
    qvel: np.ndarray  # [n, nv]
    derived: np.ndarray  # [n, derived_size]: see Domain.derive


class Domain(ABC):
    """Base of the five. A subclass sets the fields below and defines the abstract functions.

    Args:
        frame_skip: physics steps to a control step; None is the authors'.
    """

    MODEL: ClassVar[str]  # a file among Gymnasium's
    FRAME_SKIP: ClassVar[int]
    varies_physics: ClassVar[bool] = False  # whether tasks differ in their model
    derived_size: int = 0

    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]

    def __init__(self, frame_skip: int | None = None) -> None:
        self.frame_skip = self.FRAME_SKIP if frame_skip is None else frame_skip
        if not isinstance(self.frame_skip, int) or self.frame_skip < 1:
            raise ValueError(f"frame_skip: found {frame_skip!r}, expected a whole number from 1")
        self.model = copy.copy(shipped_model(self.MODEL))
        self.dt = float(self.model.opt.timestep) * self.frame_skip  # s
        self.control_limit = self.model.actuator_ctrlrange[:, 1].copy()  # [nu]; all symmetric

    # ------------------------------------------------------------------------------------- tasks
    @abstractmethod
    def sample_task(self, rng: np.random.Generator | np.random.RandomState) -> dict:
        """Draw a task; it is plain JSON."""

    @abstractmethod
    def validate(self, task: dict) -> None:
        """Raise a ValueError that names the field, what was found and what was expected."""

    def goal(self, task: dict) -> tuple[float, ...]:
        """The numbers of `task` that the reward reads."""
        return ()

    def edit(self, model: mujoco.MjModel, task: dict) -> None:  # noqa: B027 - most have one
        """Put the physics of `task` into `model`, a copy of this domain's, whatever it held."""

    # ----------------------------------------------------------------------------------- physics
    @abstractmethod
    def initial(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a start: qpos [nq], qvel [nv]."""

    def control(self, actions: np.ndarray) -> np.ndarray:
        """Actions [n, da], clipped to [-1, 1], as the actuators' controls [n, nu], float64."""
        return np.clip(np.asarray(actions, np.float64), -1.0, 1.0) * self.control_limit

    def derive(self, model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
        """What observation and reward need beside qpos and qvel, [derived_size].

        Called with `settle(model, data)` done, which is spared where derived_size is 0.
        """
        return np.empty(0)

    # ------------------------------------------------------------------------ the decision process
    @abstractmethod
    def observe(self, states: States) -> np.ndarray:
        """Observations [n, ds], float64."""

    @abstractmethod
    def reward(
        self, before: States, after: States, control: np.ndarray, goals: np.ndarray
    ) -> np.ndarray:
        """Rewards [n] of a step from `before` to `after` under `control` [n, nu]."""

    @abstractmethod
    def terminated(self, states: States) -> np.ndarray:
        """Whether an episode ends in these states, bool [n]."""

    def success(self, states: States) -> np.ndarray:
        """bool [n], all False: these domains know returns and no success."""
        return np.zeros(len(states.qpos), bool)


def settle(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Compute everything that follows from qpos, qvel and ctrl, and the forces on every body.

    The solver starts cold, so that the result depends on nothing else. MuJoCo itself leaves
    cfrc_ext alone unless a sensor asks for it.
    """
    data.qacc_warmstart[:] = 0.0
    mujoco.mj_forward(model, data)
    mujoco.mj_rnePostConstraint(model, data)


def unit_quaternion(qpos: np.ndarray) -> np.ndarray:
    """`qpos` [nq] of a robot with a free joint at its root, the rotation made one again."""
    qpos[3:7] /= np.linalg.norm(qpos[3:7])
    return qpos
