"""Which nodes with which parameters make which system: once, for launch files and ``smac up``.

Wrong arguments are refused here, before anything starts. Imports neither ROS nor PyTorch.
"""

import difflib

from smac_core.errors import InputError
from smac_ros.systems.mujoco import MUJOCO, mujoco_sim
from smac_ros.systems.real_robot import REAL_ROBOT, real_robot
from smac_ros.systems.recording import RECORDING, record
from smac_ros.systems.sawyer import SAWYER, SAWYER_TEST, meta_test, sawyer_sim
from smac_ros.systems.specification import Argument, NodeSpec, System

__all__ = ["SYSTEMS", "Argument", "NodeSpec", "System", "find_system"]

SYSTEMS = {
    "sawyer_sim": System(
        "The whole idea on a simulated Sawyer: held-out tasks before and after practice without "
        "rewards. Ends with a table.",
        SAWYER,
        sawyer_sim,
    ),
    "meta_test": System(
        "Held-out tasks on a simulated Sawyer, without practice. Ends with a table.",
        SAWYER_TEST,
        meta_test,
    ),
    "mujoco_sim": System(
        "A MuJoCo robot. With a domain and a checkpoint as sawyer_sim: held-out tasks before and "
        "after practice; with a checkpoint alone its policy, until it falls or Ctrl-C.",
        MUJOCO,
        mujoco_sim,
    ),
    "robot": System(
        "A real robot's policy. Its contract is compared with the robot first, and nothing moves "
        "until ~/start. With iterations practice without rewards; with mock:=true no hardware.",
        REAL_ROBOT,
        real_robot,
    ),
    "record": System(
        "Records what a robot's contract names, and the markers of episodes, until Ctrl-C.",
        RECORDING,
        record,
    ),
}


def find_system(name: str) -> System:
    """Raises InputError: there is none of that name."""
    if name not in SYSTEMS:
        close = difflib.get_close_matches(name, SYSTEMS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError("system", "name", repr(name), f"one of {', '.join(SYSTEMS)}{hint}")
    return SYSTEMS[name]
