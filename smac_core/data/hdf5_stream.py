"""What a dataset file is written through: a full disk ends in an error, not in a crash."""

from __future__ import annotations

import io
import os
from pathlib import Path


class Stream(io.RawIOBase):
    """A file for HDF5 that keeps its first write error to itself until asked.

    HDF5 that meets a full disk inside its own flush cannot be closed any more and takes the
    process down at exit. Here it never sees the failure: the writer asks after every task.
    """

    def __init__(self, handle: int) -> None:
        super().__init__()
        self.handle = handle
        self.muted = False
        self.error: OSError | None = None
        self.position = self.size = 0  # as HDF5 believes; the real file ends where it broke

    def readinto(self, buffer: memoryview) -> int:
        view = memoryview(buffer).cast("B")
        data = b"" if self.muted else os.pread(self.handle, len(view), self.position)
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))
        self.position += len(view)
        return len(view)

    def write(self, data: memoryview) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and not self.muted:
            try:
                done += os.pwrite(self.handle, view[done:], self.position + done)
            except OSError as error:
                self.error, self.muted = error, True
        self.position += len(view)
        self.size = max(self.size, self.position)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def truncate(self, size: int) -> int:
        if not self.muted:
            try:
                os.ftruncate(self.handle, size)
            except OSError as error:
                self.error, self.muted = error, True
        self.size = size
        return size

    def flush(self) -> None:
        """Nothing to do: every write goes through at once."""

    def check(self, path: Path) -> None:
        """Raises the OSError that a write met, with the name of the file that was wanted."""
        if self.error is not None:
            raise OSError(self.error.errno, self.error.strerror, str(path)) from self.error

    def sync(self, path: Path) -> None:
        self.check(path)
        os.fsync(self.handle)
