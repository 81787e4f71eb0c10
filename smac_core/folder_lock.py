"""One process at a time in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smac_core.errors import InputError

NAME = ".lock"


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder, which is made where it is not there.

    The lock is the operating system's: it goes with the process, however that ends.

    Args:
        wait: until whoever is in there has left.

    Raises:
        InputError: another process is in there; with its number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "of unknown number"
            expected = "none: wait for it, end it, or give other seeds or another --out"
            raise InputError(folder, "lock", f"process {holder} at work there", expected) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
