"""The package's descriptions agree with each other and with what is in the tree."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import setuptools

import smac_core
from smac_core import installation

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("smac_core", "smac_ros", "sim")

pytestmark = pytest.mark.skipif(
    not (ROOT / "setup.py").exists(), reason="the tests run without the source tree"
)


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py hands to setuptools."""
    caught: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: caught.update(keywords))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    code = compile((ROOT / "setup.py").read_text(), str(ROOT / "setup.py"), "exec")
    exec(code, {"__file__": str(ROOT / "setup.py"), "__name__": "__main__"})
    return caught


@pytest.fixture
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def test_versions_agree(arguments: dict, manifest: ElementTree.Element):
    version = arguments["version"]
    assert manifest.findtext("version") == version == smac_core.__version__
    assert re.search(rf"^{re.escape(version)} ", (ROOT / "CHANGELOG.rst").read_text(), re.M)


def test_package_xml(arguments: dict, manifest: ElementTree.Element):
    assert manifest.get("format") == "3"
    assert manifest.findtext("name") == arguments["name"] == "smac_ros"
    assert manifest.findtext("license") == arguments["license"] == "Apache-2.0"
    assert manifest.findtext("export/build_type") == "ament_python"
    maintainer = manifest.find("maintainer")
    assert maintainer.get("email") == arguments["maintainer_email"]
    # The pattern that catkin_pkg, and so colcon and bloom, hold against it.
    assert re.match(
        r"^[-a-zA-Z0-9_%+]+(\.[-a-zA-Z0-9_%+]+)*@[-a-zA-Z0-9%]+(\.[-a-zA-Z0-9%]+)*"
        r"\.[a-zA-Z]{2,}$",
        maintainer.get("email"),
    )
    depends = [element.text for element in manifest if element.tag.endswith("depend")]
    assert len(depends) == len(set(depends)) and {"rclpy", "launch_ros"} <= set(depends)


def test_every_ros_import_is_declared(manifest: ElementTree.Element):
    """A message package that is used but not in package.xml is missing on a robot."""
    declared = {element.text for element in manifest if element.tag == "exec_depend"}
    used = set()
    for path in [*sources("smac_ros"), *(ROOT / "launch").rglob("*.py")]:
        for name in imports(ast.parse(path.read_text()), everywhere=True):
            if name in ("rclpy", "launch", "launch_ros") or name.endswith("_msgs"):
                used.add(name)
    assert used <= declared


def test_wheels_bring_the_messages_of_the_manifest(
    arguments: dict, manifest: ElementTree.Element
):
    """What package.xml asks of a distribution, the extra "ros" gets from PyPI where it exists."""
    declared = {element.text.replace("_", "-") for element in manifest.iter("exec_depend")}
    declared = {name for name in declared if not name.startswith("python3-")}
    wheels = {name.removeprefix("ros-") for name in ranges(arguments["extras_require"]["ros"])}
    absent = {"launch", "launch-ros", "tf2-msgs"}  # not on PyPI: optional without a distribution
    comes_along = {"rcl-interfaces"}  # with rclpy
    assert declared - absent - comes_along == wheels - {"rmw-fastrtps-cpp"}


def test_package_data_and_resource_marker(arguments: dict):
    assert (ROOT / "resource" / "smac_ros").is_file()
    files = dict(arguments["data_files"])
    assert files["share/ament_index/resource_index/packages"] == ["resource/smac_ros"]
    assert files["share/smac_ros"] == ["package.xml"]
    installed = {file for entry in files.values() for file in entry}
    for folder in ("config", "launch"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in (".yaml", ".py", ".rviz", ".xml"):
                name = path.relative_to(ROOT).as_posix()
                assert name in installed
                assert name in files[f"share/smac_ros/{Path(name).parent.as_posix()}"]
    assert all((ROOT / file).is_file() for file in installed)


def test_all_packages_are_listed(arguments: dict):
    """A folder with modules but no __init__.py works in the source tree and is not installed."""
    expected = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in sources(*PACKAGES)
    }
    assert set(arguments["packages"]) == expected


