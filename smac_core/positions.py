"""Where a robot went in the plane, from its observations (figures 6 and 7).

Some observations hold the position itself; others leave it out, as locomotion should not depend on
it, and hold the velocity. A path is then the velocity's integral by the trapezoid rule, from the
origin: within some centimetres of the simulator's own path where that one is metres long (the test
of this module measures it), and the same for an agent's episodes and for a dataset's, which keep
observations alone.
"""

import numpy as np

from smac_core.config import Environment

POSITIONS = (("x", "y"), ("hand_x", "hand_y"))
VELOCITIES = ("velocity_x", "velocity_y")


def shows_position(environment: Environment) -> bool:
    """Whether paths in the plane can be had from a domain's observations."""
    return _columns(environment) is not None


def paths(
    environment: Environment,
    observations: np.ndarray,
    next_observations: np.ndarray,
    present: np.ndarray,
) -> np.ndarray:
    """Positions [E, H + 1, 2] in m, float32; NaN after an early end.

    Args:
        observations, next_observations: of E episodes, [E, H, ds].
        present: [E, H] bool, false after an early end.

    Raises:
        ValueError: the domain's observations do not show it.
    """
    found = _columns(environment)
    if found is None:
        raise ValueError(
            f"{environment.id}: found no position or velocity in the plane in its observations"
        )
    columns, integrate = found
    values = np.concatenate([observations[:, :1], next_observations], 1)[..., columns]
    values = values.astype(float)
    values[:, 1:][~present] = np.nan
    if integrate:
        steps = (values[:, 1:] + values[:, :-1]) / (2 * environment.rate)
        start = np.zeros_like(values[:, :1])
        values = np.concatenate([start, steps.cumsum(1)], 1)
    return values.astype(np.float32)


def _columns(environment: Environment) -> tuple[list[int], bool] | None:
    """The two columns of the observations, and whether they are velocities."""
    names = environment.observation_names
    for pair in (*POSITIONS, VELOCITIES):
        if set(pair) <= set(names):
            return [names.index(name) for name in pair], pair == VELOCITIES
    return None
