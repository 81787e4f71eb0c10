"""What people look at: the Sawyer scene as markers, and the arm's links as transforms.

The pictures are made of the primitives that the simulation itself is made of.
"""

from typing import Any

from sim.sawyer.behaviors import (
    BUTTON_TOLERANCE,
    CARRY_GOAL,
    CARRY_TOLERANCE,
    DRAWER_TOLERANCE,
    DRAWER_TRAVEL,
    PRESSED,
    STACK_X,
    STACK_Y,
    button_z,
    handle_y,
    tray_goal,
)
from sim.sawyer.engine import pybullet
from sim.sawyer.scene import LOWER_DRAWER_Z, UPPER_DRAWER_Z, Scene

CUBE, SPHERE, CYLINDER = 1, 2, 3  # visualization_msgs/Marker's types
DELETE_ALL = 3  # its action
GOAL_COLOR = (0.1, 0.8, 0.2, 0.35)  # translucent green
_UPRIGHT = (0.0, 0.0, 0.0, 1.0)


def set_pose(pose: Any, position: tuple[float, ...], orientation: tuple[float, ...]) -> None:
    """Write (x, y, z) and (x, y, z, w), world frame, into a geometry_msgs/Pose."""
    p, o = pose.position, pose.orientation
    p.x, p.y, p.z = position
    o.x, o.y, o.z, o.w = orientation


def goal(task: dict) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """Where a task's behavior is achieved: marker type, middle (3), size (3), m.

    The region within which the hand, a body, a handle or the button has to come.
    """
    side = task["side"]
    ball = (2 * CARRY_TOLERANCE,) * 3
    match task["behavior"]:
        case "object_in_tray":
            return SPHERE, tray_goal(task), ball
        case "open_handle_drawer" | "close_handle_drawer" as behavior:
            drawer = task["handle_drawer"]
            y = handle_y(side, drawer["goal"] if behavior == "open_handle_drawer" else 0.0)
            z = UPPER_DRAWER_Z if task["bottom_drawer"] is not None else LOWER_DRAWER_Z
            return CUBE, (STACK_X, y, z), (0.175, 2 * DRAWER_TOLERANCE, 0.02)
        case "open_button_drawer":
            middle = (STACK_X + DRAWER_TRAVEL, STACK_Y * side, LOWER_DRAWER_Z)
            return CUBE, middle, (0.175, 0.15, 0.05)
        case "press_button":
            middle = (STACK_X, STACK_Y * side, button_z(task) - PRESSED)
            return CYLINDER, middle, (0.06, 0.06, 2 * BUTTON_TOLERANCE)
    return SPHERE, CARRY_GOAL, ball


def _size(kind: int, size: tuple[float, ...]) -> tuple[int, tuple[float, float, float]]:
    """A marker's type and scale of PyBullet's geometry type and dimensions."""
    if kind == pybullet.GEOM_BOX:
        return CUBE, tuple(size)
    if kind == pybullet.GEOM_CYLINDER:
        return CYLINDER, (2 * size[1], 2 * size[1], size[0])
    if kind == pybullet.GEOM_SPHERE:
        return SPHERE, (2 * size[0],) * 3
    raise ValueError(f"geometry type: found {kind}, expected a box, a cylinder or a sphere")


class SceneMarkers:
    """A MarkerArray of all that a task has on the table, and of its goal."""

    def __init__(self, scene: Scene, header: Any) -> None:
        """``header``: the std_msgs/Header that all markers are to have."""
        self._scene, self._header = scene, header
        self._task: dict | None = None
        self._names: list[str] = []
        self._parts: list[tuple] = []  # marker, body, link, pose in the link
        self._markers: list[Any] = []

    def message(self, task: dict) -> Any:
        """The scene now, in ``task``.

        Every message is a whole picture that replaces the last one: a viewer that missed the
        first of a task would else show the last task's bodies for good.
        """
        from visualization_msgs.msg import MarkerArray

        if task is not self._task:
            self._begin(task)
        frames = {name: self._scene.frames(name) for name in self._names}
        for marker, name, link, xyz, xyzw in self._parts:
            pose = pybullet.multiplyTransforms(*frames[name][link + 1], xyz, xyzw)
            set_pose(marker.pose, *pose)
        return MarkerArray(markers=self._markers)

    def _begin(self, task: dict) -> None:
        from visualization_msgs.msg import Marker

        self._task, self._parts = task, []
        self._names = ["table", *self._scene.present()]
        for name in self._names:
            for number, visual in enumerate(self._scene.visuals(name)):
                link, kind, size, xyz, xyzw, color = visual
                marker = self._marker(name, number, *_size(kind, size), color)
                self._parts.append((marker, name, link, xyz, xyzw))
        kind, middle, size = goal(task)
        aim = self._marker("goal", 0, kind, size, GOAL_COLOR)
        set_pose(aim.pose, middle, _UPRIGHT)
        clear = Marker(header=self._header, action=DELETE_ALL)
        self._markers = [clear, *(part[0] for part in self._parts), aim]

    def _marker(self, name: str, number: int, kind: int, size: tuple, color: tuple) -> Any:
        from visualization_msgs.msg import Marker

        marker = Marker(header=self._header, ns=name, id=number, type=kind, action=Marker.ADD)
        marker.scale.x, marker.scale.y, marker.scale.z = size
        c = marker.color
        c.r, c.g, c.b, c.a = color
        return marker


def link_transforms(scene: Scene, header: Any) -> list[Any]:
    """A geometry_msgs/TransformStamped for every link of the arm, with ``header``'s frame.

    Child frames have the names of the URDF's links.
    """
    from geometry_msgs.msg import TransformStamped

    transforms = []
    for name, (position, orientation) in scene.arm.link_poses().items():
        transform = TransformStamped(header=header, child_frame_id=name)
        t, r = transform.transform.translation, transform.transform.rotation
        t.x, t.y, t.z = position
        r.x, r.y, r.z, r.w = orientation
        transforms.append(transform)
    return transforms
