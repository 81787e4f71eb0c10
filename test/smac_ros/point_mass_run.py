"""The point mass of test/smac_core with a contract of its own; a plugin for tests that need a run.

pytest_plugins = ["point_mass_run"]
"""

import importlib.util
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "smac_core"
sys.path.insert(0, str(CORE))
_spec = importlib.util.spec_from_file_location("smac_core_fixtures", CORE / "conftest.py")
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
domain, config, dataset = _fixtures.domain, _fixtures.config, _fixtures.dataset
trained, pool, one_thread = _fixtures.trained, _fixtures.pool, _fixtures.one_thread
smac, smac_here = _fixtures.smac, _fixtures.smac_here

CONTRACT = """
name: point_mass
domain: point_mass
rate: 10.0
watchdog: 0.5
safety: zeros
observations:
  - topic: joint_states
    type: sensor_msgs/msg/JointState
    time: header
    align: hold
    max_age: 0.05
    fields:
      - {path: "position[x, y]", names: [x, y], unit: m}
actions:
  - topic: joint_command
    type: sensor_msgs/msg/JointState
    fields:
      - {path: "velocity[x, y]", names: [dx, dy], unit: m/s, limits: [-1, 1]}
"""


@pytest.fixture(scope="session")
def contract_file(tmp_path_factory) -> Path:
    """Path of the point mass's contract: joint_states in, joint_command out, 10 Hz."""
    path = tmp_path_factory.mktemp("contract") / "point_mass.yaml"
    path.write_text(CONTRACT)
    return path
