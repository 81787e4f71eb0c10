"""Paths into ROS messages: parsed and checked once, then read and written fast.

A path names numbers of a message::

    pose.position                       a vector of 2 to 4 floats, in the order of its definition
    position[right_j0, right_j1]        by joint name: the message's own ``name`` / ``joint_names``
    data[2]  data[0:7]  ranges[0:8]     by index
    points[0].positions[right_j3]       an element of a list of messages on the way
    pose.covariance                     a whole array, where the definition fixes its length

Messages of rclpy and of rosbags have the same attributes, so that one reader serves both.
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from smac_ros.message_types import ANY_LENGTH, FieldType, PathError, fields

Reader = Callable[[Any, np.ndarray], None]
Writer = Callable[[Any, Any], None]

FLOATS = ("float64", "float32")
_NUMBERS = (*FLOATS, "bool", "byte", "char", "octet") + tuple(
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
)
_NAME_LISTS = ("name", "joint_names")  # fields that name a message's other arrays' entries
_PATH = re.compile(r"[A-Za-z]\w*(\[[^\[\]]*\])?(\.[A-Za-z]\w*(\[[^\[\]]*\])?)*")
_SEGMENT = re.compile(r"([A-Za-z]\w*)(?:\[([^\[\]]*)\])?")


class MessageError(ValueError):
    """A message that lacks what a path names: a joint, or entries of an array.

    Attributes:
        path: the path that could not be read.
    """

    def __init__(self, path: str, problem: object) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}")


class _Target(NamedTuple):
    """Where a path ends: ``steps`` lead to the message that holds the numbers."""

    steps: tuple[tuple[str, int | None], ...]  # attributes, each with the index of an element
    owner: str  # type of that message
    field: str | None  # its array that is read; None: ``attributes`` of it are
    attributes: tuple[str, ...]
    first: int  # entries [first, last) of the array, where no joints are named
    last: int
    joints: tuple[str, ...]
    names: tuple[tuple[tuple[str, int | None], ...], str] | None  # steps and field of their names
    base: str  # "float64", ...
    leaves: tuple[str, ...]  # the path of every number


def leaves(type_name: str, path: str) -> tuple[str, ...]:
    """The path of every number that ``path`` names, in order; raises PathError."""
    return _resolve(type_name, path).leaves


def width(type_name: str, path: str) -> int:
    """How many numbers ``path`` names; raises PathError."""
    return len(_resolve(type_name, path).leaves)


def base_type(type_name: str, path: str) -> str:
    """Type of the numbers that ``path`` names, "float64" or another; raises PathError."""
    return _resolve(type_name, path).base


def compile_reader(type_name: str, path: str) -> Reader:
    """A function ``read(message, out)`` that puts the path's numbers into ``out`` [width] float64.

    It raises MessageError where a message lacks them; NaN is passed through.

    Raises:
        PathError: as ``width`` does.
    """
    target = _resolve(type_name, path)
    if target.field is None:
        read = _attribute_reader(target)
    elif target.joints:
        read = _joint_reader(path, target)
    else:
        read = _array_reader(path, target)
    return read


def compile_writer(type_name: str, path: str) -> Writer:
    """A function ``write(message, values)``, the inverse of the reader of the same path.

    The message must have its arrays and names: see ``prepare``. ``values`` is a sequence of
    Python floats [width].

    Raises:
        PathError: as ``width`` does.
    """
    target = _resolve(type_name, path)
    owner_of = _getter(target.steps)
    if target.field is None:
        attributes = target.attributes

        def write_attributes(message: Any, values: Any) -> None:
            owner = owner_of(message)
            for attribute, value in zip(attributes, values, strict=True):
                setattr(owner, attribute, value)

        return write_attributes
    array_of = attrgetter(target.field)
    if target.joints:
        find = _JointFinder(path, target)

        def write_joints(message: Any, values: Any) -> None:
            array = array_of(owner_of(message))
            for index, value in zip(find(message), values, strict=True):
                array[index] = value

        return write_joints
    indices = range(target.first, target.last)

    def write_array(message: Any, values: Any) -> None:
        array = array_of(owner_of(message))
        for index, value in zip(indices, values, strict=True):
            array[index] = value

    return write_array


def prepare(message: Any, type_name: str, path: str, make: Callable[[str], Any]) -> None:
    """Give ``message`` the list elements, names and array entries that ``path`` writes to.

    Args:
        make: a new message of a type's name, for lists of messages.
    """
    target = _resolve(type_name, path)
    owner, kind = message, type_name
    for name, index in target.steps:
        kind = fields(kind)[name].name
        owner = getattr(owner, name)
        if index is not None:
            while len(owner) <= index:
                owner.append(make(kind))
            owner = owner[index]
    if target.field is None:
        return
    needed = target.last
    if target.joints:
        steps, field = target.names
        names = getattr(_getter(steps)(message), field)
        names.extend(joint for joint in target.joints if joint not in names)
        needed = len(names)
    array = getattr(owner, target.field)
    lacking = needed - len(array)
    if lacking > 0 and isinstance(array, np.ndarray):
        setattr(owner, target.field, np.append(array, np.zeros(lacking, array.dtype)))
    elif lacking > 0:
        array.extend([0.0] * lacking)


def named_arrays(type_name: str, path: str) -> tuple[str, str, tuple[str, ...]] | None:
    """(where the names are, the array, the joints) of a path by joint name, else None."""
    target = _resolve(type_name, path)
    if not target.joints:
        return None
    steps, field = target.names
    return (
        _text((*steps, (field, None))),
        _text((*target.steps, (target.field, None))),
        (target.joints),
    )


# Reading


def _attribute_reader(target: _Target) -> Reader:
    if any(index is not None for _, index in target.steps):
        owner_of, path = _getter(target.steps), target.attributes
    else:  # one attribute getter goes all the way, in C
        owner_of = None
        prefix = "".join(f"{name}." for name, _ in target.steps)
        path = tuple(prefix + attribute for attribute in target.attributes)
    values_of = attrgetter(*path)
    several = len(path) > 1

    def read(message: Any, out: np.ndarray) -> None:
        try:
            values = values_of(message if owner_of is None else owner_of(message))
        except (AttributeError, IndexError) as error:
            raise MessageError(target.leaves[0], error) from None
        if several:
            for index, value in enumerate(values):
                out[index] = value
        else:
            out[0] = values

    return read


def _array_reader(path: str, target: _Target) -> Reader:
    owner_of, array_of = _getter(target.steps), attrgetter(target.field)
    first, last = target.first, target.last

    def read(message: Any, out: np.ndarray) -> None:
        try:
            array = array_of(owner_of(message))
        except (AttributeError, IndexError) as error:
            raise MessageError(path, error) from None
        if len(array) < last:
            raise MessageError(path, f"the message has {len(array)} entries, {last} are needed")
        out[:] = array[first:last]

    return read


def _joint_reader(path: str, target: _Target) -> Reader:
    owner_of, array_of = _getter(target.steps), attrgetter(target.field)
    find = _JointFinder(path, target)

    def read(message: Any, out: np.ndarray) -> None:
        try:
            indices = find(message)
            array = array_of(owner_of(message))
        except (AttributeError, IndexError) as error:
            raise MessageError(path, error) from None
        if len(array) <= find.last:
            raise MessageError(
                path, f"the message has {len(array)} entries, {find.last + 1} are needed"
            )
        if find.together:
            out[:] = array[indices[0] : find.last + 1]
        else:
            for index, source in enumerate(indices):
                out[index] = array[source]

    return read


class _JointFinder:
    """Indices of joints in a message's list of names, searched again only when the list changes."""

    def __init__(self, path: str, target: _Target) -> None:
        steps, field = target.names
        self._path, self._joints = path, target.joints
        owner_of, names_of = _getter(steps), attrgetter(field)
        self._names_of = lambda message: names_of(owner_of(message))
        if not steps:
            self._names_of = names_of
        self._seen: list[str] | None = None
        self._indices: list[int] = []
        self.last = -1  # the largest index
        self.together = False  # whether the joints follow one another

    def __call__(self, message: Any) -> list[int]:
        names = self._names_of(message)
        if names != self._seen:
            self._search(list(names))
        return self._indices

    def _search(self, names: list[str]) -> None:
        for joint in self._joints:
            if joint not in names:
                raise MessageError(self._path, f"the message names no {joint!r}, it has {names}")
        self._seen = names
        self._indices = [names.index(joint) for joint in self._joints]
        first, self.last = self._indices[0], max(self._indices)
        self.together = self._indices == list(range(first, first + len(self._indices)))


