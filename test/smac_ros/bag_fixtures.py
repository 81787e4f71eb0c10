"""A contract, and conversions by it; a plugin for tests: pytest_plugins = ["bag_fixtures"]."""

import pytest
from written_bags import CONTRACT, WrittenBag

from smac_core.data.dataset import Dataset
from smac_ros.bags.conversion import convert
from smac_ros.contract import Contract


@pytest.fixture
def contract() -> Contract:
    return Contract.from_text(CONTRACT, "point_mass.yaml")


@pytest.fixture
def converted(tmp_path, contract):
    """Converts bags by the YAML of tasks; gives the dataset and the report."""

    def run(tasks: str, *bags, contract=contract, **options):
        (tmp_path / "TASKS.yaml").write_text(tasks)
        paths = [bag.path if isinstance(bag, WrittenBag) else bag for bag in bags]
        out = tmp_path / "out" / "data.h5"
        report = convert(paths, contract, tmp_path / "TASKS.yaml", out, **options)
        return Dataset.load(out), report

    return run
