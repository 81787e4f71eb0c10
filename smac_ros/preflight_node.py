"""Preflight: compares a contract with the network, and activates the policy of a robot that fits.

The policy is started with ``autostart: false``. This node has it configured (it loads its
checkpoint and refuses one that does not fit the contract), listens to the robot as ``smac contract
check --live`` does, and then has it activated; with ``start`` it calls its ~/start. Where something
does not fit, it says what, ends with exit code 1, and nothing has moved.
"""

import time
from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from smac_ros.base_node import Parameter, SmacNode, run
from smac_ros.contract import load_contract
from smac_ros.live_check import POLL, TELEOPERATION, LiveCheck

FAILED = 1  # exit code
WAITING = 5.0  # s between two log lines about what it waits for
LOOKS = 2  # before a robot is refused: programs that start beside it may hold this machine up
LISTENING = ("seconds", "patience", "teleoperation")


class PreflightNode(SmacNode):
    """Nothing moves before it has found that the robot fits."""

    parameters = (
        Parameter("contract", "sawyer_arm", "Contract to hold the robot to: name or .yaml file."),
        Parameter("policy", "policy", "Name of the policy's node; empty: only look."),
        Parameter("seconds", 3.0, "To listen.", 0.1, 3600.0),
        Parameter("patience", 15.0, "Seconds to wait for what is not there yet.", 0.0, 3600.0),
        Parameter(
            "teleoperation",
            list(TELEOPERATION),
            "Nodes that may publish commands beside the policy, as it is told.",
        ),
        Parameter("start", False, "Call the policy's ~/start when the robot fits."),
    )

    def __init__(self, **arguments: Any):
        super().__init__("preflight", **arguments)
        self._check: LiveCheck | None = None
        self._work = self._timer = None
        self._phase = "inactive"
        self.diagnostics.show(phase=self._describe)

    def _describe(self) -> str:
        return self._check.waits_for if self._check is not None else self._phase

    def configure(self) -> None:
        self._contract = load_contract(self.setting("contract"))
        name = self.setting("policy")
        self._change = self._begin = None
        if name:
            self._change = self.own("client", ChangeState, f"{name}/change_state")
            self._begin = self.own("client", Trigger, f"{name}/start")

    def activate(self) -> None:
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._work = self._steps()
        self._ready: Callable[[], bool] = lambda: True
        self._told = time.monotonic()
        self._timer = self.create_timer(POLL, self._poll, clock=steady)

    def deactivate(self) -> None:
        self._end()
        self._phase = "inactive"

    def _end(self) -> None:
        self._work = None
        if self._check is not None:
            self._check.close()
            self._check = None
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None

    def _poll(self) -> None:
        """Go on with the work when what it waits for is there."""
        try:
            if self._work is not None and self._ready():
                self._ready = next(self._work)
            elif time.monotonic() - self._told > WAITING:
                self._told = time.monotonic()
                self.get_logger().info(self._describe())
        except StopIteration:
            self._end()

    def _steps(self) -> Any:
        """The work from its beginning to its end; yields the conditions that it waits for."""
        if self._change is not None:
            self._phase = "waits for the policy"
            yield self._change.service_is_ready
            configured = self._change.call_async(_transition(Transition.TRANSITION_CONFIGURE))
            yield configured.done
            if not configured.result().success:
                remedy = "see its log; it is to be started with autostart:=false"
                self._refuse(f"the policy cannot be configured: {remedy}")
                return
        settings = {name: self.setting(name) for name in LISTENING}
        for _ in range(LOOKS):
            self._check = check = LiveCheck(self, self._contract, **settings)
            yield check.poll
            report = check.report()
            if not report.errors or not check.complete:
                break
            check.close()
        for number, finding in enumerate(report.grouped(), 1):
            text = str(finding).partition(": ")[2]
            if finding.level == "error":
                self.get_logger().error(text)
            else:
                self.diagnostics.count(f"warning {number}", text)  # each is logged
        if report.errors:
            name, count = self._contract.name, len(report.errors)
            first = str(report.errors[0]).partition(": ")[2]
            more = f" (and {count - 1} more)" if count > 1 else ""
            self._refuse(f"the robot does not fit contract {name}: {first}{more}")
            return
        self._check.close()
        self._check = None
        if self._change is not None:
            self._phase = "has the policy activated"
            activated = self._change.call_async(_transition(Transition.TRANSITION_ACTIVATE))
            yield activated.done
            if not activated.result().success:
                self._refuse("the policy cannot be activated: see its log")
                return
        self._phase = "the robot fits"
        self.get_logger().info(f"the robot fits contract {self._contract.name}")
        if self._begin is None or not self.setting("start"):
            return
        yield self._begin.service_is_ready
        started = self._begin.call_async(Trigger.Request())
        yield started.done
        answer = started.result()
        if answer.success:
            self._phase = "started"
            self.get_logger().info(f"the policy has been started: {answer.message}")
        else:  # for example after an emergency stop: who ends it calls ~/start
            self.diagnostics.count("not started", f"the policy does not start: {answer.message}")

    def _refuse(self, why: str) -> None:
        self._phase = "refused"
        self.diagnostics.fault("preflight", f"nothing is moved: {why}")
        self.exit_code = FAILED


def _transition(number: int) -> ChangeState.Request:
    return ChangeState.Request(transition=Transition(id=number))


def main() -> None:
    """Entry point of the executable."""
    run(PreflightNode)


if __name__ == "__main__":
    main()