def test_entry_point_exists(arguments: dict):
    (script,) = arguments["entry_points"]["console_scripts"]
    name, target = script.split(" = ")
    module, function = target.split(":")
    assert name == "smac" and callable(getattr(importlib.import_module(module), function))


def test_pyproject_holds_tool_settings_only():
    """With [project] there, colcon build --symlink-install drops the executables silently."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(content) == {"build-system", "tool"} and "setuptools" not in content["tool"]


def ranges(requirements: list[str]) -> dict[str, str]:
    """Least versions by name, "0" where there is none; markers are left out."""
    parts = [requirement.partition(";")[0].partition(">=") for requirement in requirements]
    return {name: least or "0" for name, _, least in parts}


def test_doctor_knows_every_dependency(arguments: dict):
    known = {name: least for name, least, _ in installation.LIBRARIES}
    assert known == ranges(arguments["install_requires"])


def test_constraints_pin_every_dependency(arguments: dict):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {re.sub("[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    # A local version such as +cpu exists in few indexes only.
    assert all(re.fullmatch(r"[0-9.]+", version) for version in pins.values())
    extras = [item for extra in arguments["extras_require"].values() for item in extra]
    for name, least in ranges([*arguments["install_requires"], *extras]).items():
        assert installation._release(pins[name]) >= installation._release(least), name


# --- import rules


def imports(tree: ast.AST, everywhere: bool) -> set[str]:
    """Top-level names that a module imports: when it is imported itself, or also later."""
    found: set[str] = set()
    pending = list(ast.iter_child_nodes(tree))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if everywhere or not (later or typing_only):
            pending += ast.iter_child_nodes(node)
    return found


def test_imports_are_found():
    tree = ast.parse(
        "import a.b\nfrom c import d\nfrom . import e\n"
        "try:\n    import f\nexcept ImportError: pass\n"
        "class G:\n    import g\ndef h():\n    import h\nif TYPE_CHECKING:\n    import i\n"
    )
    assert imports(tree, everywhere=False) == {"a", "c", "f", "g"}
    assert imports(tree, everywhere=True) == {"a", "c", "f", "g", "h", "i"}


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_only_nodes_import_rclpy_at_module_level(path: Path):
    """Everything else of smac_ros must import on a machine without ROS (bags, contracts, CLI)."""
    node = path.is_relative_to(ROOT / "smac_ros") and path.name.endswith("_node.py")
    if not node:
        assert "rclpy" not in imports(ast.parse(path.read_text()), everywhere=False)


def test_import_contracts():
    """The import rule of the design, as CI checks it."""
    pytest.importorskip("importlinter")
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


# --- scripts


@pytest.mark.parametrize("name", ["setup_env.sh", "test.sh", "demo.sh", "../.ci/run"])
def test_scripts_are_executable_and_parse(name: str):
    path = ROOT / "scripts" / name
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=30)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A bare copy of what setup_env.sh reads, so that no test touches the real environment."""
    root = tmp_path / "a folder"
    (root / "scripts").mkdir(parents=True)
    for name in ("setup.py", "constraints.txt", "scripts/setup_env.sh"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    return root


def set_up(checkout: Path, path: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {"PATH": path, "HOME": str(checkout), **environment}
    command = ["/bin/bash", str(checkout / "scripts" / "setup_env.sh")]
    return subprocess.run(
        command, env=variables, cwd="/", capture_output=True, text=True, timeout=60
    )


def fake(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


SYSTEM = "/usr/local/bin:/usr/bin:/bin"


def fake_python(folder: Path, name: str, version: str, modules: str = "ok") -> None:
    """An interpreter of another version, or without venv; it runs the script's own checks."""
    parts = ", ".join(version.split("."))
    missing = "" if modules == "ok" else f"sys.modules['{modules}'] = None; "
    fake(
        folder,
        name,
        f'[ "$1" = -c ] || exec "{sys.executable}" "$@"\n'
        f"code=\"import sys; sys.version_info = ({parts}, 'final', 0); {missing}$2\"\n"
        f'exec "{sys.executable}" -c "$code" "${{@:3}}"',
    )


def old_pythons(folder: Path) -> None:
    """Shadows every interpreter that this machine may have under the names looked for."""
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        fake_python(folder, name, "3.10.4")


def test_setup_names_an_old_python(checkout: Path):
    bin_ = checkout / "bin"
    old_pythons(bin_)
    done = set_up(checkout, f"{bin_}:{SYSTEM}")
    assert done.returncode == 1 and not (checkout / ".venv").exists()
    assert "found Python 3.10.4; expected 3.11 to 3.13" in done.stderr


def test_setup_names_a_missing_venv_module(checkout: Path):
    bin_ = checkout / "bin"
    fake_python(bin_, "python3", "3.12.3", modules="ensurepip")
    done = set_up(checkout, SYSTEM, PYTHON=str(bin_ / "python3"))
    assert done.returncode == 1
    assert "no module ensurepip" in done.stderr and "python3.12-venv" in done.stderr


def test_setup_reports_what_pip_said_and_starts_anew_next_time(checkout: Path):
    """An installation that failed must never pass for a finished one."""
    bin_ = checkout / "bin"
    fake(
        bin_,
        "python3.12",
        f"""
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; echo venv >> "{checkout}/calls"
elif [ "$1 $2" = "-m pip" ]; then
  echo pip >> "{checkout}/calls"; echo "ERROR: No matching distribution for torch"; exit 1
else exec "{sys.executable}" "$@"; fi""",
    )
    for _ in range(2):
        done = set_up(checkout, SYSTEM, PYTHON=str(bin_ / "python3.12"))
        assert done.returncode == 1
        assert "No matching distribution for torch" in done.stderr
        assert "error: the installation failed" in done.stderr
        assert (checkout / ".venv/.smac-incomplete").exists()
        assert not (checkout / ".venv/.smac-stamp").exists()
    assert "did not finish; making it anew" in done.stderr
    assert (checkout / "calls").read_text().split() == ["venv", "pip", "venv", "pip"]


@pytest.fixture
def notes_pip(checkout: Path) -> str:
    """A python that writes what pip was to install to the file "calls" instead."""
    fake(
        checkout / "bin",
        "python3.12",
        f"""
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin"; cp "$0" "$3/bin/python"
elif [ "$1 $2" = "-m pip" ]; then
  echo "${{@: -1}}" >> "{checkout}/calls"
elif [[ "$2" = "import torch"* ]]; then :
else exec "{sys.executable}" "$@"; fi""",
    )
    return str(checkout / "bin" / "python3.12")


def test_setup_does_nothing_when_nothing_has_changed(checkout: Path, notes_pip: str):
    def run(**environment: str) -> list[str]:
        done = set_up(checkout, SYSTEM, PYTHON=notes_pip, **environment)
        assert done.returncode == 0, done.stderr
        return (checkout / "calls").read_text().split()

    assert run() == [".[ros,test]"]
    assert run() == [".[ros,test]"]
    assert run(SMAC_EXTRAS="test,dev") == [".[ros,test]", ".[dev,ros,test]"]
    assert len(run()) == 2  # dev stays: no taking turns
    (checkout / "constraints.txt").write_text("# changed\n")
    assert len(run()) == 3


def test_setup_leaves_ros_to_a_sourced_installation(checkout: Path, notes_pip: str):
    """Its libraries and those of the wheels would get mixed up in one process."""
    assert set_up(checkout, SYSTEM, PYTHON=notes_pip, ROS_DISTRO="jazzy").returncode == 0
    assert (checkout / "calls").read_text().split() == [".[test]"]
