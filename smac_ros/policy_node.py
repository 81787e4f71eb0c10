"""The policy: observations from a robot's topics in, commands within the contract's limits out.

Topics, services and parameters: doc/nodes.md. What it does with them: ``policy``.
"""

import os
import time
from array import array
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64MultiArray, Header, MultiArrayDimension, String, UInt8MultiArray
from std_srvs.srv import Trigger

from smac_core.deployment.exported import is_export
from smac_core.deployment.interface import LATENTS
from smac_core.errors import InputError
from smac_ros.base_node import SPIN, Parameter, SmacNode, latched, reliable, run, sensor
from smac_ros.command_topics import CommandTopics
from smac_ros.contract import load_contract, message_class
from smac_ros.human_control import EMERGENCY_STOP, HumanControl
from smac_ros.messages import (
    INTERRUPTED,
    Begin,
    End,
    parse_marker,
    stamp_ns,
    unpack_trajectory,
)
from smac_ros.policy import Policy
from smac_ros.policy_episode import PolicyEpisode, check_begin
from smac_ros.rehearsal import Rehearsal
from smac_ros.serialized import Unpacker
from smac_ros.weights import Weights, WeightsReceiver, load_export, load_run

NEIGHBOURS = 0.2  # s between two looks for other publishers of commands
REHEARSE = 0.0005  # s between two rehearsals while awake
FAREWELL = Duration(seconds=0.2)  # for the last command to arrive


