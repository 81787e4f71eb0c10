"""Paths into messages: what they read, what they write, and what they refuse."""

import math
import sys
import types

import numpy as np
import pytest
from blank_messages import JOINTS, NUMBERS, POSE, TRAJECTORY, TWIST, blank, joints, pose

from smac_ros.message_paths import (
    MessageError,
    base_type,
    compile_reader,
    compile_writer,
    leaves,
    named_arrays,
    prepare,
    width,
)
from smac_ros.message_types import (
    FieldType,
    PathError,
    fields,
    has_header,
    message_class,
)
from smac_ros.messages import stamp_ns


def read(type_name, path, message):
    out = np.full(width(type_name, path), np.nan)
    compile_reader(type_name, path)(message, out)
    return out.tolist()


class TestReading:
    def test_vector_in_the_order_of_its_definition(self):
        assert read(POSE, "pose.position", pose(1.0, 2.0, 3.0)) == [1.0, 2.0, 3.0]

    def test_quaternion_is_x_y_z_w(self):
        message = blank(POSE)
        q = message.pose.orientation
        q.x, q.y, q.z, q.w = 0.1, 0.2, 0.3, 0.4
        assert read(POSE, "pose.orientation", message) == [0.1, 0.2, 0.3, 0.4]
        assert leaves(POSE, "pose.orientation")[3] == "pose.orientation.w"

    def test_one_number(self):
        assert read(POSE, "pose.position.y", pose(1.0, 2.0, 3.0)) == [2.0]

    def test_field_at_the_top(self):
        assert read("geometry_msgs/msg/Vector3", "z", types.SimpleNamespace(z=4.0)) == [4.0]

    def test_joints_by_name_together_and_apart(self):
        message = joints({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})
        assert read(JOINTS, "position[b, c]", message) == [2.0, 3.0]
        assert read(JOINTS, "position[d,a]", message) == [4.0, 1.0]
        assert read(JOINTS, "position[c]", message) == [3.0]

    def test_joint_names_with_other_characters(self):
        message = joints({"panda/joint.1": 5.0, "left-finger": 6.0})
        path = "position[left-finger, panda/joint.1]"
        assert read(JOINTS, path, message) == [6.0, 5.0]

    def test_joints_are_searched_again_when_their_order_changes(self):
        out = np.zeros(2)
        reader = compile_reader(JOINTS, "position[a, b]")
        for message in (
            joints({"a": 1.0, "b": 2.0}),
            joints({"b": 4.0, "a": 3.0}),
            joints({"x": 0.0, "a": 5.0, "b": 6.0}),
        ):
            reader(message, out)
            assert out.tolist() == [message.position[message.name.index(n)] for n in "ab"]

    def test_names_that_one_message_object_changes_in_place_are_seen(self):
        message = joints({"a": 1.0, "b": 2.0})
        out = np.zeros(1)
        reader = compile_reader(JOINTS, "position[a]")
        reader(message, out)
        message.name.reverse()
        reader(message, out)
        assert out[0] == 2.0

    def test_entries_by_index_and_range(self):
        message = types.SimpleNamespace(data=np.arange(10.0))
        assert read(NUMBERS, "data[2]", message) == [2.0]
        assert read(NUMBERS, "data[4:7]", message) == [4.0, 5.0, 6.0]
        assert leaves(NUMBERS, "data[4:6]") == ("data[4]", "data[5]")

    def test_float32_arrays(self):
        message = types.SimpleNamespace(ranges=np.arange(9, dtype=np.float32))
        assert read("sensor_msgs/msg/LaserScan", "ranges[0:8]", message) == list(range(8))

    def test_whole_array_of_fixed_length(self):
        type_name = "geometry_msgs/msg/PoseWithCovariance"
        message = blank(type_name)
        message.covariance[:] = range(36)
        assert read(type_name, "covariance", message) == list(range(36))

    def test_elements_of_lists_of_messages(self):
        message = blank(TRAJECTORY)
        message.joint_names = ["right_j0", "right_j3"]
        message.points = [blank("trajectory_msgs/msg/JointTrajectoryPoint")]
        message.points[0].positions = np.array([0.5, 0.75])
        assert read(TRAJECTORY, "points[0].positions[right_j3]", message) == [0.75]
        poses = types.SimpleNamespace(poses=[pose(1.0, 2.0, 3.0).pose, pose(4.0, 5.0, 6.0).pose])
        path = "poses[1].position"
        assert read("geometry_msgs/msg/PoseArray", path, poses) == [4.0, 5.0, 6.0]
        assert leaves("geometry_msgs/msg/PoseArray", path)[0] == "poses[1].position.x"

    def test_element_that_is_a_vector_itself(self):
        corners = [types.SimpleNamespace(x=1.0, y=2.0, z=3.0)]
        message = types.SimpleNamespace(polygon=types.SimpleNamespace(points=corners))
        path = "polygon.points[0]"
        assert read("geometry_msgs/msg/PolygonStamped", path, message) == [1.0, 2.0, 3.0]

    def test_booleans_and_integers_read_as_numbers(self):
        assert read("std_msgs/msg/Bool", "data", types.SimpleNamespace(data=True)) == [1.0]
        assert read("std_msgs/msg/Int8", "data", types.SimpleNamespace(data=-3)) == [-3.0]

    def test_nan_is_passed_through(self):
        assert math.isnan(read(JOINTS, "position[a]", joints({"a": math.nan}))[0])

    def test_stamp(self):
        assert stamp_ns(pose(0.0, 0.0, 0.0, 12_000_000_345).header.stamp) == 12_000_000_345


