"""Answers every JointState with a command of four numbers: the least that a control node costs.

``smac bench policy_latency`` holds the policy node against it.
"""

from typing import Any

from sensor_msgs.msg import JointState

from smac_ros.base_node import SmacNode, reliable, run, sensor


class EchoNode(SmacNode):
    """`echo/joint_states` in, `echo/joint_command` out, with the observation's stamp."""

    def __init__(self, **arguments: Any):
        super().__init__("echo", **arguments)

    def configure(self) -> None:
        self._answer = JointState(name=[f"j{i}" for i in range(4)], position=[0.0] * 4)
        self._out = self.create_publisher(JointState, "echo/joint_command", reliable(1))
        self.create_subscription(JointState, "echo/joint_states", self._reply, sensor())

    def _reply(self, message: JointState) -> None:
        self._answer.header.stamp = message.header.stamp
        self._out.publish(self._answer)


def main() -> None:
    """Entry point of the executable."""
    run(EchoNode)


if __name__ == "__main__":
    main()
