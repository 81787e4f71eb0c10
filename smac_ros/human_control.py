"""The topics and services by which a human stops, pauses and takes over a policy's robot.

    emergency_stop, takeover   in: std_msgs/Bool
    control                    out: who commands, one of ``authority.STATES``
    ~/emergency_stop ~/release_emergency_stop ~/pause ~/takeover ~/resume

They are there from the node's beginning to its end, whatever the lifecycle says: an emergency stop
must be heard, and outlive, everything else.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from smac_core.errors import InputError
from smac_ros.authority import Authority
from smac_ros.base_node import latched, reliable, sensor
from smac_ros.contract import message_class
from smac_ros.policy import Policy
from smac_ros.policy_episode import PolicyEpisode

LOOK = 0.2  # s between two looks for publishers that are latched or best effort
EMERGENCY_STOP = "emergency stop"  # the fault in the diagnostics


class HumanControl:
    """Humans' orders to a policy node.

    Args:
        policy: the node's, while it is configured.
        endless: what ``~/start`` begins.
    """

    def __init__(
        self, node: Any, policy: Callable[[], Policy | None], endless: Callable[[], PolicyEpisode]
    ):
        from rclpy.clock import Clock, ClockType
        from rclpy.event_handler import SubscriptionEventCallbacks
        from std_msgs.msg import Bool, String
        from std_srvs.srv import Trigger

        self._node, self._policy, self._endless = node, policy, endless
        self._authority = Authority(node.get_name())
        self._text = String
        self._shown = self._authority.state
        self._listeners: list[Any] = []  # to a human's commands
        self._control = node.create_publisher(String, "control", latched())
        self._topics = {"emergency_stop": self._on_emergency_stop, "takeover": self._on_takeover}
        # rclpy would warn that best effort is not heard, and it is, by another subscription
        silent = SubscriptionEventCallbacks(use_default_callbacks=False)
        for topic, callback in self._topics.items():
            node.create_subscription(Bool, topic, callback, reliable(10), event_callbacks=silent)
        self._more: set[tuple[str, Any]] = set()  # topics' further subscriptions
        node.create_timer(
            LOOK, partial(self._hear_others, Bool), clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        for name in ("emergency_stop", "release_emergency_stop", "pause", "takeover", "resume"):
            serve = partial(self._serve, getattr(self, f"_{name}"))
            node.create_service(Trigger, f"~/{name}", serve)
        node.diagnostics.show(control=lambda: self.reason or "policy")
        self._publish()

    def _hear_others(self, kind: type) -> None:
        """Hear also best effort, and what latched publishers have said before this node came.

        That takes other subscriptions. Publishers that do not match them warn of it, so there are
        none before they are of use.
        """
        from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

        for topic, callback in self._topics.items():
            name = self._node.resolve_topic_name(topic)
            for profile in (i.qos_profile for i in self._node.get_publishers_info_by_topic(name)):
                if profile.reliability == ReliabilityPolicy.BEST_EFFORT:
                    qos = sensor()
                elif profile.durability == DurabilityPolicy.TRANSIENT_LOCAL:
                    qos = latched()
                else:
                    continue
                if (topic, qos.reliability) not in self._more:
                    self._more.add((topic, qos.reliability))
                    self._node.create_subscription(kind, topic, callback, qos)

    @property
    def reason(self) -> str:
        """Why the policy may not command; empty: it may."""
        return self._authority.reason

    @property
    def waits_for(self) -> str:
        """What has to come before the policy acts, when no episode does."""
        remedy = {"policy": "an episode", "emergency_stop": "~/release_emergency_stop"}
        return remedy.get(self._authority.state, "~/resume")

    # What is heard

    def _on_emergency_stop(self, message: Any) -> None:
        try:
            if message.data:
                self._halt()
        finally:  # whatever has gone wrong with the command, the stop counts
            self._authority.hear_stop(message.data, lambda: self._publishers("emergency_stop"))
            self._changed()

    def _on_takeover(self, message: Any) -> None:
        self._authority.hear_takeover(message.data, lambda: self._publishers("takeover"))
        self._changed()

    def _publishers(self, topic: str) -> str:
        """A topic and the nodes that publish on it: ROS does not say whose message it was."""
        name = self._node.resolve_topic_name(topic)
        found = self._node.get_publishers_info_by_topic(name)
        nodes = {f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in found}
        return f"topic {topic} (published by {', '.join(sorted(nodes)) or 'a node that has gone'})"

    def _serve(self, order: Callable[[], str], request: Any, response: Any) -> Any:
        try:
            response.message = order()
            response.success = True
        except InputError as error:
            response.message = str(error)
        return response

    def _emergency_stop(self) -> str:
        try:
            self._halt()
        finally:
            self._authority.stop("service ~/emergency_stop")
            self._changed()
        return f"{self.reason}; ~/release_emergency_stop, then ~/resume go on"

    def _release_emergency_stop(self) -> str:
        self._authority.release()
        self._changed()
        return f"released; {self.reason}; ~/resume goes on"

    def _pause(self) -> str:
        self._authority.pause("service ~/pause")
        self._changed()
        return f"{self.reason}; ~/resume goes on"

    def _takeover(self) -> str:
        self._authority.take_over("service ~/takeover")
        self._changed()
        return f"{self.reason}; ~/resume goes on"

    def _resume(self) -> str:
        held, policy = self.reason, self._policy()
        if self._authority.state == "human" and policy is not None and policy.human.moving:
            found = "a human's commands, which still move the robot"
            raise InputError(self._node.get_name(), "resume", found, "none: let go first")
        self._authority.resume()
        self._changed()
        if not held:
            return "nothing held it up"
        acts = policy is not None and policy.episode is not None
        return "goes on" if acts else "the policy commands, and waits for an episode or ~/start"

    # What follows

    def _halt(self) -> None:
        """First of all, and at once: the safe command."""
        policy = self._policy()
        if policy is not None and self._shown != "emergency_stop":
            policy.halt()

    def _changed(self) -> None:
        """Put another state into effect."""
        if self._authority.state == self._shown:
            return
        self._shown = self._authority.state
        self._publish()
        if self._shown == "emergency_stop":
            self._node.diagnostics.fault(EMERGENCY_STOP, self.reason)
        else:
            self._node.diagnostics.clear(EMERGENCY_STOP)
            self._node.get_logger().info(self.reason or "the policy commands")
        self.apply()

    def _publish(self) -> None:
        self._control.publish(self._text(data=self._shown))

    def apply(self) -> None:
        """Tell the policy what holds; also one that is new."""
        while self._listeners:
            self._node.destroy_subscription(self._listeners.pop())
        policy = self._policy()
        if policy is None:
            return
        if self._shown == "policy":
            policy.go_on()
            if policy.suspended:
                policy.begin(self._endless())
            return
        policy.halt(takeover=self._shown == "human")
        policy.interrupt(self.reason, suspend=self._shown != "emergency_stop")
        if self._shown == "human":
            for index, command in enumerate(policy.contract.actions):
                kind, hear = message_class(command.type), partial(policy.human.hear, index)
                listener = self._node.create_subscription(kind, command.topic, hear, sensor())
                self._listeners.append(listener)