class TestMessagesThatLackSomething:
    @pytest.mark.parametrize(
        ("type_name", "path", "message", "words"),
        [
            (JOINTS, "position[b]", joints({"a": 1.0}), ["position[b]", "'b'", "['a']"]),
            (JOINTS, "velocity[a]", joints({"a": 1.0}), ["velocity[a]", "0 entries, 1"]),
            (NUMBERS, "data[0:7]", types.SimpleNamespace(data=[1.0]), ["1 entries, 7"]),
            (TRAJECTORY, "points[0].positions[a]", joints({}), ["points[0].positions[a]"]),
            (TRAJECTORY, "points[0].positions[0]", blank(TRAJECTORY), ["index out of range"]),
            (POSE, "pose.position", types.SimpleNamespace(), ["pose.position", "attribute"]),
        ],
    )
    def test_error_names_path_and_problem(self, type_name, path, message, words):
        with pytest.raises(MessageError) as error:
            read(type_name, path, message)
        for word in words:
            assert word in str(error.value)

    def test_a_later_good_message_is_read_after_a_bad_one(self):
        reader, out = compile_reader(JOINTS, "position[a]"), np.zeros(1)
        reader(joints({"a": 1.0}), out)
        with pytest.raises(MessageError):
            reader(joints({"other": 9.0}), out)
        reader(joints({"x": 0.0, "a": 2.0}), out)
        assert out[0] == 2.0


class TestRefusedPaths:
    @pytest.mark.parametrize(
        ("type_name", "path", "found", "expected"),
        [
            (POSE, "pose.positoin", "positoin", "did you mean 'position'"),
            (POSE, "pose", "geometry_msgs/msg/Pose", "pose.position"),
            (POSE, "header.stamp", "builtin_interfaces/msg/Time", "floats"),
            (POSE, "header.frame_id", "string", "a number"),
            (POSE, "header.frame_id.x", "'frame_id', a string", "a message"),
            (POSE, "pose.position.x[0]", "no array", "x alone"),
            (POSE, "pose[0].position", "no array", "pose alone"),
            (JOINTS, "position", "any length", "position[joint]"),
            (JOINTS, "position[a, a]", "named twice", "once"),
            (JOINTS, "position[a,]", "position[a,]", "position[joint, ...]"),
            (JOINTS, "position[1:]", "position[1:]", "position[0:3]"),
            (JOINTS, "position[]", "position[]", "position[0:3]"),
            (JOINTS, "position[3:3]", "empty", "first < last"),
            (JOINTS, "name[0]", "string", "a number"),
            (NUMBERS, "data[joint]", "joint names", "indices"),
            (TRAJECTORY, "points.positions[a]", "points", "points[0]"),
            ("geometry_msgs/msg/PoseWithCovariance", "covariance[36]", "36", "at most 36"),
            (POSE, "pose..position", "pose..position", "a path"),
            (POSE, "", "''", "a path"),
            ("sensor_msgs/msg/JointStat", "position[a]", "JointStat", "sensor_msgs/msg/JointState"),
            ("JointState", "position[a]", "JointState", "sensor_msgs/msg/JointState"),
        ],
    )
    def test_error_says_what_would_be_right(self, type_name, path, found, expected):
        with pytest.raises(PathError) as error:
            compile_reader(type_name, path)
        assert found in error.value.found
        assert expected in error.value.expected


