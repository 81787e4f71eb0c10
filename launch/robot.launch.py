"""ros2 launch smac_ros robot.launch.py [name:=value ...]; --show-args lists the names."""

from smac_ros.launching import describe


def generate_launch_description():
    return describe("robot")
