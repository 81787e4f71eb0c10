"""Definitions of message types: which fields, of which types.

Standard messages are known also where ROS is not installed (through rosbags); others are imported.
"""

import importlib
import re
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

ANY_LENGTH = 0
_TYPE = re.compile(r"[A-Za-z]\w*/msg/[A-Za-z]\w*")


class PathError(ValueError):
    """A type that is not known, or a path that does not fit its type.

    Attributes:
        found: what is wrong.
        expected: what would be right.
    """

    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(f"found {found}; expected {expected}")


class FieldType(NamedTuple):
    """A field's type: ``name`` is "float64", "string", ... or a message's, "pkg/msg/Name"."""

    name: str
    length: int | None = None  # None: not an array; 0: of any length

    @property
    def is_message(self) -> bool:
        return "/" in self.name


@lru_cache
def fields(type_name: str) -> dict[str, FieldType]:
    """A message's fields in the order of their definition.

    Raises:
        PathError: no such type is known here.
    """
    if not _TYPE.fullmatch(type_name):
        raise PathError(repr(type_name), "a message type such as sensor_msgs/msg/JointState")
    definitions = _standard_definitions()
    if type_name in definitions:
        return {name: field_type(kind) for name, kind in definitions[type_name][1]}
    types = message_class(type_name).get_fields_and_field_types()
    return {name: _from_rclpy(kind) for name, kind in types.items()}


def message_class(type_name: str) -> type:
    """The class of an installed message type.

    Raises:
        PathError: its package, or the type in it, is not installed.
    """
    package, _, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError):
        close = get_close_matches(type_name, _standard_definitions(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise PathError(
            f"the unknown message type {type_name!r}",
            f"a standard type or one of an installed package (is its workspace sourced?){hint}",
        ) from None


def has_header(type_name: str) -> bool:
    """Whether messages of the type carry a stamp of their own; raises PathError."""
    return fields(type_name).get("header") == FieldType("std_msgs/msg/Header")


@lru_cache(maxsize=1)
def _standard_definitions() -> dict[str, tuple]:
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:  # on a robot: every type is imported from its package
        return {}
    return get_typestore(Stores.ROS2_JAZZY).fielddefs


def field_type(kind: tuple) -> FieldType:
    """A field's type of what rosbags has for it."""
    from rosbags.interfaces import Nodetype

    node, content = kind
    if node == Nodetype.BASE:
        return FieldType(content[0])
    if node == Nodetype.NAME:
        return FieldType(content)
    element, length = content
    return FieldType(field_type(element).name, length if node == Nodetype.ARRAY else ANY_LENGTH)


def _from_rclpy(kind: str) -> FieldType:
    """Of "double", "geometry_msgs/Pose", "sequence<string>", "double[36]", "sequence<float, 9>"."""
    if match := re.fullmatch(r"sequence<(.+?)(?:, \d+)?>", kind):
        return FieldType(_from_rclpy(match[1]).name, ANY_LENGTH)
    if match := re.fullmatch(r"(.+)\[(\d+)\]", kind):
        return FieldType(_from_rclpy(match[1]).name, int(match[2]))
    if "/" in kind:
        package, name = kind.split("/")
        return FieldType(f"{package}/msg/{name}")
    same = {"double": "float64", "float": "float32", "boolean": "bool"}
    return FieldType("string" if "string" in kind else same.get(kind, kind))
