"""Systems for ``ros2 launch``: what every file in ``launch`` returns."""

import difflib
from collections.abc import Iterable
from typing import Any

from smac_ros.system import NodeSpec, find_system


def describe(name: str) -> Any:
    """A launch.LaunchDescription of a system: its arguments, and its nodes once they are known."""
    from launch import LaunchDescription
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch.substitutions import LaunchConfiguration

    system = find_system(name)

    def nodes(context: Any) -> list[Any]:
        _warn_of_misspelt(context.launch_configurations, [a.name for a in system.arguments])
        given = {a.name: LaunchConfiguration(a.name).perform(context) for a in system.arguments}
        return [_node(spec) for spec in system.build(given)]

    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            choices=list(argument.choices) or None,
        )
        for argument in system.arguments
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=nodes)])


def _warn_of_misspelt(given: Iterable[str], known: list[str]) -> None:
    """launch takes any name; those that are nearly one of ours are hardly another file's."""
    from launch.logging import get_logger

    for name in given:
        if name not in known and (close := difflib.get_close_matches(name, known, 1, 0.8)):
            get_logger("smac_ros").warning(f"unknown argument {name}; did you mean {close[0]}?")


def _node(spec: NodeSpec) -> Any:
    """The process of a node; the system ends with the main one, and if a required one dies."""
    from launch.actions import Shutdown
    from launch_ros.actions import Node

    ends = [Shutdown(reason=f"{spec.name} has ended")] if spec.required else None
    return Node(
        package=spec.package,
        executable=spec.executable,
        name=spec.name,
        namespace=spec.namespace,
        parameters=[spec.parameters] if spec.parameters else [],
        remappings=list(spec.remappings),
        arguments=list(spec.arguments),
        output="screen",
        emulate_tty=True,
        on_exit=ends,
    )