def _getter(steps: tuple[tuple[str, int | None], ...]) -> Callable[[Any], Any]:
    if not steps:
        return lambda message: message
    if all(index is None for _, index in steps):
        return attrgetter(".".join(name for name, _ in steps))

    def get(message: Any) -> Any:
        for name, index in steps:
            message = getattr(message, name)
            if index is not None:
                message = message[index]
        return message

    return get


# Understanding paths


@lru_cache(maxsize=1024)
def _resolve(type_name: str, path: str) -> _Target:
    if not _PATH.fullmatch(path):
        raise PathError(
            repr(path), "a path such as pose.position, position[joint], data[0:7] or points[0].x"
        )
    segments = [match.groups() for match in _SEGMENT.finditer(path)]
    steps: list[tuple[str, int | None]] = []
    owner, names = type_name, None
    for name, index in segments[:-1]:
        names = _name_list(owner, steps) or names
        kind = _field(owner, name)
        if not kind.is_message:
            raise PathError(f"{name!r}, a {kind.name}, before a dot", "a message there")
        steps.append((name, _element(name, index, kind)))
        owner = kind.name
    names = _name_list(owner, steps) or names
    name, index = segments[-1]
    kind = _field(owner, name)
    if kind.is_message:
        steps.append((name, _element(name, index, kind)))
        return _composite(path, steps, kind.name)
    if kind.name not in _NUMBERS:
        raise PathError(f"{name!r}, a {kind.name}", "a number, or a vector of numbers")
    place = {"steps": tuple(steps), "owner": owner, "base": kind.name, "names": names}
    if kind.length is None:
        if index is not None:
            raise PathError(f"an index of {name!r}, which is no array", f"{name} alone")
        leaf = _text((*steps, (name, None)))
        return _Target(
            **place, field=None, attributes=(name,), first=0, last=0, joints=(), leaves=(leaf,)
        )
    return _array_target(name, index, kind, place)