class TestWriting:
    @pytest.mark.parametrize(
        ("type_name", "path", "values"),
        [
            (TWIST, "twist.linear", [1.0, 2.0, 3.0]),
            (TWIST, "twist.angular.z", [0.5]),
            (JOINTS, "effort[a, b, c]", [1.0, 2.0, 3.0]),
            (JOINTS, "position[a]", [4.0]),
            (NUMBERS, "data[0:4]", [1.0, 2.0, 3.0, 4.0]),
            (NUMBERS, "data[0]", [1.0]),
            (TRAJECTORY, "points[0].velocities[b, a]", [1.0, 2.0]),
            ("geometry_msgs/msg/PoseArray", "poses[1].orientation", [0.0, 0.0, 0.0, 1.0]),
            ("geometry_msgs/msg/PoseWithCovariance", "covariance[2:4]", [7.0, 8.0]),
        ],
    )
    def test_what_is_written_is_read(self, type_name, path, values):
        message = blank(type_name)
        prepare(message, type_name, path, blank)
        compile_writer(type_name, path)(message, values)
        assert read(type_name, path, message) == values

    def test_two_paths_share_the_list_of_names(self):
        message = blank(JOINTS)
        for path in ("position[a, b]", "velocity[b, a]"):
            prepare(message, JOINTS, path, blank)
        assert message.name == ["a", "b"]
        compile_writer(JOINTS, "velocity[b, a]")(message, [1.0, 2.0])
        assert message.velocity.tolist() == [2.0, 1.0]

    def test_number_of_values_is_checked(self):
        message = blank(TWIST)
        with pytest.raises(ValueError, match="shorter"):
            compile_writer(TWIST, "twist.linear")(message, [1.0])


class TestDefinitions:
    def test_types_of_fields(self):
        known = fields("geometry_msgs/msg/PoseWithCovarianceStamped")
        assert known["pose"] == FieldType("geometry_msgs/msg/PoseWithCovariance")
        assert fields(known["pose"].name)["covariance"] == FieldType("float64", 36)
        assert fields(JOINTS)["name"] == FieldType("string", 0)
        assert base_type("sensor_msgs/msg/LaserScan", "ranges[0]") == "float32"

    def test_header(self):
        assert has_header(JOINTS) and not has_header(NUMBERS)

    def test_named_arrays(self):
        found = named_arrays(TRAJECTORY, "points[0].positions[a, b]")
        assert found == ("joint_names", "points[0].positions", ("a", "b"))
        assert named_arrays(NUMBERS, "data[0]") is None

    def test_types_of_installed_packages_are_imported(self, monkeypatch):
        class Load:
            @staticmethod
            def get_fields_and_field_types():
                return {
                    "header": "std_msgs/Header",
                    "joint_names": "sequence<string>",
                    "forces": "sequence<double, 8>",
                    "matrix": "float[9]",
                    "on": "boolean",
                    "label": "string<12>",
                    "tip": "geometry_msgs/Vector3",
                }

        module = types.ModuleType("gauge_msgs.msg")
        module.Load = Load
        monkeypatch.setitem(sys.modules, "gauge_msgs", types.ModuleType("gauge_msgs"))
        monkeypatch.setitem(sys.modules, "gauge_msgs.msg", module)
        name = "gauge_msgs/msg/Load"
        assert message_class(name) is Load
        assert has_header(name)
        assert fields(name)["matrix"] == FieldType("float32", 9)
        assert fields(name)["on"] == FieldType("bool")
        message = types.SimpleNamespace(
            joint_names=["l", "r"], forces=[3.0, 4.0], tip=types.SimpleNamespace(x=1, y=2, z=3)
        )
        assert read(name, "forces[r, l]", message) == [4.0, 3.0]
        assert read(name, "tip", message) == [1.0, 2.0, 3.0]

    def test_package_that_is_not_installed(self):
        with pytest.raises(PathError, match="workspace sourced"):
            fields("nowhere_msgs/msg/Thing")


def test_messages_of_rclpy():
    pytest.importorskip("rclpy")
    state = message_class(JOINTS)(name=["a", "b"], position=[1.0, 2.0])
    assert read(JOINTS, "position[b, a]", state) == [2.0, 1.0]
    assert read(JOINTS, "position[a, b]", state) == [1.0, 2.0]
    trajectory = message_class(TRAJECTORY)()
    path = "points[0].positions[a, b]"
    prepare(trajectory, TRAJECTORY, path, lambda name: message_class(name)())
    compile_writer(TRAJECTORY, path)(trajectory, [0.25, 0.5])
    assert list(trajectory.points[0].positions) == [0.25, 0.5]
    assert read(TRAJECTORY, path, trajectory) == [0.25, 0.5]
    assert read(POSE, "pose.orientation", message_class(POSE)()) == [0.0, 0.0, 0.0, 1.0]
