"""The tutorials in doc/tutorials, run as their reader would run them.

In a tutorial, blocks of ``sh`` are commands, ``sh terminal=2`` those of a second terminal, which
goes on until the tutorial is over; ``yaml file=NAME`` and ``python file=NAME`` are files to be
written; lines of ``text`` are found in what the commands above them print, whatever the numbers.
``<!-- after NAME -->`` says that it goes on in the folder of another one.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "doc" / "tutorials").glob("*.md"))
_BLOCK = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_AFTER = re.compile(r"^<!-- after (\w+) -->$", re.MULTILINE)
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


def plain(text: str) -> str:
    """What stays of a text from one run to the next: no numbers, no layout."""
    return " ".join(re.sub(r"-?\d+([.:]\d+)*(e[+-]?\d+)?", "0", text).split())


class Reader:
    """Somebody who follows a tutorial in an empty folder."""

    def __init__(self, folder: Path):
        self.folder, self.printed = folder, ""
        self.others: list[tuple[subprocess.Popen, Path]] = []
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}

    def read(self, kind: str, options: str, content: str) -> None:
        """One block."""
        name, _, value = options.partition("=")
        if kind == "sh":
            self._second_terminal(content) if name == "terminal" else self._run(content)
        elif name == "file":
            (self.folder / value).write_text(content)
        elif kind == "text":
            for line in content.splitlines():
                assert plain(line) in plain(self.printed), f"{line!r} is not in\n{self.printed}"

    def _run(self, commands: str) -> None:
        # What is measured live is also this machine's moment: a reader would look again.
        for _ in range(3 if "--live" in commands else 1):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", commands],
                cwd=self.folder,
                env=self.environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=200,
            )
            if done.returncode == 0:
                break
        self.printed = done.stdout
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{self._logs()}"

    def _second_terminal(self, command: str) -> None:
        log = self.folder.with_suffix(f".terminal_{len(self.others) + 2}")
        with log.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.others.append((process, log))

    def _logs(self) -> str:
        return "\n".join(log.read_text()[-4000:] for _, log in self.others)

    def leave(self) -> None:
        """Ctrl-C in the other terminals."""
        for process, log in self.others:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # not to be left behind
                raise
            assert code in (0, 130, -signal.SIGINT), log.read_text()[-4000:]


def sequences() -> list[list[Path]]:
    """Tutorials in the order of reading, those of one folder together."""
    found = [[path] for path in TUTORIALS if not _AFTER.search(path.read_text())]
    for path in TUTORIALS:
        if match := _AFTER.search(path.read_text()):
            next(way for way in found if way[0].stem == match[1]).append(path)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", sequences(), ids=lambda way: "-".join(path.stem for path in way))
def test_tutorials_do_what_they_say(way, tmp_path):
    folder = tmp_path / "reader"
    folder.mkdir()
    for tutorial in way:
        blocks = _BLOCK.findall(tutorial.read_text())
        assert any(kind == "sh" for kind, _, _ in blocks)
        reader = Reader(folder)
        try:
            for block in blocks:
                reader.read(*block)
        finally:
            reader.leave()


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorials_pictures_are_there(tutorial):
    pictures = _IMAGE.findall(tutorial.read_text())
    assert pictures
    for picture in pictures:
        assert (tutorial.parent / picture).is_file(), picture
