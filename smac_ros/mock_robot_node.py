"""A mock robot: the topics of a contract from the robot's side, kinematics only, with faults.

What moves what: ``mock_robot``. Faults are parameters that may be set while it runs: latency,
jitter, lost messages, a stall, NaN, a clock that is off. What it was told it remembers: the largest
values and steps are on /diagnostics, so that a test can prove that limits were kept.
"""

import heapq
import itertools
import json
import time
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.serialization import serialize_message
from std_srvs.srv import Trigger

from smac_core.errors import InputError
from smac_ros.base_node import Parameter, SmacNode, reliable, run
from smac_ros.contract import CommandReader, MessageError, load_contract, message_class
from smac_ros.message_types import has_header
from smac_ros.messages import SECOND, set_stamp
from smac_ros.mock_robot import CommandRecord, MockRobot, load_mock_robot, stream_writers

DAY = 86400.0
POLL = 0.001  # s between two looks at messages that are held back


class MockRobotNode(SmacNode):
    """See doc/robots.md."""

    parameters = (
        Parameter("contract", "sawyer_arm", "Contract that it speaks: name or .yaml file."),
        Parameter(
            "kinematics",
            "",
            "What commands move: name in config/mock_robots or .yaml file; empty: the contract's.",
        ),
        Parameter("rate", 0.0, "Hz of its topics; 0: the contract's.", 0.0, 1000.0),
        Parameter("frame", "", "Of what it publishes; empty: that of the contract's commands."),
        Parameter(
            "seed",
            0,
            "Of noise, jitter and losses, from the next reset on.",
            0,
            2**32 - 1,
            live=True,
        ),
        Parameter(
            "command_timeout",
            0.5,
            "Seconds without a command until what velocities move stands still.",
            0.01,
            3600.0,
        ),
        Parameter("latency", 0.0, "Seconds that observations take.", 0.0, 10.0, live=True),
        Parameter("jitter", 0.0, "Most seconds that they take longer.", 0.0, 10.0, live=True),
        Parameter(
            "drop", 0.0, "Share of messages lost, commands, too.", low=0.0, high=1.0, live=True
        ),
        Parameter("stall", 2.0, "Seconds that a stall lasts.", 0.0, 3600.0, live=True),
        Parameter(
            "stall_at",
            -1.0,
            "Seconds after the start at which nothing is published; over: at once; -1: never.",
            -1.0,
            DAY,
            live=True,
        ),
        Parameter(
            "nan_at",
            -1.0,
            "Seconds after the start at which a NaN is read; over: at once; -1: never.",
            -1.0,
            DAY,
            live=True,
        ),
        Parameter("nan_column", "", "Which observation; empty: the first.", live=True),
        Parameter(
            "clock_offset",
            0.0,
            "Seconds by which stamps are ahead of this machine's clock.",
            -1e9,
            1e9,
            live=True,
        ),
        Parameter("offset_topic", "", "The only topic with that offset; empty: all.", live=True),
        Parameter("task", "", "Of the next reset; a mock robot has one scene.", live=True),
        Parameter("publish_reward", False, "Must stay false: it knows no reward.", live=True),
    )

    def __init__(self, name: str = "mock_robot", **arguments: Any):
        super().__init__(name, **arguments)
        self.record: CommandRecord | None = None
        self._active = False
        self._steps = self._lost = 0
        self._contract = None
        self.add_post_set_parameters_callback(self._on_parameters)

    # Lifecycle

    def configure(self) -> None:
        self._contract = contract = load_contract(self.setting("contract"))
        self.check_parameters(
            {name: self.setting(name) for name in ("nan_column", "offset_topic", "publish_reward")}
        )
        self.robot = MockRobot(contract, load_mock_robot(self.setting("kinematics"), contract))
        self.record = CommandRecord(contract)
        self._reader = CommandReader(contract)
        self._period = 1 / (self.setting("rate") or contract.rate)
        self._values = np.full(contract.action_dim, np.nan)
        self._zero = np.concatenate([command.zero for command in contract.actions])
        self._writers = stream_writers(contract)
        frames = (command.frame for command in contract.actions if command.frame)
        frame = self.setting("frame") or next(frames, "world")
        self._stamped: list[bool] = []
        self._outputs = []  # publishers (rclpy's Node has _publishers of its own)
        for stream, writer in zip(contract.observations, self._writers, strict=True):
            self._stamped.append(has_header(stream.type))
            if self._stamped[-1]:
                writer.message.header.frame_id = frame
            kind = message_class(stream.type)
            self._outputs.append(self.own("publisher", kind, stream.topic, reliable(10)))
        for index, command in enumerate(contract.actions):
            self.own(
                "subscription",
                message_class(command.type),
                command.topic,
                lambda message, index=index: self._on_command(index, message),
                reliable(10),
            )
        self.own("service", Trigger, "~/reset", self._on_reset)
        self.diagnostics.show(
            steps=lambda: self._steps,
            lost=lambda: self._lost,
            elapsed=lambda: f"{self.elapsed:.3f}",
            commands=lambda: json.dumps(self.record.report()),
        )

    def activate(self) -> None:
        self._held: list[tuple[float, int, int, bytes]] = []  # due, order, stream, message
        self._order = itertools.count()
        self._commanded = [-float("inf")] * len(self._contract.actions)
        self._started = time.monotonic()
        self._stalls = self._breaks = -float("inf")  # when the stall began; when a NaN is due
        self._plan("stall_at", "nan_at")
        self.stamp = 0
        self._active = True
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(self._period, self._on_period, clock=steady)
        self._release_timer = self.create_timer(POLL, self._release, clock=steady)
        self._release_timer.cancel()
        self._begin()

    def deactivate(self) -> None:
        if self._active:
            self._active = False
            self.destroy_timer(self._timer)
            self.destroy_timer(self._release_timer)
            self.get_logger().info(f"it was told: {json.dumps(self.record.report())}")

    # Faults

    @property
    def elapsed(self) -> float:
        """Seconds since it was activated."""
        return time.monotonic() - self._started if self._active else 0.0

    def check_parameters(self, values: dict[str, Any]) -> None:
        name = self.get_name()
        if values.get("publish_reward"):
            expected = "false: a mock robot knows no reward; practise, and leave meta-tests out"
            raise InputError(name, "publish_reward", True, expected)
        if self._contract is None:  # looked at again when the contract is known
            return
        columns = self._contract.observation_names
        if (column := values.get("nan_column")) and column not in columns:
            raise InputError(name, "nan_column", repr(column), f"one of {', '.join(columns)}")
        topics = [stream.topic for stream in self._contract.observations]
        if (topic := values.get("offset_topic")) and topic not in topics:
            raise InputError(name, "offset_topic", repr(topic), f"one of {', '.join(topics)}")

    def _on_parameters(self, parameters: list) -> None:
        if self._active:
            self._plan(*(parameter.name for parameter in parameters))

    def _plan(self, *names: str) -> None:
        """When what happens once is to happen; never twice for one setting."""
        now = time.monotonic()
        for name, attribute in (("stall_at", "_stalls"), ("nan_at", "_breaks")):
            if name in names:
                at = self.setting(name)
                moment = max(self._started + at, now) if at >= 0 else -float("inf")
                setattr(self, attribute, moment)

    def _lose(self, random: np.random.Generator) -> bool:
        lost = random.random() < self.setting("drop")
        self._lost += lost
        return lost

    # Observations

    def _begin(self) -> None:
        seed = self.setting("seed")
        self.robot.reset(seed)
        # not the noise's numbers; commands' own, for these come at any time
        self._random, self._inward = (np.random.default_rng((seed, n)) for n in (1, 2))
        self._values[:] = np.nan
        self._advance()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active:
            response.message = f"{self.get_name()} is {self.diagnostics.state}, not active"
            return response
        self._begin()
        self._timer.reset()  # the next step is a whole period away
        response.success, response.message = True, json.dumps({"stamp": self.stamp})
        return response

    def _on_period(self) -> None:
        silence = time.monotonic() - self.setting("command_timeout")
        for command, came in zip(self._contract.actions, self._commanded, strict=True):
            part = slice(command.start, command.start + command.width)
            if came < silence:  # what is held, a position, stays
                np.copyto(self._values[part], self._zero[part], where=~np.isnan(self._zero[part]))
        self.robot.step(self._values, self._period)
        self._steps += 1
        self._advance()

    def _advance(self) -> None:
        """Read the sensors and publish them, as far as faults let it."""
        now = time.monotonic()
        stalled = self._stalls <= now < self._stalls + self.setting("stall")
        true_time = self.get_clock().now().nanoseconds
        offset = round(self.setting("clock_offset") * SECOND)
        late, wobble, only = (self.setting(n) for n in ("latency", "jitter", "offset_topic"))
        numbers = self.robot.read()
        if -float("inf") < self._breaks <= now and not stalled:
            self._breaks = -float("inf")
            column = self.setting("nan_column") or self._contract.observation_names[0]
            numbers[self._contract.observation_names.index(column)] = np.nan
        self.stamp = true_time + (0 if only else offset)
        for index, stream in enumerate(self._contract.observations):
            lost, longer = self._lose(self._random), wobble * self._random.random()
            if stalled or lost:
                continue
            message = self._writers[index].fill(numbers)
            if self._stamped[index]:
                off = offset if only in ("", stream.topic) else 0
                set_stamp(message.header.stamp, true_time + off)
            if delay := late + longer:
                held = (now + delay, next(self._order), index, serialize_message(message))
                heapq.heappush(self._held, held)
            else:
                self._outputs[index].publish(message)
        if self._held and self._release_timer.is_canceled():
            self._release_timer.reset()

    def _release(self) -> None:
        now = time.monotonic()
        while self._held and self._held[0][0] <= now:
            _, _, index, data = heapq.heappop(self._held)
            self._outputs[index].publish(data)
        if not self._held:
            self._release_timer.cancel()

    # Commands

    def _on_command(self, index: int, message: Any) -> None:
        if not self._active:
            return
        command = self._contract.actions[index]
        try:
            values = self._reader.values(index, message)
        except MessageError as error:
            self.diagnostics.count("unreadable commands", f"{command.topic}: {error}")
            return
        before = self.record.outside
        self.record.add(index, values, self.robot.state)
        if self.record.outside > before:
            self.diagnostics.count("commands beyond limits", self.record.violations[-1])
        if (refusal := self._reader.refusal(index, values, message)) is not None:
            self.diagnostics.count(*refusal)
            return
        if not self._lose(self._inward):
            self._values[command.start : command.start + command.width] = values
            self._commanded[index] = time.monotonic()


def main() -> None:
    """Entry point of the executable."""
    run(MockRobotNode)


if __name__ == "__main__":
    main()
