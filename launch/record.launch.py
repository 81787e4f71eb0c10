"""ros2 launch smac_ros record.launch.py [name:=value ...]; --show-args lists the names."""

from smac_ros.launching import describe


def generate_launch_description():
    return describe("record")
