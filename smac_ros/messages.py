"""What travels between the nodes, in standard messages: episodes, trajectories and weights.

Episodes are JSON in a std_msgs/String. Trajectories are a sensor_msgs/PointCloud2, ROS's standard
self-describing table: a row a transition, a named and typed field a column. Weights are
safetensors bytes, which carry their own description.
"""

import array
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin

import numpy as np

from smac_core.errors import InputError

SECOND = 10**9  # ns
WEIGHTS_SCHEMA = "smac_weights/1"
INTERRUPTED = "interrupted: "  # how a reason begins when a human has stopped or taken over
POINT_TYPES = {"i4": 5, "u4": 6, "f4": 7, "f8": 8, "u1": 2}  # sensor_msgs/PointField's numbers


def stamp_ns(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return stamp.sec * SECOND + stamp.nanosec


def set_stamp(stamp: Any, ns: int) -> None:
    """Set a builtin_interfaces/Time to nanoseconds."""
    stamp.sec, stamp.nanosec = divmod(ns, SECOND)


# Episodes


class _Marker:
    """JSON with the event's name in it."""

    def to_json(self) -> str:
        return json.dumps({"event": type(self).__name__.lower(), **asdict(self)})


@dataclass(frozen=True)
class Begin(_Marker):
    """An episode is to begin.

    Attributes:
        session: which manager process counts the episodes.
        id: number of the episode in the session.
        start: stamp of its first observation, ns.
        steps: how many commands it has.
        purpose: what becomes of it: practice is labelled, a meta-test is not.
        mode: what the policy does, see ``policy_node``.
        group: episodes in one task share it, and their context with it.
        seed: of everything random in the policy.
        deterministic: the mode of the policy's distribution instead of a sample.
        latent: z for every ``step`` or ``trajectory``; the posterior's ``sample`` or ``mean``.
        task: index of the training task whose scene it is; -1: unknown.
        context: how many trajectories the posterior must be of before the policy acts.
        weights: the lowest version of the weights to act with; 0: any.
    """

    session: int
    id: int
    start: int
    steps: int
    purpose: Literal["exploration", "adapted", "meta_test"]
    mode: Literal["explore", "adapt", "exploit"]
    group: int
    seed: int
    deterministic: bool = False
    latent: Literal["step", "trajectory", "sample", "mean"] = "step"
    task: int = -1
    context: int = 0
    weights: int = 0


@dataclass(frozen=True)
class End(_Marker):
    """An episode is over.

    Attributes:
        session: as in ``Begin``.
        id: as in ``Begin``.
        steps: how many commands were given.
        last: stamp of the last observation, ns; of the last command where none followed.
        reason: ``complete``, or why not; ``interrupted: ...`` where a human stopped or took over.
        terminal: whether the robot itself ended it there: it fell.
    """

    session: int
    id: int
    steps: int
    last: int
    reason: str = "complete"
    terminal: bool = False


def parse_marker(text: str, topic: str = "episode") -> Begin | End:
    """A marker from its JSON.

    Raises:
        InputError: not JSON, another event, a field missing, unknown or of the wrong type.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(topic, "data", f"{text[:80]!r} ({error.msg})", "JSON") from None
    events = {"begin": Begin, "end": End}
    event = values.pop("event", None) if isinstance(values, dict) else None
    if event not in events:
        raise InputError(topic, "event", repr(event), "begin or end")
    kind = events[event]
    known = {field.name: field for field in fields(kind)}
    for name in values:
        if name not in known:
            raise InputError(topic, name, "an unknown field", f"one of {', '.join(known)}")
    for name, field in known.items():
        if name not in values:
            if field.default is not MISSING:
                continue
            raise InputError(topic, name, "nothing", field.type)
        value, wanted = values[name], field.type
        choices = get_args(wanted) if get_origin(wanted) is Literal else ()
        if value not in choices if choices else type(value) is not wanted:
            raise InputError(topic, name, repr(value), getattr(wanted, "__name__", wanted))
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(topic, "fields", error, ", ".join(known)) from None


# Trajectories


@dataclass(frozen=True)
class Trajectory:
    """A labelled trajectory of n transitions.

    Attributes:
        session, episode, group: of the episode, see ``Begin``.
        sequence: counts the labeler's messages, so that a lost one is noticed.
        task: whose buffers receive it, and whose offline history labelled it.
        exploration: whether z came from the prior (only such trajectories feed the encoder).
        weights: version of the weights that labelled it.
        stamp: of the first observation, ns.
        times: of each transition's observation after the first one, s [n].
        observations, actions, rewards, next_observations, terminals: [n, ds], [n, da], [n],
            [n, ds], [n], float32, raw units.
    """

    session: int
    episode: int
    group: int
    sequence: int
    task: int
    exploration: bool
    weights: int
    stamp: int
    times: np.ndarray
    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminals: np.ndarray

    def __len__(self) -> int:
        return len(self.rewards)


_CONSTANT = ("session", "episode", "group", "sequence", "task", "exploration", "weights")
_ARRAYS = ("observations", "actions", "rewards", "next_observations", "terminals")


def trajectory_dtype(observation_dim: int, action_dim: int) -> np.dtype:
    """One transition; packed, as PointCloud2 describes it."""
    return np.dtype(
        [
            ("session", "<u4"),
            ("episode", "<u4"),
            ("group", "<u4"),
            ("sequence", "<u4"),
            ("task", "<i4"),
            ("exploration", "<u4"),
            ("weights", "<u4"),
            ("times", "<f8"),
            ("observations", "<f4", (observation_dim,)),
            ("actions", "<f4", (action_dim,)),
            ("rewards", "<f4"),
            ("next_observations", "<f4", (observation_dim,)),
            ("terminals", "<f4"),
        ]
    )


def pack_trajectory(trajectory: Trajectory, frame: str = "") -> Any:
    """A sensor_msgs/PointCloud2 of one trajectory."""
    from sensor_msgs.msg import PointCloud2, PointField

    observation_dim = trajectory.observations.shape[1]
    dtype = trajectory_dtype(observation_dim, trajectory.actions.shape[1])
    rows = np.empty(len(trajectory), dtype)
    for name in (*_CONSTANT, "times", *_ARRAYS):
        rows[name] = getattr(trajectory, name)
    columns = []
    for name in dtype.names:
        column, offset = dtype.fields[name]
        kind, count = column.base.str[1:], math.prod(column.shape)
        number = POINT_TYPES[kind]
        columns.append(PointField(name=name, offset=offset, datatype=number, count=count))
    message = PointCloud2(
        height=1,
        width=len(rows),
        fields=columns,
        is_bigendian=False,
        point_step=dtype.itemsize,
        row_step=dtype.itemsize * len(rows),
        data=array.array("B", rows.tobytes()),
        is_dense=True,
    )
    message.header.frame_id = frame
    set_stamp(message.header.stamp, trajectory.stamp)
    return message


def unpack_trajectory(
    message: Any, observation_dim: int, action_dim: int, topic: str = "labelled_trajectories"
) -> Trajectory:
    """The inverse of ``pack_trajectory``.

    Raises:
        InputError: other columns, other sizes, no rows, rows of several trajectories, numbers that
            are not finite.
    """
    dtype = trajectory_dtype(observation_dim, action_dim)
    found = [(f.name, f.offset, f.datatype, f.count) for f in message.fields]
    wanted = []
    for name in dtype.names:
        column, offset = dtype.fields[name]
        kind = POINT_TYPES[column.base.str[1:]]
        wanted.append((name, offset, kind, math.prod(column.shape)))
    for have, want in zip(found, wanted, strict=False):
        if have != want:
            raise InputError(topic, f"field {have[0]}", have, want)
    size = message.width * message.height * dtype.itemsize
    if len(found) != len(wanted) or message.is_bigendian or message.point_step != dtype.itemsize:
        raise InputError(topic, "fields", found, wanted)
    if len(message.data) != size or not size:
        raise InputError(topic, "data", f"{len(message.data)} bytes", f"{size or 'some'} bytes")
    rows = np.frombuffer(message.data, dtype)
    for name in _CONSTANT:
        if (rows[name] != rows[name][0]).any():
            raise InputError(topic, name, "several values", "one: a message is one trajectory")
    for name in _ARRAYS:
        if not np.isfinite(rows[name]).all():
            raise InputError(topic, name, "NaN or infinity", "finite numbers")
    constant: dict[str, Any] = {name: int(rows[name][0]) for name in _CONSTANT}
    constant["exploration"] = bool(constant["exploration"])
    arrays = {name: np.ascontiguousarray(rows[name]) for name in ("times", *_ARRAYS)}
    return Trajectory(stamp=stamp_ns(message.header.stamp), **constant, **arrays)


# Weights


def pack_weights(tensors: Mapping[str, Any], description: Mapping[str, Any]) -> Any:
    """A std_msgs/UInt8MultiArray of safetensors bytes; ``description`` is JSON-able.

    ``description`` has at least ``version`` (int, grows), ``run`` (str), ``observation_dim``,
    ``action_dim``, ``networks`` (of the configuration) and ``contract`` (text or None).
    """
    from safetensors.torch import save
    from std_msgs.msg import MultiArrayDimension, UInt8MultiArray

    metadata = {"schema": WEIGHTS_SCHEMA, "description": json.dumps(dict(description))}
    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    message = UInt8MultiArray(data=array.array("B", content))
    label = f"{WEIGHTS_SCHEMA} version {description['version']}"
    message.layout.dim = [MultiArrayDimension(label=label, size=len(content), stride=len(content))]
    return message


def describe_weights(message: Any, topic: str = "weights") -> dict[str, Any]:
    """What a weights message says about itself, without reading the tensors.

    Raises:
        InputError: not safetensors, or of another schema.
    """
    content = memoryview(message.data).cast("B")
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(bytes(content[8 : 8 + length]))
        metadata = header["__metadata__"]
        schema = metadata["schema"]
    except (ValueError, KeyError, TypeError):
        raise InputError(topic, "data", "no safetensors header", WEIGHTS_SCHEMA) from None
    if schema != WEIGHTS_SCHEMA:
        raise InputError(topic, "schema", schema, WEIGHTS_SCHEMA)
    try:
        return json.loads(metadata["description"])
    except (ValueError, KeyError, TypeError):
        raise InputError(topic, "description", "no JSON", "JSON") from None


def unpack_weights(message: Any, topic: str = "weights") -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors by name (CPU), and the description.

    Raises:
        InputError: damaged, or of another schema.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    description = describe_weights(message, topic)
    try:
        return load(bytes(message.data)), description
    except SafetensorError as error:
        raise InputError(topic, "data", error, "whole safetensors bytes") from None
