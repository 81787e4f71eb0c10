"""The operator: a human's keyboard or joystick gives rewards, stops, pauses, takes over, resumes.

Topics, services and parameters: doc/nodes.md. What keys and buttons do: config/operators.
"""

import time
from functools import partial
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import Trigger

from smac_core.errors import InputError
from smac_ros.base_node import Parameter, SmacNode, latched, reliable, run, sensor
from smac_ros.command_topics import MATCHING
from smac_ros.contract import MessageError, load_contract, message_class
from smac_ros.contract_commands import REPEATED
from smac_ros.jogging import Jogging
from smac_ros.keyboard import Keyboard
from smac_ros.message_paths import compile_writer, prepare
from smac_ros.messages import SECOND, Begin, parse_marker, set_stamp, stamp_ns
from smac_ros.operator_mapping import INPUTS, Controls, describe, load_mapping

FAREWELL = Duration(seconds=0.2)  # for the last command to arrive
RETRY = 0.2  # s between two tries to release an emergency stop,
TRIES = 5  # until its topic's word has arrived
SERVICES = ("emergency_stop", "release_emergency_stop", "pause", "takeover", "resume")


class OperatorNode(SmacNode):
    """One human at one robot's policy."""

    parameters = (
        Parameter("contract", "sawyer_sim", "Name or path of the robot's contract."),
        Parameter("input", "keyboard", "What the operator holds.", choices=INPUTS),
        Parameter(
            "mapping", "", "What keys do: a name in config/operators, or a .yaml; empty: as input."
        ),
        Parameter("policy", "policy", "Name of the policy's node."),
        Parameter("rewards", True, "Whether to publish rewards; else the robot does.", live=True),
        Parameter("success_reward", 1.0, "While success is shown.", -1e9, 1e9, live=True),
        Parameter("otherwise_reward", 0.0, "While it is not.", -1e9, 1e9, live=True),
        Parameter("key_hold", 0.3, "Seconds that a key counts as held after it came.", 0.05, 2.0),
        Parameter("joy_timeout", 0.5, "Seconds without a Joy until nobody holds it.", 0.05, 10.0),
    )

    def __init__(self, **arguments: Any):
        super().__init__("operator", **arguments)
        self._keyboard: Keyboard | None = None
        self._commands: list[Any] = []  # publishers, in a takeover
        self._rounds: list[Any] = []
        self._active = False

    # Lifecycle

    def configure(self) -> None:
        self._contract = contract = load_contract(self.setting("contract"))
        kind = self.setting("input")
        mapping = load_mapping(self.setting("mapping"), kind, contract)
        self._controls = Controls(
            mapping, contract, self.setting("key_hold"), self.setting("joy_timeout")
        )
        self._kinds = {c.type: message_class(c.type) for c in contract.actions}
        self._jogging = Jogging(contract, self._kinds)
        self._observation = np.full(contract.observation_dim, np.nan)
        self._newest, self._came = 0, 0.0  # stamp, ns, of the newest observation; when it came
        self._rewarded = 0  # stamp of the last reward, ns
        self._control = ""
        self._last_step: float | None = None
        self._jogged = 0.0  # when the operator last jogged
        self._heard_from = 0.0  # when the robot has found the operator's commands
        self._make_reward()
        self._connect()
        if kind == "keyboard":
            self._keyboard = Keyboard(
                lambda key: self._soon(partial(self._on_key, key)), lambda: self._soon(self._gone)
            )
        self.diagnostics.show(
            control=lambda: self._control or "no policy",
            success=lambda: self._controls.shows_success(time.monotonic()),
        )
        self._help(mapping)

    def _make_reward(self) -> None:
        reward = self._contract.reward
        self._reward_publisher = None
        if reward is None or not self._controls.gives_rewards:
            return
        (path,) = self._contract.file.reward.fields
        kind = message_class(reward.type)
        self._reward = kind()
        prepare(self._reward, reward.type, path.path, lambda name: message_class(name)())
        self._write_reward = compile_writer(reward.type, path.path)
        self._write_success = None
        if reward.type == "sensor_msgs/msg/JointState" and path.path.startswith("position["):
            prepare(self._reward, reward.type, "position[success]", message_class)
            self._write_success = compile_writer(reward.type, "position[success]")
        self._scale, self._offset = path.scale, path.offset
        self._reward_publisher = self.own("publisher", kind, reward.topic, reliable(10))

    def _connect(self) -> None:
        contract = self._contract
        for index, stream in enumerate(contract.observations):
            take = partial(self._on_observation, index)
            self.own("subscription", message_class(stream.type), stream.topic, take, sensor())
        for index, command in enumerate(contract.actions):
            take = partial(self._on_command, index)
            self.own("subscription", self._kinds[command.type], command.topic, take, sensor())
        self.own("subscription", String, "episode", self._on_episode, reliable(100))
        self.own("subscription", String, "control", self._on_control, latched())
        if self.setting("input") == "joystick":
            self.own("subscription", Joy, "joy", self._on_joy, sensor())
        self._stop = self.own("publisher", Bool, "emergency_stop", latched())
        self._terminated = self.own("publisher", Header, "terminated", reliable(10))
        policy = self.setting("policy")
        self._askers = {
            name: self.own("client", Trigger, f"{policy}/{name}") for name in SERVICES
        }

    def _help(self, mapping: Any) -> None:
        rows = describe(mapping, self._contract)
        width = max(len(what) for what, _ in rows)
        lines = "\n".join(f"  {what:<{width}}  {does}" for what, does in rows)
        self.get_logger().info(f"what does what:\n{lines}")

    def activate(self) -> None:
        self._active, self._since = True, time.monotonic()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        period = 1 / self._contract.rate
        self._rounds = [self.create_timer(period, self._on_period, clock=steady)]
        if self._by_clock:
            self._rounds.append(self.create_timer(period / 2, self._on_reward_due, clock=steady))

    def deactivate(self) -> None:
        self._active = False
        if self._control == "human" and self._jogging.started:
            self._publish(self._jogging.stand(self._now()))
            for publisher in self._commands:
                publisher.wait_for_all_acked(FAREWELL)
        self._let_go()
        for timer in self._rounds:
            self.destroy_timer(timer)
        self._rounds.clear()

    def cleanup(self) -> None:
        if self._keyboard is not None:
            self._keyboard.close()
            self._keyboard = None

    # What is heard

    @property
    def _by_clock(self) -> bool:
        """Whether a policy's ticks are times of a clock, and no stamps of observations."""
        stamped = any(stream.time == "header" for stream in self._contract.observations)
        return self._contract.trigger == "timer" or not stamped

    def _now(self) -> int:
        """The robot's time, ns: stamps go by it, and its clock may be far from this one's."""
        if self._by_clock or not self._newest:
            return self.get_clock().now().nanoseconds
        return self._newest + round((time.monotonic() - self._came) * SECOND)

    def _on_observation(self, index: int, message: Any) -> None:
        stream = self._contract.observations[index]
        try:
            stream.read(message, self._observation)
        except MessageError as error:
            self.diagnostics.count("unreadable observations", f"{stream.topic}: {error}")
            return
        if stream.time != "header":
            return
        stamp = stamp_ns(message.header.stamp)
        if stamp > self._newest or stamp < self._newest - SECOND:  # the robot was started again
            if stamp < self._newest:
                self._rewarded = 0
            self._newest, self._came = stamp, time.monotonic()
            # A control step lasts three quarters of a period at least and ends with the stamp of
            # an observation: with a reward each quarter of a period every step has one.
            if not self._by_clock and stamp >= self._rewarded + self._contract.period_ns // 4:
                self._give_reward(stamp)

    def _on_command(self, index: int, message: Any) -> None:
        try:
            self._jogging.hear(index, message)
        except MessageError as error:
            topic = self._contract.actions[index].topic
            self.diagnostics.count("unreadable commands", f"{topic}: {error}")

    def _on_episode(self, message: String) -> None:
        try:
            marker = parse_marker(message.data)
        except InputError as error:
            self.diagnostics.count("markers refused", str(error))
            return
        if isinstance(marker, Begin):
            self._controls.reset()
            self._say(f"episode {marker.id} begins: {marker.purpose}, {marker.mode}")
        else:
            self._say(f"episode {marker.id} is over: {marker.reason}")

    def _on_control(self, message: String) -> None:
        before, self._control = self._control, message.data
        if before == message.data:
            return
        self._say(f"now commands: {message.data}")
        if message.data == "human":
            self._jogging.begin()
            self._last_step, self._heard_from = None, time.monotonic() + MATCHING
            for command in self._contract.actions:
                kind = self._kinds[command.type]
                self._commands.append(self.create_publisher(kind, command.topic, reliable(1)))
        elif before == "human":
            self._let_go()

    def _let_go(self) -> None:
        while self._commands:
            self.destroy_publisher(self._commands.pop())

    def _on_joy(self, message: Joy) -> None:
        now = time.monotonic()
        orders = self._controls.hear(message.buttons, message.axes, now)
        for order in orders:
            self._obey(order)
        if lacking := self._controls.lacks():
            self.diagnostics.fault("joystick", f"the joystick lacks {lacking}: see mapping")

    def _soon(self, work: Any) -> None:
        """From the keyboard's thread to the node's."""
        if (executor := self.executor) is not None:
            executor.create_task(work)

    def _on_key(self, key: str) -> None:
        before = self._controls.shows_success(time.monotonic())
        for order in self._controls.type(key, time.monotonic()):
            self._obey(order)
        shown = self._controls.shows_success(time.monotonic())
        if shown != before:
            self._say("success" if shown else "no success")

    def _gone(self) -> None:
        self.diagnostics.fault("keyboard", "the terminal has closed: nobody can give orders")
        self.exit_code = 1

    # Orders

    def _obey(self, order: str) -> None:
        if not self._active and order != "emergency_stop":
            return
        if order == "emergency_stop":
            self._stop.publish(Bool(data=True))  # to whoever listens, also where a service does not
            self._say("EMERGENCY STOP")
        if order == "release_emergency_stop":
            self._stop.publish(Bool(data=False))
        if order in SERVICES:
            self._ask(order)
        else:
            self._end_episode(order == "end_success")

    def _ask(self, order: str, tries: int = TRIES) -> None:
        client = self._askers[order]
        if not client.service_is_ready():
            self.diagnostics.count("orders lost", f"{order}: {client.srv_name} is not there")
            return
        answer = partial(self._on_answer, order, tries)
        client.call_async(Trigger.Request()).add_done_callback(answer)

    def _on_answer(self, order: str, tries: int, future: Any) -> None:
        response = future.result()
        if response.success:
            self._say(f"{order}: {response.message}")
        elif order == "release_emergency_stop" and tries > 1:  # the topic's word is on its way
            self._later(RETRY, partial(self._ask, order, tries - 1))
        else:
            self.diagnostics.count("orders refused", f"{order}: {response.message}")

    def _later(self, seconds: float, work: Any) -> None:
        def once() -> None:
            self.destroy_timer(timer)
            if self._active:
                work()

        timer = self.create_timer(seconds, once, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _end_episode(self, success: bool) -> None:
        """The robot's episode ends with the newest observation, as if it had fallen there."""
        if self._control != "policy":
            self._say("no episode to end: the policy does not command")
            return
        stamp = self._now() if self._by_clock else self._newest
        self._give_reward(stamp, success)
        message = Header()
        set_stamp(message.stamp, stamp)
        self._terminated.publish(message)
        self._say(f"the episode ends: {'success' if success else 'failure'}")

    def _say(self, text: str) -> None:
        self.get_logger().info(text)

    # Rewards

    def _on_reward_due(self) -> None:
        self._give_reward(self.get_clock().now().nanoseconds)

    def _give_reward(self, stamp: int, success: bool | None = None) -> None:
        """A reward of the step that ends with ``stamp``; None: as the operator shows it."""
        now = time.monotonic()
        if not self._active or self._reward_publisher is None or not self.setting("rewards"):
            return
        if self._controls.silent(now):
            return  # nobody knows: no reward is better than a wrong one
        if success is None:
            success = self._controls.shows_success(now)
        value = self.setting("success_reward" if success else "otherwise_reward")
        self._write_reward(self._reward, [(value - self._offset) / self._scale])
        if self._write_success is not None:
            self._write_success(self._reward, [float(success)])
        if hasattr(self._reward, "header"):
            set_stamp(self._reward.header.stamp, stamp)
        self._reward_publisher.publish(self._reward)
        self._rewarded = stamp

    # Jogging

    def _on_period(self) -> None:
        now = time.monotonic()
        if not self._controls.silent(now):
            self.diagnostics.clear("joystick silent")
        elif now - self._since > self.setting("joy_timeout"):
            text = "joystick: no message on joy; is joy_node running, with its autorepeat_rate?"
            self.diagnostics.fault("joystick silent", text)
        if self._control != "human" or now < self._heard_from:
            return
        elapsed = 1 / self._contract.rate
        if self._last_step is not None:
            elapsed = min(now - self._last_step, 2 * elapsed)
        self._last_step, stamp = now, self._now()
        speeds = self._controls.jog(now)
        if speeds.any():
            self._jogged = now
        elif now - self._jogged > REPEATED:
            self._jogging.begin()  # someone may move the robot by other means
        if not self._controls.may_move(now):
            self._publish(self._jogging.stand(stamp))
            return
        begun = self._jogging.started
        self._publish(self._jogging.move(speeds, self._observation, elapsed, stamp))
        if self._jogging.started and not begun and (unknown := self._jogging.unknown):
            text = f"{', '.join(unknown)} cannot be moved: the contract does not say what measures"
            self.diagnostics.count("jogging", f"{text} it, and nothing was commanded yet")

    def _publish(self, messages: list[Any | None]) -> None:
        for publisher, message in zip(self._commands, messages, strict=False):
            if message is not None:
                publisher.publish(message)


def main() -> None:
    """Entry point of the executable."""
    run(OperatorNode)


if __name__ == "__main__":
    main()
