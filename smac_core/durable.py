"""What has been written survives a power cut."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Put a file's content, or the names inside a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
