"""The error that every wrong input ends in: which file, which field, what was there, what belongs.

One base class, so that the command line can catch it once and print it without a traceback.
"""

from __future__ import annotations

from pathlib import Path


class InputError(ValueError):
    """A file or setting that cannot be used.

    Attributes:
        path: the file or folder.
        field: the part of it that is wrong, such as ``train/0003/rewards``.
        found: what is there.
        expected: what would be right, or what to do.
    """

    def __init__(self, path: str | Path, field: str, found: object, expected: object) -> None:
        self.path = Path(path)
        self.field = field
        self.found = str(found)
        self.expected = str(expected)
        super().__init__(f"{path}: {field}: found {self.found}; expected {self.expected}")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        # Exceptions are rebuilt from `args`, which hold only the message: without this an error
        # raised in a worker process could not travel to its parent.
        return type(self), (self.path, self.field, self.found, self.expected)
