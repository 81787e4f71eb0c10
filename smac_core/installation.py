"""What is installed, what is missing and what that costs: ``smac doctor``.

Only the standard library is imported at the top, so that this still answers on a machine where
nothing else does; torch alone is imported, to ask it for the device.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from smac_core.errors import InputError

_INSTALL = "pip install -c constraints.txt -e . (or scripts/setup_env.sh)"
_ROS = "a ROS 2 installation with its setup.bash sourced"

# Distribution, least version as in setup.py (a test compares), and what does not work without.
LIBRARIES: list[tuple[str, str, str]] = [
    ("torch", "2.4", "no training and no runs: the policy node runs exports, and that is all"),
    ("numpy", "1.26", "nothing works"),
    ("pydantic", "2", "configurations cannot be read"),
    ("pyyaml", "6", "configurations cannot be read"),
    ("typer", "0.12", "the smac command does not start"),
    ("rich", "13", "no progress bars and no tables: the smac command does not start"),
    ("h5py", "3.10", "datasets cannot be read or written"),
    ("safetensors", "0.4", "checkpoints cannot be read or written"),
    ("tensorboard", "2.15", "training cannot log its curves"),
    ("gymnasium", "1.1", "no simulation"),
    ("mujoco", "3.3", "no MuJoCo robots (cheetah, ant, humanoid, walker, hopper)"),
    ("pybullet", "3.2.5", "no simulated Sawyer"),
    ("matplotlib", "3.8", "no figures"),
    ("rosbags", "0.11.9", "no contracts, no bags, no ROS 2 nodes"),
    ("imageio", "2.31", "no animations of episodes"),
    ("pillow", "10", "no animations of episodes"),
]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        feature: what it is about.
        needs: what should be there.
        found: what is there; a version, a name, or "missing".
        ok: whether that is enough.
        required: whether the package is broken without.
        consequence: what does not work when it is not ok.
        install: how to get it.
    """

    feature: str
    needs: str
    found: str
    ok: bool
    required: bool
    consequence: str
    install: str


def doctor() -> list[Check]:
    """Looks at this installation. Raises nothing: what fails is a line of the result."""
    return [
        _python(),
        *(_library(*entry) for entry in LIBRARIES),
        _device(),
        _configuration(),
        _rclpy(),
        _launch(),
        _video(),
        _optional("onnxruntime", "the policy node runs no exports (smac export --onnx)"),
        _optional("onnx", "smac export --onnx cannot write its files"),
        _optional("minari", "smac data export --minari does not work", "minari[hdf5]"),
        _optional("lerobot", "smac data export --lerobot does not work"),
    ]


def require(package: str, needed_for: str) -> ModuleType:
    """An optional package, imported.

    Raises:
        InputError: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        expected = f"it to be installed for {needed_for}: pip install {package}"
        raise InputError(package, "package", error, expected) from None


def report(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as a JSON-able dictionary; ``ok`` is true when nothing required is missing."""
    ok = all(check.ok for check in checks if check.required)
    return {"ok": ok, "checks": [asdict(check) for check in checks]}


def show(checks: Sequence[Check]) -> None:
    """Prints the checks as a table, and below it what to do about what is missing."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "Feature", "Needs", "Found", box=box.SIMPLE_HEAD)
    for check in checks:
        if check.ok:
            mark = "[green]ok[/green]"
        else:
            mark = "[red]missing[/red]" if check.required else "[yellow]optional[/yellow]"
        table.add_row(mark, *(escape(text) for text in (check.feature, check.needs, check.found)))
    console = Console()
    console.print(table)
    for check in checks:
        if not check.ok:
            console.print(
                f"{check.feature}: {check.consequence}. To get it: {check.install}",
                markup=False,
                highlight=False,
            )


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info[:2] >= (3, 11)
    how = "a Python from 3.11 to 3.13, then scripts/setup_env.sh"
    return Check("Python", ">=3.11", found, ok, True, "nothing works", how)


def _library(name: str, least: str, consequence: str) -> Check:
    found = _version(name)
    ok = found is not None and _release(found) >= _release(least)
    return Check(name, f">={least}", found or "missing", ok, True, consequence, _INSTALL)


def _device() -> Check:
    consequence = "training runs on the CPU, which takes longer"
    install = "an NVIDIA driver, and a torch built for its CUDA version"
    try:
        import torch

        if torch.cuda.is_available():
            found, ok = f"cuda ({torch.cuda.get_device_name()})", True
        else:
            found, ok = f"cpu ({torch.get_num_threads()} threads)", False
    except Exception as error:  # a broken torch fails in many ways, and this reports them all
        found, ok = f"torch does not load: {error}", False
    return Check("device", "cuda", found, ok, False, consequence, install)


def _configuration() -> Check:
    try:
        from smac_core.config import config_directory

        found, ok = str(config_directory()), True
    except Exception as error:  # also a missing yaml or pydantic, each reported in its own line
        found, ok = f"missing: {error}", False
    consequence = "domains are only found by the path of their YAML file"
    return Check("config", "a folder config/domains", found, ok, True, consequence, _INSTALL)


def _rclpy() -> Check:
    install = f"{_ROS}, or pip install -c constraints.txt -e '.[ros]'"
    found = _version("rclpy") or _version("ros-rclpy")
    ok = importlib.util.find_spec("rclpy") is not None
    # The wheels of PyPI come in parts, and rclpy does not load without a middleware.
    if _version("ros-rclpy") and not _version("ros-rmw-fastrtps-cpp"):
        ok, found = False, f"{found} without ros-rmw-fastrtps-cpp"
    found = found or ("found" if ok else "missing")
    consequence = "no ROS 2 nodes; training, evaluation and simulation work without"
    return Check("rclpy", "ROS 2 Jazzy or newer", found, ok, False, consequence, install)


def _launch() -> Check:
    ok = importlib.util.find_spec("launch_ros") is not None
    found = _version("launch_ros") or ("found" if ok else "missing")
    consequence = "no ROS 2 launch files"
    return Check("launch_ros", "ROS 2 Jazzy or newer", found, ok, False, consequence, _ROS)


def _video() -> Check:
    package = _version("imageio-ffmpeg")
    found = f"imageio-ffmpeg {package}" if package else "missing"
    consequence = "animations are GIF only, not MP4"
    how = "pip install imageio-ffmpeg"
    return Check("MP4", "imageio-ffmpeg", found, package is not None, False, consequence, how)


def _optional(name: str, consequence: str, requirement: str = "") -> Check:
    ok = importlib.util.find_spec(name) is not None  # also of a distribution of another name
    found = _version(name) or ("found" if ok else "missing")
    how = f"pip install '{requirement or name}'"
    return Check(name, name, found, ok, False, consequence, how)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """(2, 13) of "2.13.0+cpu": without trailing zeros, so that "2" and "2.0" are equal."""
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in match.group().split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
