"""What Walker-Param and Hopper-Param share: tasks that differ in their physics.

A task holds factors on the model's masses, inertias, dampings and frictions, element by element:

    body_mass      one a body, the world first
    body_inertia   three a body, about its principal axes
    dof_damping    one a degree of freedom; the first three have none to multiply
    geom_friction  three a geom, the floor first: sliding, torsional, rolling

A field left out multiplies by 1.
"""

import mujoco
import numpy as np

from .base import Domain, States
from .tasks import check_fields, refuse

ELEMENTS = ("body_mass", "body_inertia", "dof_damping", "geom_friction")
EXPONENT = 3.0  # factors are base^U(-EXPONENT, EXPONENT)
DIGITS = 6  # of a factor, behind the point


class RandomPhysics(Domain):
    """A robot in the plane that should run forwards, whatever its physics.

    Observation: qpos but x, then qvel clipped to +-10. Reward: v + 1 - 1e-3 |action|^2, with v the
    mean velocity over the step.

    Args:
        frame_skip: physics steps of 0.002 s to a control step; None is the authors' 4.
        base: of the random factors on mass, inertia and friction.
        damping_base: of those on damping; the paper's is 1.5, like the others'.
    """

    FRAME_SKIP = 4
    varies_physics = True

    def __init__(
        self, frame_skip: int | None = None, base: float = 1.5, damping_base: float = 1.3
    ) -> None:
        super().__init__(frame_skip)
        self.bases = dict.fromkeys(ELEMENTS, base) | {"dof_damping": damping_base}
        self._nominal = {name: getattr(self.model, name).copy() for name in ELEMENTS}

    def sample_task(self, rng: np.random.Generator | np.random.RandomState) -> dict:
        task = {}
        for name, nominal in self._nominal.items():
            exponents = rng.uniform(-EXPONENT, EXPONENT, nominal.shape)
            task[name] = np.round(self.bases[name] ** exponents, DIGITS).tolist()
        return task

    def validate(self, task: dict) -> None:
        check_fields(task, (), optional=ELEMENTS)
        for name, factors in task.items():
            shape = self._nominal[name].shape
            expected = f"{' x '.join(map(str, shape))} numbers above 0"
            try:
                array = np.array(factors, np.float64)
            except (TypeError, ValueError):
                refuse(name, factors, expected)
            if array.shape != shape:
                refuse(name, f"shape {array.shape}", expected)
            wrong = ~(np.isfinite(array) & (array > 0))
            if wrong.any():
                refuse(name, float(array[wrong][0]), expected)

    def edit(self, model: mujoco.MjModel, task: dict) -> None:
        """Multiply the elements, and nothing that MuJoCo derives from them, as the authors do."""
        for name, nominal in self._nominal.items():
            getattr(model, name)[:] = nominal * np.asarray(task.get(name, 1.0))

    def initial(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        qpos = self.model.qpos0 + rng.uniform(-0.005, 0.005, self.model.nq)
        return qpos, rng.uniform(-0.005, 0.005, self.model.nv)

    def observe(self, states: States) -> np.ndarray:
        return np.concatenate((states.qpos[:, 1:], np.clip(states.qvel, -10.0, 10.0)), axis=1)

    def reward(
        self, before: States, after: States, control: np.ndarray, goals: np.ndarray
    ) -> np.ndarray:
        velocity = (after.qpos[:, 0] - before.qpos[:, 0]) / self.dt
        return velocity + 1.0 - 1e-3 * np.square(control).sum(axis=1)
