"""What simulated robots have in common: they behave like a robot's driver, in one of two clocks.

``lockstep``: the world stands until every command that answers its last observation has arrived,
then takes one step. As fast as the machine allows, and reproducible.
``real_time``: the world takes a step each period with the newest command, whatever came.

A subclass makes the world, a Gymnasium environment, and fills the messages that show its state.
"""

import json
import time
from abc import ABC, abstractmethod
from array import array
from math import isclose
from typing import Any

import gymnasium
import numpy as np
from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from smac_core.errors import InputError
from smac_ros.base_node import Parameter, SmacNode, reliable
from smac_ros.contract import CommandReader, MessageError, load_contract, message_class
from smac_ros.messages import SECOND, set_stamp, stamp_ns

LOCKSTEP, REAL_TIME = "lockstep", "real_time"
START = SECOND  # ns, the first stamp of a clock of the simulation's own
VIEWS = 10  # steps in lockstep, and times a second in real time, that pictures are for
OUTCOME = ("reward", "success", "terminated")


def simulation_parameters(contract: str) -> tuple[Parameter, ...]:
    """The parameters of every simulated robot; ``contract`` is its default contract."""
    return (
        Parameter("contract", contract, "Contract by which commands are read: name or .yaml file."),
        Parameter(
            "clock",
            REAL_TIME,
            "Step each period, or when the commands for the last observation came.",
            choices=(REAL_TIME, LOCKSTEP),
        ),
        Parameter("factor", 1.0, "Speed of the clock real_time.", low=0.5, high=20.0),
        Parameter("task", "", "Task of the next reset as JSON, empty: a drawn one.", live=True),
        Parameter("seed", 0, "Seed of the next reset.", low=0, high=2**32 - 1, live=True),
        Parameter("publish_reward", False, "Publish the true reward after each step.", live=True),
        Parameter(
            "command_timeout",
            0.5,
            "Robot's seconds without a command until it stands still (real_time).",
            low=0.01,
            high=3600.0,
        ),
        Parameter(
            "resend",
            0.5,
            "Seconds without an answer until an observation is sent again (lockstep).",
            low=0.01,
            high=3600.0,
        ),
        Parameter("publish_clock", False, "Publish the observations' stamps on /clock."),
        Parameter("frame", "world", "Frame of the poses that are published."),
    )


