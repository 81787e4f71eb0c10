"""What every node is: a lifecycle node with checked parameters, diagnostics and a clean end."""

import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.experimental import EventsExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from smac_core.config import ConfigError
from smac_core.errors import InputError

SPIN = 0.1  # s; EventsExecutor needs finite spins, and signals are seen between two of them
RECENT = 5.0  # s that a warning colours the diagnostics, and between two log lines about it


def reliable(depth: int) -> QoSProfile:
    """Every message in order, as long as no more than ``depth`` are waiting."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def sensor(depth: int = 10) -> QoSProfile:
    """Best effort: the newest reading matters, not a lost one."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def latched() -> QoSProfile:
    """The last message also reaches those who come later."""
    return QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


class Parameter(NamedTuple):
    """A parameter as it is declared; read when the node is configured, unless ``live``."""

    name: str
    default: Any
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    live: bool = False  # may be set while the node runs

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows and rclpy enforces."""
        description = self.description
        if self.choices:
            description += f" One of: {', '.join(self.choices)}."
        descriptor = ParameterDescriptor(description=description, read_only=not self.live)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                bounds = FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
                descriptor.floating_point_range = [bounds]
            else:
                bounds = IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)
                descriptor.integer_range = [bounds]
        return descriptor


class Diagnostics:
    """What a node counts, warns of and suffers from, in the log and on /diagnostics.

    ERROR while a fault lasts, WARN for ``RECENT`` seconds after something was counted, else OK.
    """

    def __init__(self, node: LifecycleNode):
        self._node = node
        self._publisher = None
        self._counts: Counter[str] = Counter()
        self._faults: dict[str, str] = {}
        self._shown: dict[str, Any] = {}
        self._last_warning = ("", -RECENT)
        self._last_log: dict[str, tuple[str, float]] = {}
        self.state = "unconfigured"

    def open(self) -> None:
        """Start publishing, once a second."""
        self._publisher = self._node.create_publisher(
            DiagnosticArray, "/diagnostics", reliable(10)
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # also while a simulation's time stands
        self._timer = self._node.create_timer(1.0, self.publish, clock=steady)

    def count(self, what: str, message: str = "", by: int = 1) -> None:
        """Something went wrong that the node survives.

        Logged at most every ``RECENT`` seconds, and every second when it is something else.
        """
        self._counts[what] += by
        text, now = message or what, time.monotonic()
        self._last_warning = (text, now)
        last, when = self._last_log.get(what, ("", -RECENT))
        if now - when >= (RECENT if text == last else 1.0):
            self._last_log[what] = (text, now)
            times = f" ({self._counts[what]} times)" if self._counts[what] > 1 else ""
            self._node.get_logger().warning(f"{text}{times}")

    def fault(self, what: str, message: str) -> None:
        """A condition that keeps the node from its work, until it is cleared."""
        if self._faults.get(what) != message:
            first = what not in self._faults
            self._faults[what] = message
            if first:
                self._counts[what] += 1
                self._node.get_logger().error(message)
            self.publish()

    def clear(self, what: str) -> None:
        """The condition is over."""
        if self._faults.pop(what, None) is not None:
            self._node.get_logger().info(f"over: {what}")
            self.publish()

    def show(self, **values: Any) -> None:
        """Values to publish along; a callable is asked each time."""
        self._shown |= values

    @property
    def faults(self) -> dict[str, str]:
        return dict(self._faults)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    def publish(self) -> None:
        """One status now."""
        if self._publisher is None:
            return
        warning, when = self._last_warning
        level, message = DiagnosticStatus.OK, self.state
        if self._faults:
            level, message = DiagnosticStatus.ERROR, "; ".join(self._faults.values())
        elif warning and time.monotonic() - when < RECENT:
            level, message = DiagnosticStatus.WARN, warning
        values = {"state": self.state} | self._shown | self._counts
        status = DiagnosticStatus(
            level=level,
            name=self._node.get_fully_qualified_name(),
            message=message,
            hardware_id=self._node.get_namespace(),
            values=[
                KeyValue(key=key, value=str(value() if callable(value) else value))
                for key, value in values.items()
            ],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


class SmacNode(LifecycleNode):
    """Subclasses implement ``configure``, ``activate``, ``deactivate`` and ``cleanup``.

    An ``InputError`` or ``ConfigError`` in ``configure`` or ``activate`` refuses the transition
    and says why; whatever was made until then is undone by ``cleanup``.
    """

    parameters: tuple[Parameter, ...] = ()

    def __init__(self, name: str, **arguments: Any):
        super().__init__(name, **arguments)
        self.diagnostics = Diagnostics(self)
        self.exit_code: int | None = None  # set to end the process
        self._owned: list[tuple[Callable, Any]] = []  # what cleanup destroys, and how
        self.declare_parameter(
            "autostart",
            True,
            ParameterDescriptor(
                description="Configure and activate at start; else ros2 lifecycle set does it.",
                read_only=True,
            ),
        )
        for parameter in self.parameters:
            self.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        self._choices = {p.name: p.choices for p in self.parameters if p.choices}
        for name, choices in self._choices.items():
            self._check_choice(name, self.setting(name), choices)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.diagnostics.open()

    def setting(self, name: str) -> Any:
        """A parameter's present value."""
        return self.get_parameter(name).value

    def _check_choice(self, name: str, value: Any, choices: Sequence[str]) -> None:
        if value not in choices:
            raise InputError(self.get_name(), name, repr(value), f"one of {', '.join(choices)}")

    def _check_parameters(self, parameters: list) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        try:
            for parameter in parameters:
                if parameter.name in self._choices:
                    choices = self._choices[parameter.name]
                    self._check_choice(parameter.name, parameter.value, choices)
            self.check_parameters({parameter.name: parameter.value for parameter in parameters})
        except InputError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def own(self, kind: str, *arguments: Any, **options: Any) -> Any:
        """``create_<kind>(...)``, destroyed when the node is cleaned up."""
        made = getattr(self, f"create_{kind}")(*arguments, **options)
        self._owned.append((getattr(self, f"destroy_{kind}"), made))
        return made

    def check_parameters(self, values: dict[str, Any]) -> None:
        """Refuse parameters that are being set by raising InputError; nothing is set then."""

    def configure(self) -> None:
        """Load files, make publishers, subscriptions and services."""

    def activate(self) -> None:
        """Begin to work."""

    def deactivate(self) -> None:
        """Stop working; the robot first."""

    def cleanup(self) -> None:
        """Undo ``configure``, also after half of it; what the node owns is destroyed already."""

    def _clean_up(self) -> None:
        while self._owned:
            destroy, made = self._owned.pop()
            destroy(made)
        self.cleanup()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self.configure, "inactive", undo=self._clean_up)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = self._transition(self.activate, "active", undo=self.deactivate)
        if done == TransitionCallbackReturn.SUCCESS:
            super().on_activate(state)
        return done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        done = self._transition(self.deactivate, "inactive")
        super().on_deactivate(state)
        return done

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._transition(self._clean_up, "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.diagnostics.state == "active":
            self._transition(self.deactivate, "inactive")
        if self.diagnostics.state == "inactive":
            self._transition(self._clean_up, "unconfigured")
        return TransitionCallbackReturn.SUCCESS

    def pause(self) -> float:
        """Seconds that the process may sleep now when nothing comes in; at most ``SPIN``."""
        return SPIN

    def _transition(
        self, work: Callable[[], None], reached: str, undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        try:
            work()
        except (InputError, ConfigError, OSError) as error:
            self.diagnostics.fault("refused", str(error))
            if undo is not None:
                undo()
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # rclpy would swallow it
            self.diagnostics.fault("failed", f"{type(error).__name__}: {error}")
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        self.diagnostics.clear("refused")
        self.diagnostics.state = reached
        self.diagnostics.publish()
        return TransitionCallbackReturn.SUCCESS


def run(node_class: Callable[..., SmacNode], arguments: list[str] | None = None) -> None:
    """A node's ``main``: spin until Ctrl-C, SIGTERM or the node's own end, then leave in order.

    Signals are handled here and not by rclpy, whose handler shuts the context down at once: a
    policy could then no longer tell its robot to stop.
    """
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stop.append(number))
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except rclpy_implementation.RCLError as error:
        sys.exit(f"error: ROS arguments: {error}")
    node, code = None, 0
    try:
        node = node_class()
        executor = EventsExecutor()
        executor.add_node(node)
        success = TransitionCallbackReturn.SUCCESS
        if node.setting("autostart") and (
            node.trigger_configure() != success or node.trigger_activate() != success
        ):
            code = 1
        else:
            while not stop and node.exit_code is None:
                executor.spin_once(timeout_sec=node.pause())
            code = node.exit_code or 0
    except (InputError, ConfigError, rclpy.exceptions.ParameterException) as error:
        hint = "; write a number with its point: 1.0" if "'DOUBLE'" in str(error) else ""
        print(f"error: {error}{hint}", file=sys.stderr)
        code = 2
    except Exception:
        traceback.print_exc()
        code = 1
    finally:
        if node is not None:
            leave(node)
        rclpy.try_shutdown()
    sys.exit(code)


def leave(node: SmacNode) -> None:
    """Deactivate, clean up and destroy; a failure on the way does not keep the rest from it."""
    for step in (lambda: node.on_shutdown(None), node.destroy_node):
        try:
            step()
        except Exception:
            traceback.print_exc()
