"""``smac up``: a system's processes on this machine, without ``ros2 launch``.

Every line that a node logs is printed behind the node's name; the main node's standard output is
this program's. Children are in process groups of their own, so that a terminal's Ctrl-C reaches
them once, through here.
"""

import importlib.metadata
import importlib.util
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from smac_core.config import config_directory
from smac_core.errors import InputError
from smac_ros.system import NodeSpec

PATIENCE = 10.0  # s that nodes have to end after SIGINT, then SIGTERM
MORE_PATIENCE = 10.0  # s from SIGTERM to SIGKILL: a learner may be saving
LAST_LINES = 10  # of a dead node, to show again
COLORS = (36, 33, 35, 32, 34, 96, 93, 95)  # ANSI


def parse_arguments(words: Sequence[str]) -> dict[str, str]:
    """``name:=value`` words by name.

    Raises:
        InputError: a word of another form, or a name twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition(":=")
        if not sign or not name:
            raise InputError("arguments", "form", repr(word), "name:=value")
        if name in found:
            raise InputError("arguments", name, "two values", "one")
        found[name] = value
    return found


def command_line(spec: NodeSpec, parameters: Path | None) -> list[str]:
    """How a node is started; ``parameters`` is its YAML file.

    Raises:
        InputError: a program of another package that is neither in it nor on PATH.
    """
    if importlib.util.find_spec(spec.package) is not None:
        module = f"{spec.package}.{spec.executable}"
        words = [sys.executable, "-m", "smac_ros.start", module]
    else:
        prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
        places = [f"{prefix}/lib/{spec.package}" for prefix in filter(None, prefixes)]
        places += os.get_exec_path()
        program = shutil.which(spec.executable, path=os.pathsep.join(places))
        if program is None:
            expected = f"the ROS package {spec.package} installed, and ROS sourced"
            raise InputError(spec.executable, "program", "none on PATH", expected)
        words = [program]
    words += [*spec.arguments, "--ros-args", "-r", f"__node:={spec.name}"]
    if spec.namespace:
        words += ["-r", f"__ns:=/{spec.namespace}"]
    for old, new in spec.remappings:
        words += ["-r", f"{old}:={new}"]
    return words if parameters is None else [*words, "--params-file", str(parameters)]


def environment() -> dict[str, str]:
    """Of the nodes: what is set already stays."""
    profile = str(config_directory() / "fastdds.xml")
    mine = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "AMENT_PREFIX_PATH": sys.prefix,
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        "OMP_NUM_THREADS": "1",
        "RCUTILS_COLORIZED_OUTPUT": "1" if sys.stderr.isatty() else "0",
        "RCUTILS_CONSOLE_OUTPUT_FORMAT": "[{severity}] {message}",
        "PYTHONUNBUFFERED": "1",
    }
    if _rclpy_major() < 9:  # up to Jazzy; later ones warn of the old name
        mine["FASTRTPS_DEFAULT_PROFILES_FILE"] = profile
    return mine | os.environ


def _rclpy_major() -> int:
    for name in ("ros-rclpy", "rclpy"):
        try:
            return int(importlib.metadata.version(name).split(".")[0])
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
    return 0


def require_rclpy() -> None:
    """Raises InputError, with how to get it."""
    if importlib.util.find_spec("rclpy") is None:
        expected = "pip install 'smac_ros[ros]', or a ROS 2 installation: source its setup.bash"
        raise InputError("rclpy", "Python package", "not installed", expected)


class _Process:
    """A running node."""

    def __init__(self, spec: NodeSpec, command: list[str], lines: queue.Queue):
        self.spec = spec
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=None if spec.main else subprocess.PIPE,
            stderr=subprocess.PIPE if spec.main else subprocess.STDOUT,
            env=environment(),
            process_group=0,
            text=True,
            errors="replace",
        )
        self._pipe = self.popen.stderr if spec.main else self.popen.stdout
        self._reader = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._reader.start()

    def _read(self, lines: queue.Queue) -> None:
        for line in self._pipe:
            lines.put((self, line.rstrip("\n")))
        lines.put((self, None))

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def send(self, number: int) -> None:
        """A signal; SIGKILL also to whatever the node has started."""
        if not self.running:
            return
        if number == signal.SIGKILL:
            os.killpg(self.popen.pid, number)
        else:
            self.popen.send_signal(number)

    def ending(self) -> str:
        """How it has ended, in words."""
        code = self.popen.returncode
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Signals that ask for the end, in the order of their coming (SIGHUP: the terminal closes)."""
    came: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    before = [signal.signal(n, lambda number, _: came.append(number)) for n in numbers]
    try:
        yield came
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Runner:
    """Starts a system's processes and stays until its end."""

    def __init__(self, specs: Sequence[NodeSpec]):
        require_rclpy()
        for spec in specs:
            command_line(spec, None)  # raises before anything is started
        self._specs = specs
        # Not SimpleQueue: its get(timeout) may wait for ever once a signal has interrupted it.
        self._lines: queue.Queue = queue.Queue()
        self._processes: list[_Process] = []
        self._width = max(len(spec.name) for spec in specs)

    @property
    def ended_well(self) -> bool:
        """Whether every node has ended without an error."""
        return all(process.popen.returncode == 0 for process in self._processes)

    def run(self) -> int:
        """The exit code: the main node's; 1 when a node died; 128 + n for the signal n."""
        with tempfile.TemporaryDirectory(prefix="smac_up_") as folder, _signals() as came:
            try:
                for index, spec in enumerate(self._specs):
                    command = command_line(spec, _parameter_file(spec, Path(folder), index))
                    self._processes.append(_Process(spec, command, self._lines))
                code = self._watch(came)
            finally:
                self._stop(came)
            return code

    def _watch(self, came: list[int]) -> int:
        main_first = sorted(self._processes, key=lambda process: not process.spec.main)
        while not came:
            self._print(0.1)
            for process in main_first:
                if process.spec.required and not process.running:
                    return self._ended(process)
        return 128 + came[0]

    def _ended(self, process: _Process) -> int:
        code = process.popen.returncode
        if process.spec.main and code >= 0:
            return code
        self._print(0.2)
        what = f"node {process.spec.name} has ended with {process.ending()}"
        if process.last:
            what += ", its last lines:\n  " + "\n  ".join(process.last)
        _say(f"error: {what}")
        return 1

    def _stop(self, came: list[int]) -> None:
        """All of them: asked first, then told, then killed. Another Ctrl-C hastens it."""
        steps = ((signal.SIGINT, PATIENCE), (signal.SIGTERM, MORE_PATIENCE), (signal.SIGKILL, 5.0))
        for number, patience in steps:
            left = [process for process in self._processes if process.running]
            if not left:
                break
            names = ", ".join(process.spec.name for process in left)
            if number != signal.SIGINT:
                text = f"warning: {names} did not end: {number.name}"
                _say(text)
            seen, end = len(came), time.monotonic() + patience
            for process in left:
                process.send(number)
            while any(process.running for process in left):
                self._print(0.05)
                if time.monotonic() > end or len(came) > seen:
                    break
        self._print(0.1)

    def _print(self, seconds: float) -> None:
        """What nodes log within that time, as it comes; the rest the next time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                process, line = self._lines.get(timeout=left)
            except queue.Empty:
                return
            if line is None:
                continue
            process.last.append(line)
            name = f"{process.spec.name:<{self._width}}"
            if sys.stderr.isatty():
                color = COLORS[self._processes.index(process) % len(COLORS)]
                name = f"\033[{color}m{name}\033[0m"
            _say(f"{name} | {line}")


def _say(text: str) -> None:
    with suppress(OSError):  # a terminal that is gone must not keep the nodes from ending
        print(text, file=sys.stderr, flush=True)


def _parameter_file(spec: NodeSpec, folder: Path, index: int) -> Path | None:
    if not spec.parameters:
        return None
    path = folder / f"{index}_{spec.name}.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": spec.parameters}}))
    return path


def show(specs: Sequence[NodeSpec]) -> None:
    """The processes and their parameters."""
    for spec in specs:
        path = f"/{spec.namespace}/{spec.name}" if spec.namespace else f"/{spec.name}"
        print(f"{path}{'  (the system ends with it)' if spec.main else ''}")
        print(f"  {spec.package} {' '.join([spec.executable, *spec.arguments])}")
        for old, new in spec.remappings:
            print(f"  {old} -> {new}")
        for name, value in spec.parameters.items():
            print(f"  {name}: {yaml.safe_dump(value).removesuffix('...' + chr(10)).strip()}")