def _array_target(name: str, index: str | None, kind: FieldType, place: dict) -> _Target:
    """The target of an array's entries: by index, by range, by joint names, or all of it."""
    array = _text((*place["steps"], (name, None)))
    entries: tuple[object, ...]
    joints: tuple[str, ...] = ()
    first = last = 0
    index = None if index is None else index.strip()
    if index is None and kind.length:
        first, last = 0, kind.length
    elif index is None:
        raise PathError(f"{name!r}, an array of any length", f"{name}[joint] or {name}[0:3]")
    elif re.fullmatch(r"\d+", index):
        first, last = int(index), int(index) + 1
    elif match := re.fullmatch(r"(\d+)\s*:\s*(\d+)", index):
        first, last = int(match[1]), int(match[2])
        if first >= last:
            raise PathError(f"{name}[{index}], which is empty", "first:last with first < last")
    else:
        joints = tuple(joint.strip() for joint in index.split(","))
        if ":" in index or not all(joints):
            raise PathError(f"{name}[{index}]", f"{name}[0:3], {name}[2] or {name}[joint, ...]")
        if len(set(joints)) < len(joints):
            raise PathError(f"{name}[{index}], with a joint named twice", "each joint once")
        if place["names"] is None:
            raise PathError(
                f"joint names in {name}[{index}]",
                f"indices: {place['owner']} has no field {' or '.join(_NAME_LISTS)}",
            )
    if kind.length and last > kind.length:
        raise PathError(f"{name}[{index}]", f"at most {kind.length} entries of {name}")
    entries = joints or tuple(range(first, last))
    return _Target(
        **place,
        field=name,
        attributes=(),
        first=first,
        last=last,
        joints=joints,
        leaves=tuple(f"{array}[{entry}]" for entry in entries),
    )


def _composite(path: str, steps: list[tuple[str, int | None]], type_name: str) -> _Target:
    parts = fields(type_name)
    base = next(iter(parts.values())).name if parts else ""
    if base not in FLOATS or set(parts.values()) != {FieldType(base)} or not 2 <= len(parts) <= 4:
        inside = ", ".join(f"{path}.{name}" for name in parts)
        raise PathError(
            f"{path!r}, a {type_name}", f"a number, or a vector of 2 to 4 floats: one of {inside}"
        )
    return _Target(
        steps=tuple(steps),
        owner=type_name,
        field=None,
        attributes=tuple(parts),
        first=0,
        last=0,
        joints=(),
        names=None,
        base=base,
        leaves=tuple(_text((*steps, (name, None))) for name in parts),
    )


def _field(type_name: str, name: str) -> FieldType:
    known = fields(type_name)
    if name not in known:
        close = get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise PathError(
            f"{name!r}, which {type_name} does not have", f"one of {', '.join(known)}{hint}"
        )
    return known[name]


def _element(name: str, index: str | None, kind: FieldType) -> int | None:
    if kind.length is None and index is not None:
        raise PathError(f"an index of {name!r}, which is no array", f"{name} alone")
    if kind.length is None:
        return None
    if index is None or not index.strip().isdecimal():
        raise PathError(f"{name}{'' if index is None else f'[{index}]'}", f"an element, {name}[0]")
    return int(index)


def _name_list(owner: str, steps: list[tuple[str, int | None]]) -> tuple | None:
    for name in _NAME_LISTS:
        if fields(owner).get(name) == FieldType("string", ANY_LENGTH):
            return tuple(steps), name
    return None


def _text(steps: tuple[tuple[str, int | None], ...]) -> str:
    return ".".join(name if index is None else f"{name}[{index}]" for name, index in steps)
