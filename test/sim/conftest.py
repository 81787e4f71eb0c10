"""Fixtures for the simulators' tests."""

import pytest


@pytest.fixture(scope="module")
def sawyer():
    """A Sawyer environment without a time limit, shared by a module's tests."""
    pytest.importorskip("pybullet")
    from sim.sawyer.environment import SawyerEnv

    env = SawyerEnv()
    yield env
    env.close()


@pytest.fixture
def full_task():
    """A task with everything on the table; a function of side and of fields to replace."""

    def make(side: int = 1, **fields) -> dict:
        task = {
            "behavior": "move_hand",
            "side": side,
            "bottom_drawer": {"open": False},
            "handle_drawer": {"opening": 0.0, "goal": 0.12},
            "button": True,
            "tray": [0.79, -0.12 * side],
            "object": {"shape": "car", "position": [0.6, -0.15 * side]},
        }
        return task | fields

    return make


@pytest.fixture
def empty_task():
    """A task with an empty table."""
    return {
        "behavior": "move_hand",
        "side": 1,
        "bottom_drawer": None,
        "handle_drawer": None,
        "button": False,
        "tray": None,
        "object": None,
    }
