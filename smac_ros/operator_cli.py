"""``smac operator``: a human at a robot's policy, in a terminal of its own.

The node reads the keyboard, so it takes this process's place: ``smac up`` and ``ros2 launch`` give
their nodes no terminal.
"""

import json
import os
import sys
from typing import Annotated

import typer


def operator(
    contract: Annotated[
        str, typer.Option(help="Name in config/contracts, or path of a .yaml.")
    ] = "sawyer_sim",
    device: Annotated[
        str, typer.Option("--input", help="keyboard; or joystick, by joy's joy_node.")
    ] = "keyboard",
    mapping: Annotated[
        str, typer.Option(help="Name in config/operators, or path of a .yaml; default: as input.")
    ] = "",
    namespace: Annotated[str, typer.Option(help="The robot's.")] = "",
    policy: Annotated[str, typer.Option(help="Name of the policy's node.")] = "policy",
    rewards: Annotated[bool, typer.Option(help="Whether to give rewards.")] = True,
    success: Annotated[float, typer.Option(help="The reward while success is shown.")] = 1.0,
    otherwise: Annotated[float, typer.Option(help="The reward while it is not.")] = 0.0,
) -> None:
    """Give rewards, stop, pause and take over a robot by keyboard or joystick.

    [dim]smac operator --contract sawyer_arm --success 1 --otherwise 0[/dim]
    """
    from smac_ros.contract import load_contract
    from smac_ros.operator_mapping import load_mapping
    from smac_ros.system import NodeSpec
    from smac_ros.up import command_line, environment, require_rclpy

    require_rclpy()
    load_mapping(mapping, device, load_contract(contract))
    spec = NodeSpec("operator_node", "operator", namespace=namespace.strip("/"))
    values = {
        "contract": contract,
        "input": device,
        "mapping": mapping,
        "policy": policy,
        "rewards": rewards,
        "success_reward": success,
        "otherwise_reward": otherwise,
    }
    words = command_line(spec, None)
    for name, value in values.items():  # JSON is YAML, which is how ROS reads a value
        words += ["-p", f"{name}:={json.dumps(value)}"]
    sys.stdout.flush()
    os.execve(words[0], words, environment())
