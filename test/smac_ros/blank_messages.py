"""Empty messages of every standard type, as rosbags has them: tests of messages without ROS."""

from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

TYPESTORE = get_typestore(Stores.ROS2_JAZZY)

POSE = "geometry_msgs/msg/PoseStamped"
JOINTS = "sensor_msgs/msg/JointState"
TWIST = "geometry_msgs/msg/TwistStamped"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
NUMBERS = "std_msgs/msg/Float64MultiArray"


def blank(type_name: str) -> Any:
    _, definition = TYPESTORE.fielddefs[type_name]
    values = {name: _blank_value(kind) for name, kind in definition}
    return TYPESTORE.types[type_name](**values)


def _blank_value(kind: tuple) -> Any:
    node, content = kind
    if node == Nodetype.NAME:
        return blank(content)
    if node == Nodetype.BASE:
        return {"string": "", "bool": False}.get(content[0], 0)
    (element, what), length = content
    if element == Nodetype.BASE and what[0] != "string":
        return np.zeros(length if node == Nodetype.ARRAY else 0, what[0])
    return []


def through_a_bag(message: Any, type_name: str) -> Any:
    """The message as it comes back from a recording."""
    return TYPESTORE.deserialize_cdr(TYPESTORE.serialize_cdr(message, type_name), type_name)


def stamped(type_name: str, stamp_ns: int) -> Any:
    message = blank(type_name)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    return message


def pose(x: float, y: float, z: float, stamp_ns: int = 0) -> Any:
    message = stamped(POSE, stamp_ns)
    position = message.pose.position
    position.x, position.y, position.z = x, y, z
    return message


def joints(values: dict[str, float], stamp_ns: int = 0, part: str = "position") -> Any:
    message = stamped(JOINTS, stamp_ns)
    message.name = list(values)
    setattr(message, part, np.array(list(values.values()), np.float64))
    return message
