"""How sure a mean is."""

import numpy as np


def interval(values: np.ndarray) -> dict[str, float | None]:
    """Mean of independent values [n] and the half-width of its 95 % interval (Student's t).

    A single value has none. The quantile is Abramowitz and Stegun's expansion 26.7.5, within 1 %
    from n = 4 on.
    """
    values = np.asarray(values, float)
    free = len(values) - 1
    half = None
    if free > 0:
        z = 1.959964
        t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
        half = float(t * values.std(ddof=1) / len(values) ** 0.5)
    return {"mean": float(values.mean()), "half_width_95": half}
