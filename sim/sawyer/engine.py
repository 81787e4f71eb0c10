"""PyBullet, imported without the build time that it prints on standard error.

Every worker process would print it, in the middle of a progress display.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _no_banner() -> Iterator[None]:
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)  # the print is C's: replacing sys.stderr would not catch it
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


with _no_banner():
    import pybullet

__all__ = ["pybullet"]