class PolicyNode(SmacNode):
    """One agent on one robot."""

    parameters = (
        Parameter("contract", "sawyer_sim", "Name of a contract, or path of its .yaml file."),
        Parameter(
            "checkpoint",
            "",
            "Folder of a run or an export; shipped: the domain's run; empty: await weights.",
        ),
        Parameter("phase", "", "Phase of the run; empty: self_supervised, else offline."),
        Parameter("clock", "real_time", "Who keeps time.", choices=("real_time", "lockstep")),
        Parameter(
            "settle",
            1.0,
            "Seconds to look for other publishers before the first command.",
            low=0.0,
            high=60.0,
        ),
        Parameter(
            "wake",
            0.002,
            "Seconds before the next observation is due from which to stay awake; 0: sleep.",
            low=0.0,
            high=0.01,
        ),
        Parameter("mode", "explore", "What ~/start does.", choices=tuple(LATENTS), live=True),
        Parameter(
            "latent",
            "auto",
            "How ~/start takes z; auto: step, or sample in mode exploit.",
            choices=("auto", "step", "trajectory", "sample", "mean"),
            live=True,
        ),
        Parameter("deterministic", False, "Whether ~/start acts without noise.", live=True),
        Parameter("seed", 0, "Of ~/start.", low=0, high=2**31 - 1, live=True),
        Parameter(
            "teleoperation",
            ["operator"],
            "Nodes that may publish commands beside this one, for they do so in takeovers only.",
        ),
    )

    def __init__(self, name: str = "policy", **arguments: Any):
        super().__init__(name, **arguments)
        self.policy: Policy | None = None  # while configured
        self._receiver: WeightsReceiver | None = None
        self._rehearsal: Rehearsal | None = None
        self._active = False
        self._rounds: list[Any] = []  # timers (rclpy's Node has _timers of its own)
        self._awake, self._rehearsed = 0.0, 0.0
        self.add_post_set_parameters_callback(self._on_parameters)
        self._human = HumanControl(self, lambda: self.policy, self._endless)

    # Lifecycle

    def configure(self) -> None:
        self._contract = contract = load_contract(self.setting("contract"))
        lockstep = self.setting("clock") == "lockstep"
        if lockstep:
            contract.require_lockstep()
        present = self._load(self.setting("checkpoint"))
        warn = self.diagnostics.count
        self._receiver = WeightsReceiver(contract, warn, self._wake, present)
        self._ends = self.own("publisher", String, "episode", reliable(100))
        self._posteriors = self.own("publisher", Float64MultiArray, "posterior", latched())
        classes = {command.type: message_class(command.type) for command in contract.actions}
        qos = reliable(10 if lockstep else 1)
        self.policy = Policy(
            contract,
            lockstep=lockstep,
            commands=CommandTopics(self, contract, classes, qos, self.setting("teleoperation")),
            classes=classes,
            receiver=self._receiver,
            diagnostics=self.diagnostics,
            announce=self._announce,
            show=self._show_posterior,
            now=self._now if self.setting("use_sim_time") else time.time_ns,
        )
        self._rehearsal = Rehearsal(contract, classes)
        self._listen(reliable(10) if lockstep else sensor())
        self._show()
        self._human.apply()  # an emergency stop outlives a policy

    def _now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _load(self, name: str) -> Weights | None:
        """The agent of a checkpoint that fits the contract."""
        if not name:
            return None
        load = load_export if is_export(Path(name)) else load_run
        return load(name, self.setting("phase"), self._contract)

    def _listen(self, stream_qos: Any) -> None:
        contract = self._contract
        for index, stream in enumerate(contract.observations):
            unpack = Unpacker(stream.type, stream.paths).unpack
            callback = partial(self._on_observation, index, stream.time == "header", unpack)
            kind = message_class(stream.type)
            self.own("subscription", kind, stream.topic, callback, stream_qos, raw=True)
        if (reward := contract.reward) is not None:
            callback = partial(self._on_reward, reward.time == "header")
            self.own("subscription", message_class(reward.type), reward.topic, callback, stream_qos)
        self.own("subscription", Header, "terminated", self._on_terminated, reliable(10))
        labelled = "labelled_trajectories"
        self.own("subscription", String, "episode", self._on_marker, reliable(100))
        self.own("subscription", PointCloud2, labelled, self._on_labels, reliable(100))
        self.own("subscription", UInt8MultiArray, "weights", self._receiver.receive, latched())
        for name in ("start", "stop", "reset_context"):
            self.own("service", Trigger, f"~/{name}", partial(self._serve, name))

    def _show(self) -> None:
        """The values on /diagnostics."""

        def weights() -> str:
            present = self._receiver and self._receiver.present
            return f"{present.version} {present.run}".strip() if present else "none"

        policy = self.policy
        self.diagnostics.show(
            weights=weights,
            episode=lambda: policy.episode.name if policy.episode else "none",
            mode=lambda: policy.episode.begin.mode if policy.episode else "none",
            steps=lambda: policy.episode.steps if policy.episode else 0,
            waiting_for=lambda: policy.waits_for if policy.episode else self._human.waits_for,
            context_trajectories=lambda: len(policy.context),
            listeners=lambda: policy.commands.listeners,
            limited_values=lambda: policy.writer.limited,
            repeated_answers=lambda: policy.repeated,
        )

    def activate(self) -> None:
        self._active, policy = True, self.policy
        policy.commands.look(self.setting("settle"))
        self._awake = 0.0 if policy.lockstep else self.setting("wake")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        period = 1 / self._contract.rate
        neighbours = partial(policy.on_neighbours, FAREWELL)
        self._rounds = [
            self.create_timer(NEIGHBOURS, neighbours, clock=steady),
            self.create_timer(period, policy.on_watchdog, clock=steady),
        ]
        if self._contract.trigger == "timer":
            self._rounds.append(self.create_timer(period, policy.on_period))
        neighbours()

    def deactivate(self) -> None:
        self._active = False
        self.policy.close(FAREWELL)  # first of all: the robot must stand
        for timer in self._rounds:
            self.destroy_timer(timer)
        self._rounds.clear()
        for fault in self.diagnostics.faults.keys() - {"refused", EMERGENCY_STOP}:
            self.diagnostics.clear(fault)

    def cleanup(self) -> None:
        if self._receiver is not None:
            self._receiver.close()
        self._receiver = self.policy = self._rehearsal = None

    def pause(self) -> float:
        """Stay awake, and the control path in the caches, while the next observation is due."""
        if not self._active or not self._awake:
            return SPIN
        now = time.monotonic()
        left = self.policy.due - now
        if left > self._awake:
            return min(left - self._awake, SPIN)
        if left < -self._awake:
            return SPIN
        weights = self._receiver.present
        needed = REHEARSE / 2 if self._rehearsal.knows(weights) else self._awake / 2
        if now - self._rehearsed > REHEARSE and left > needed:
            self._rehearsal.run(weights)
            self._rehearsed = now
        return 0.0

    # Topics

    def _on_observation(self, index: int, stamped: bool, unpack: Any, data: bytes) -> None:
        if not self._active:
            return
        try:
            message = unpack(data)
        except RuntimeError as error:
            topic = self._contract.observations[index].topic
            self.diagnostics.count("unreadable observations", f"{topic}: {error}")
            return
        self.policy.observe(index, stamp_ns(message.header.stamp) if stamped else None, message)
        self._rehearsal.saw(index, data)

    def _on_reward(self, stamped: bool, message: Any) -> None:
        if self._active:
            self.policy.reward(stamp_ns(message.header.stamp) if stamped else None, message)

    def _on_terminated(self, message: Header) -> None:
        if self._active:
            self.policy.terminated(stamp_ns(message.stamp))

    def _on_marker(self, message: String) -> None:
        if not self._active:
            return
        marker, policy = None, self.policy
        try:
            marker = parse_marker(message.data)
            if isinstance(marker, End):
                if policy.episode is not None and policy.episode.is_of(marker):
                    policy.finish(f"ended from outside: {marker.reason}", announce=False)
            elif not policy.knows(marker):
                check_begin(marker, self._contract)
                if held := self._human.reason:
                    reason = f"{INTERRUPTED}{held}"
                    self._announce(End(marker.session, marker.id, 0, marker.start, reason))
                else:
                    policy.begin(PolicyEpisode(marker))
        except InputError as error:
            self.diagnostics.count("refused episodes", str(error))
            if marker is not None:
                refused = f"refused: {error}"
                self._announce(End(marker.session, marker.id, 0, marker.start, refused))

    def _on_labels(self, message: PointCloud2) -> None:
        contract, policy = self._contract, self.policy
        if policy is None:
            return
        try:
            labelled = unpack_trajectory(message, contract.observation_dim, contract.action_dim)
        except InputError as error:
            self.diagnostics.count("refused trajectories", str(error))
            return
        if labelled.exploration and policy.context.is_of(labelled.session, labelled.group):
            rows = (labelled.observations, labelled.actions, labelled.rewards)
            policy.context.add(labelled.episode, rows)
            policy.retry()

    def _wake(self) -> None:
        """From the receiver's thread: weights have been read."""
        if (executor := self.executor) is not None:
            executor.create_task(lambda: self.policy and self.policy.retry())

    def _announce(self, end: End) -> None:
        self._ends.publish(String(data=end.to_json()))

    def _show_posterior(self, posterior: Any) -> None:
        mean, variance = (np.asarray(part[0], np.float64) for part in posterior)
        size = len(mean)
        message = Float64MultiArray(data=array("d", np.concatenate([mean, variance])))
        message.layout.dim = [
            MultiArrayDimension(label="mean, variance", size=2, stride=2 * size),
            MultiArrayDimension(label="z", size=size, stride=size),
        ]
        self._posteriors.publish(message)

    # Without a manager

    def _serve(
        self, name: str, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        try:
            response.message = getattr(self, f"_{name}")()
            response.success = True
        except InputError as error:
            response.message = str(error)
        return response

    def _start(self) -> str:
        name, policy = self.get_name(), self.policy
        if not self._active:
            raise InputError(name, "state", self.diagnostics.state, "active")
        if held := self._human.reason:
            raise InputError(name, "start", held, "~/resume first")
        if policy.controller is None:
            raise InputError(name, "weights", "none", "a checkpoint, or weights from a learner")
        if policy.episode is not None:
            raise InputError(name, "start", f"{policy.episode.name} in progress", "~/stop first")
        policy.begin(self._endless())
        waits_for = policy.waits_for
        return f"waiting for {waits_for}" if waits_for else "acting"

    def _endless(self) -> PolicyEpisode:
        """An episode without end, as the parameters have it."""
        mode, latent = self.setting("mode"), self.setting("latent")
        if latent == "auto":
            latent = "sample" if mode == "exploit" else "step"
        begin = Begin(
            session=0,
            id=0,
            start=0,
            steps=1,
            purpose="exploration",
            mode=mode,
            group=0,
            seed=self.setting("seed"),
            deterministic=self.setting("deterministic"),
            latent=latent,
        )
        check_begin(begin, self._contract)
        return PolicyEpisode(begin, endless=True)

    def _stop(self) -> str:
        if self._active and self.policy.suspended:
            self.policy.suspended = False
            return "~/start stopped: ~/resume will not go on with it"
        if not self._active or self.policy.episode is None:
            return "nothing was in progress"
        name = self.policy.episode.name
        self.policy.finish("stopped: ~/stop was called", safe=True)
        return f"{name} stopped"

    def _reset_context(self) -> str:
        if self.policy is None:
            return "there was none"
        context, episode = self.policy.context, self.policy.episode
        if episode is not None and not episode.endless:
            found = f"{episode.name} in progress"
            raise InputError(self.get_name(), "reset_context", found, "no episode of a manager")
        count = len(context)
        context.clear()
        self.policy.retry()
        return f"{count} trajectories forgotten"

    def _on_parameters(self, parameters: list) -> None:
        """What ~/start began goes on in the new mode."""
        if self.policy is None or self.policy.episode is None or not self.policy.episode.endless:
            return
        try:
            self.policy.begin(self._endless())
        except InputError as error:
            self.diagnostics.count("refused parameters", str(error))


def main() -> None:
    """Entry point of the executable."""
    # Of torch, which an export does without: networks this small are slower on more threads.
    os.environ["OMP_NUM_THREADS"] = "1"
    run(PolicyNode)


if __name__ == "__main__":
    main()
