"""Runs a node's module: python -m smac_ros.start smac_ros.policy_node --ros-args ...

Libraries take seconds to load, and Ctrl-C meanwhile should end the process as quietly as later.
"""

import os
import runpy
import signal
import sys


def start(module: str) -> None:
    """As ``python -m module``; until the module handles signals itself, they just end it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(0))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    start(sys.argv.pop(1))
