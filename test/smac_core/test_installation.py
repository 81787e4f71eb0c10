"""smac doctor: says what is there, and never fails over what is not."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

from smac_core import installation


def by_feature() -> dict[str, installation.Check]:
    return {check.feature: check for check in installation.doctor()}


def test_this_environment_is_complete():
    checks = installation.doctor()
    assert [check for check in checks if check.required and not check.ok] == []
    assert {"Python", "torch", "device", "config", "rclpy", "launch_ros", "MP4"} <= {
        check.feature for check in checks
    }
    result = installation.report(checks)
    assert result["ok"] and json.loads(json.dumps(result)) == result
    device = by_feature()["device"]
    assert device.found.startswith(("cuda (", "cpu ("))


def test_missing_and_old_libraries(monkeypatch: pytest.MonkeyPatch):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "pybullet":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.3.1+cu121" if name == "torch" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = by_feature()
    assert checks["pybullet"].found == "missing" and not checks["pybullet"].ok
    assert checks["torch"].found == "2.3.1+cu121" and not checks["torch"].ok
    assert checks["h5py"].ok
    assert not installation.report(list(checks.values()))["ok"]


def test_rclpy_wheel_without_middleware(monkeypatch: pytest.MonkeyPatch):
    """The wheel alone imports nothing: saying "found" would send the user the wrong way."""
    parts = {"ros-rclpy": "9.1.2"}
    monkeypatch.setattr(installation, "_version", parts.get)
    monkeypatch.setattr(installation.importlib.util, "find_spec", lambda name: object())
    check = installation._rclpy()
    assert not check.ok and "without ros-rmw-fastrtps-cpp" in check.found
    parts["ros-rmw-fastrtps-cpp"] = "9.3.2"
    assert installation._rclpy().ok


def test_broken_torch_is_a_line_and_not_a_crash(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    check = installation._device()
    assert not check.ok and "does not load" in check.found


def test_table_names_the_remedy(capsys: pytest.CaptureFixture):
    check = installation.Check("MP4", "ffmpeg", "missing", False, False, "only GIF", "pip [x]")
    installation.show([check])
    out = capsys.readouterr().out
    assert "MP4" in out and "only GIF. To get it: pip [x]" in out


@pytest.mark.parametrize(
    ("version", "release"),
    [("2.13.0+cpu", (2, 13)), ("2", (2,)), ("3.2.7", (3, 2, 7)), ("1.0rc1", (1,)), ("x", ())],
)
def test_release(version: str, release: tuple):
    assert installation._release(version) == release


def test_import_is_light():
    """The module has to work where everything else is missing."""
    code = (
        "import sys; import smac_core.installation; "
        "print([name for name in ('torch', 'numpy', 'rich', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
