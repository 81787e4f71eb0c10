"""A folder that is there whole or not at all, and takes nobody's place unasked."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smac_core.errors import InputError


def check_new_folder(out: Path, marker: str, overwrite: bool) -> None:
    """Raise InputError unless ``new_folder`` may make the folder."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(out, "path", "an existing file", "a new folder")
    if out.samefile(Path.cwd()):  # whoever is in there would not see what took its place
        raise InputError(out, "path", "the folder that you are in", "a new folder")
    if not any(out.iterdir()):
        return
    if not (out / marker).is_file():  # whatever is in there, it is none of ours
        raise InputError(out, "folder", f"one with other things in it, no {marker}", "a new folder")
    if not overwrite:
        raise InputError(out, "folder", f"one with {marker}", "a new folder, or --overwrite")
    if not _is_ours(out / marker):  # other programs have a config.json, too
        raise InputError(out / marker, "format", "another's, or damage", "an export to replace")
    if (out / ".git").exists():  # as of a hub's repository: its history would go
        expected = "a new folder, whose files then go into the repository"
        raise InputError(out, "folder", "a git repository", expected)


def _is_ours(path: Path) -> bool:
    try:
        return json.loads(path.read_bytes())["format"].startswith("smac-")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


@contextmanager
def new_folder(out: Path, marker: str, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write to, which takes the name ``out`` when the block ends without an exception.

    Args:
        marker: the JSON file by which such a folder is known; only one whose ``format`` is ours is
            ever replaced.

    Raises:
        InputError: there is something at ``out`` already, see ``check_new_folder``.
    """
    check_new_folder(out, marker, overwrite)
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (out.with_name(f".{out.name}.{os.getpid()}.{x}") for x in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)  # of a process of this number that was killed
    temporary.mkdir()
    try:
        yield temporary
        check_new_folder(out, marker, overwrite)
        if out.exists():
            os.rename(out, old)
        os.rename(temporary, out)
    finally:
        if old.exists() and not out.exists():
            os.rename(old, out)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)