class SimulationNode(SmacNode, ABC):
    """Topics: see doc/simulated_robots.md.

    A subclass implements ``make_world``, ``make_outputs``, ``fill`` and ``check_task``, and may
    override ``reset_world``, ``view`` and ``rest``.

    Attributes:
        env: the world, after ``configure``.
        header: frame and stamp that all messages of a step share.
        stamp: of the last observation, ns; 0 before the first.
    """

    rest: tuple[float, ...] | None = None  # action of a robot that was told nothing; None: zeros

    def __init__(self, name: str, **arguments: Any):
        super().__init__(name, **arguments)
        self.env: gymnasium.Env | None = None
        self.header = Header()
        self.stamp = 0
        self._outputs: list[tuple[Any, Any]] = []
        self._active = self._ended = False
        self._outcome: tuple[float, float, float] | None = None
        self._steps = self._resends = 0
        self._viewed = self._published = -float("inf")
        self.diagnostics.show(steps=lambda: self._steps, resends=lambda: self._resends)

    # What a subclass gives

    @abstractmethod
    def make_world(self) -> tuple[gymnasium.Env, float]:
        """The environment and its control rate, Hz; raises InputError."""

    @abstractmethod
    def make_outputs(self) -> None:
        """Make the messages that show the state, with ``output``, in the order of publishing."""

    @abstractmethod
    def fill(self) -> None:
        """Write the world's state into the messages; their stamp is set already."""

    @abstractmethod
    def check_task(self, task: Any) -> None:
        """Raise ValueError unless ``task`` (parsed JSON) is one of this world's."""

    def reset_world(self, seed: int, task: Any | None) -> None:
        """Begin an episode in ``task``, or in a drawn one; raises ValueError."""
        self.env.reset(seed=seed, options=None if task is None else {"task": task})

    def view(self, due: bool) -> None:
        """Publish what people look at, after an observation; ``due``: time for a new picture."""

    # Life

    def configure(self) -> None:
        self._contract = contract = load_contract(self.setting("contract"))
        self._lockstep = self.setting("clock") == LOCKSTEP
        if self._lockstep:
            contract.require_lockstep()
        self._own_time = self._lockstep or self.setting("factor") != 1.0
        if self.setting("publish_clock") and self.setting("use_sim_time"):
            name = self.get_name()
            raise InputError(name, "use_sim_time", "true", "false: this robot makes the time")
        self.env, rate = self.make_world()
        (wanted,) = self.env.action_space.shape
        for field, found, expected in (
            ("rate", contract.rate, rate),
            ("number of actions", contract.action_dim, wanted),
        ):
            if not isclose(found, expected, rel_tol=1e-6):
                raise InputError(contract.source, field, found, f"{expected}, as simulated")
        self._period = 1 / rate / self.setting("factor")  # s
        self._prepare_commands()
        self.header.frame_id = self.setting("frame")
        self._clock_publisher = None
        if self.setting("publish_clock"):
            self._clock_publisher = self.publisher(ClockMessage, "/clock")
            self._clock_message = ClockMessage(clock=self.header.stamp)
        self._reward = JointState(name=OUTCOME, position=[0.0] * 3)
        self._reward.header.stamp = self.header.stamp
        self._reward_publisher = self.publisher(JointState, "reward")
        self._terminated_publisher = self.publisher(Header, "terminated")
        self.make_outputs()
        self.own("service", Trigger, "~/reset", self._on_reset)

    def _prepare_commands(self) -> None:
        contract = self._contract
        self._reader = CommandReader(contract)
        self._parts = [slice(c.start, c.start + c.width) for c in contract.actions]
        rest = np.array(self.rest or [0.0] * contract.action_dim)
        zero = np.concatenate([command.zero for command in contract.actions])
        scale, offset = (
            np.concatenate([getattr(command, key) for command in contract.actions])
            for key in ("scale", "offset")
        )
        self._rest = np.where(np.isnan(zero), scale * rest + offset, zero)
        self._held = np.isnan(zero)
        self._values = self._rest.copy()
        for index, command in enumerate(contract.actions):
            self.own(
                "subscription",
                message_class(command.type),
                command.topic,
                lambda message, index=index: self._on_command(index, message),
                reliable(10),
            )

    def publisher(self, kind: type, topic: str, qos: Any = None) -> Any:
        """A publisher of the robot's."""
        return self.own("publisher", kind, topic, qos or reliable(10))

    def output(self, topic: str, message: Any) -> Any:
        """Publish ``message`` on ``topic`` at every step; its header becomes the common one."""
        message.header = self.header
        self._outputs.append((self.publisher(type(message), topic), message))
        return message

    def activate(self) -> None:
        self._reset()
        self._active = True
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        if self._lockstep:
            self._timer = self.create_timer(self.setting("resend") / 4, self._on_poll, clock=steady)
        else:
            self._timer = self.create_timer(self._period, self._on_period, clock=steady)

    def deactivate(self) -> None:
        if self._active:
            self._active = False
            self.destroy_timer(self._timer)

    def cleanup(self) -> None:
        self._outputs.clear()
        if self.env is not None:
            self.env.close()
            self.env = None

    # Tasks and resets

    def check_parameters(self, values: dict[str, Any]) -> None:
        if "task" in values:
            self._parse_task(values["task"])

    def _parse_task(self, text: str) -> Any | None:
        if not text.strip():
            return None
        try:
            task = json.loads(text)
            self.check_task(task)
        except ValueError as error:
            raise InputError(self.get_name(), "task", error, "a task of this robot") from None
        return task

    def _reset(self) -> None:
        """Begin an episode and publish its first observation; raises InputError."""
        task = self._parse_task(self.setting("task"))
        try:
            self.reset_world(self.setting("seed"), task)
        except ValueError as error:
            raise InputError(self.get_name(), "task", error, "a task of this robot") from None
        self._ended, self._outcome = False, None
        self._values[:] = self._rest
        self._arrived = 0
        self._received = [-float("inf")] * len(self._parts)
        self._advance()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if not self._active:
            response.message = f"{self.get_name()} is {self.diagnostics.state}, not active"
            return response
        try:
            self._reset()
        except InputError as error:
            response.message = str(error)
            return response
        self._timer.reset()  # the next step is a whole period away
        response.success, response.message = True, json.dumps({"stamp": self.stamp})
        return response

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
        if (refusal := self._reader.refusal(index, values, message)) is not None:
            self.diagnostics.count(*refusal)
            return
        if self._ended:
            self.diagnostics.count("ignored commands", "the episode has ended: reset first")
            return
        if self._lockstep and stamp_ns(message.header.stamp) != self.stamp:
            found = stamp_ns(message.header.stamp)
            self.diagnostics.count(
                "ignored commands",
                f"{command.topic}: a command for stamp {found} ns, the last is {self.stamp} ns",
            )
            return
        self._values[self._parts[index]] = values
        if not self._lockstep:
            self._received[index] = time.monotonic()
            return
        self._arrived |= 1 << index
        if self._arrived == (1 << len(self._parts)) - 1:
            self._arrived = 0
            self._step()

    def _stand_still(self, now: float) -> None:
        """Stop what was not commanded for too long; held entries (a gripper) stay."""
        silence = self.setting("command_timeout") / self.setting("factor")
        for received, part in zip(self._received, self._parts, strict=True):
            if now - received > silence:
                np.copyto(self._values[part], self._rest[part], where=~self._held[part])

    # Time

    def _on_poll(self) -> None:
        if time.monotonic() - self._published >= self.setting("resend"):
            self._resends += 1
            self._publish(again=True)

    def _on_period(self) -> None:
        begun = time.monotonic()
        if self._ended:  # the robot lies there
            self._outcome = None
            self._advance()
            return
        self._stand_still(begun)
        self._step()
        if time.monotonic() - begun > self._period:
            self.diagnostics.count("overruns", "a step took longer than its period")

    def _step(self) -> None:
        action = self._reader.decode(self._values)
        _, reward, terminated, _, info = self.env.step(action)
        self._outcome = float(reward), float(info.get("success", False)), float(terminated)
        self._ended = bool(terminated)
        self._steps += 1
        self._advance()

    def _advance(self) -> None:
        """Stamp the world's new state and publish it."""
        if self._own_time:
            self.stamp = self.stamp + self._contract.period_ns if self.stamp else START
        else:
            self.stamp = max(self.get_clock().now().nanoseconds, self.stamp + 1)
        set_stamp(self.header.stamp, self.stamp)
        self.fill()
        self._publish()

    def _publish(self, again: bool = False) -> None:
        """Publish the present state; the reward that led to it first, where it is asked for."""
        self._published = now = time.monotonic()
        if self._clock_publisher is not None:
            self._clock_publisher.publish(self._clock_message)
        if self._outcome is not None and self.setting("publish_reward"):
            self._reward.position = array("d", self._outcome)
            self._reward_publisher.publish(self._reward)
        if self._outcome is not None and self._ended:
            self._terminated_publisher.publish(self.header)
        for publisher, message in self._outputs:
            publisher.publish(message)
        if self._lockstep:
            due = again or self._outcome is None or self._steps % VIEWS == 0
        else:
            due = now - self._viewed >= 1 / VIEWS
        if due:
            self._viewed = now
        self.view(due)
