"""How a policy acts, waits and stops: everything but its topics. Knows no ROS.

``policy_node`` hands it messages and timers' ticks; it hands back commands and ends of episodes.
What is published where: doc/nodes.md.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from smac_core.deployment.interface import RobotController
from smac_ros.command_topics import CommandTopics
from smac_ros.contract import CommandReader, CommandWriter, Contract, MessageError
from smac_ros.contract_commands import REPEATED
from smac_ros.experience import Fault, Snapshot
from smac_ros.messages import INTERRUPTED, SECOND, End
from smac_ros.policy_episode import PolicyEpisode, TaskContext
from smac_ros.takeover import HumanCommands
from smac_ros.weights import Weights, WeightsReceiver

SILENCE = 5.0  # s without observations that are reported in lockstep, where time may stand still
REWARDS = 2.0  # s to wait for the rewards of an episode that is over
WINDOW = 5.0  # s; the quickest observation of this and the last window is what others are held to
BACKWARDS = SECOND  # ns by which a robot's time must jump back to count as begun anew
FALLEN = "terminated: the robot had ended its episode before the first command"

Cause = Literal["observation", "action", "neighbour", "human"]  # of a safety stop


class Policy:
    """An agent that plays episodes on one robot.

    Args:
        lockstep: the robot's time stands until it has a command.
        commands: where commands go.
        classes: of the commands' messages, by type.
        receiver: of weights; ``present`` is what to begin with, if anything.
        diagnostics: of the node.
        announce: publishes the end of an episode.
        show: publishes the posterior: mean and variance, [1, dz] each.
        now: the node's time, ns.

    Attributes:
        episode: in progress, or waiting for what it needs; None: none.
        controller: None before the first weights.
        repeated: observations that came again and were answered again, in lockstep.
        due: when the next observation to act on is expected (monotonic, s).
        human: whose commands are heard in a takeover.
        suspended: whether a human has interrupted what ``~/start`` began.
    """

    def __init__(
        self,
        contract: Contract,
        *,
        lockstep: bool,
        commands: CommandTopics,
        classes: Mapping[str, Callable[[], Any]],
        receiver: WeightsReceiver,
        diagnostics: Any,
        announce: Callable[[End], None],
        show: Callable[[Any], None],
        now: Callable[[], int],
    ):
        self.contract, self.commands, self.receiver = contract, commands, receiver
        self._diagnostics, self._announce, self._show, self._now = diagnostics, announce, show, now
        self.lockstep = lockstep
        self._by_timer = contract.trigger == "timer" and not lockstep
        self._by_receipt = all(stream.time == "receive" for stream in contract.observations)
        self.writer = CommandWriter(contract, classes)
        self._reader = CommandReader(contract)
        self._snapshot = Snapshot(contract, lockstep)
        self._observation = np.zeros(contract.observation_dim, np.float32)
        self._shortest = min(  # the stream that is stale first
            ((s.max_age_ns, s.topic) for s in contract.observations if not s.optional),
            default=(round(contract.watchdog * SECOND), contract.observations[0].topic),
        )
        self._reward = np.zeros(1)
        self.controller: RobotController | None = None
        self.context = TaskContext(lambda why: diagnostics.count("refused trajectories", why))
        self.episode: PolicyEpisode | None = None
        self._closed: PolicyEpisode | None = None  # the last one
        self.repeated, self.due = 0, float("-inf")
        self.forget_observations()
        self._stopped: Cause | None = None
        self._held_until = 0.0  # monotonic, s: what a stop holds is of the past then
        self._start_ended = False  # what ~/start began was the last to command
        self._silent = self.suspended = False
        self.human = HumanCommands(contract, self.writer, diagnostics)
        self._install(receiver.present)
        self._show_posterior()

    # Weights and posterior

    def _take_weights(self) -> None:
        if self.receiver.waiting:
            idle = self.episode is None or not self.episode.started
            self._install(self.receiver.take(idle))

    def _install(self, weights: Weights | None) -> None:
        if weights is None:
            return
        if self.controller is None:
            self.controller = weights.controller(exact=self.lockstep)
            self.context.use(self.controller)
        else:
            self.controller.swap(weights.agent)
            self.context.changed = True
        if self._stopped == "action":
            self._resume()

    def _show_posterior(self) -> None:
        if self.context.changed and self.controller is not None:
            self.context.changed = False
            self._show(self.controller.posterior)

    # Episodes

    def knows(self, marker: Any) -> bool:
        """Whether it is of the present or the last episode."""
        known = (self.episode, self._closed)
        return any(episode is not None and episode.is_of(marker) for episode in known)

    def begin(self, episode: PolicyEpisode) -> None:
        """Play an episode as soon as its conditions hold; one in progress ends."""
        self.suspended = False
        if self.episode is not None:
            self.finish(f"superseded by {episode.name}")
        if not episode.endless:
            self.context.enter(episode.begin.session, episode.begin.group)
        self.episode = episode
        self._over_since = 0.0
        if self._stopped == "action":
            self._resume()
        self.retry()

    def finish(self, reason: str, *, announce: bool = True, safe: bool | None = None) -> None:
        """The episode is over; ``safe``: tell the robot to stand still, by default in real time.

        In lockstep the robot stands anyway, and a command could be taken for the next episode's.
        """
        episode, self.episode = self.episode, None
        commanded = episode.tick is not None  # also where no command counts as a step
        if commanded and (not self.lockstep if safe is None else safe):
            self.send_safe()
        self._diagnostics.clear("observation")
        if episode.begin.mode == "adapt" and (reason == "complete" or episode.endless):
            rows, _ = episode.rows(self._reader)
            self.context.add(None if episode.endless else episode.begin.id, rows)
        if reason != "complete" and not episode.endless:
            self.context.exclude(episode.begin.id)
        self._take_weights()
        self._show_posterior()
        if commanded:
            self._held_until = time.monotonic() + REPEATED
            self._start_ended = episode.endless and not self.lockstep
        if not episode.endless:
            self._closed = episode
            if announce:
                self._announce(episode.end(reason))

    def _finish_if_complete(self) -> None:
        """All commands and the last observation are there; in mode adapt the rewards besides."""
        episode, missing = self.episode, 0
        if episode.begin.mode == "adapt":
            _, missing = episode.rows(self._reader)
        if not missing:
            self.finish("complete")
        elif not self._over_since:
            self._over_since = time.monotonic()
        elif time.monotonic() - self._over_since > REWARDS:
            lacking = f"{missing} of {episode.steps} rewards did not come within {REWARDS:g} s"
            self._diagnostics.count("missing rewards", lacking)
            self.finish(f"stopped: {lacking}")

    @property
    def waits_for(self) -> str:
        """What the episode cannot go on without; empty: nothing."""
        begin, context = self.episode.begin, len(self.context)
        if self.controller is None:
            return "weights"
        if (version := self.receiver.present.version) < begin.weights:
            return f"weights of version {begin.weights}, has {version}"
        if context < begin.context:
            return f"a context of {begin.context} trajectories, has {context}"
        if not self.commands.open:
            return self.commands.state
        if not self.lockstep and (unheard := self.commands.unheard):
            return unheard
        return self._missing

    # Control

    def observe(self, index: int, stamp: int | None, message: Any) -> None:
        """A message of stream ``index``; without a stamp, its time is that of receipt."""
        stamp, came = self._now() if stamp is None else stamp, time.monotonic()
        if stamp < self._stamps[index] - BACKWARDS:
            self._time_jumped_back(self.contract.observations[index].topic)
        self._stamps[index], self._came[index] = stamp, came
        try:
            complete = self._snapshot.add(index, stamp, message)
        except MessageError as error:
            topic = self.contract.observations[index].topic
            self._diagnostics.count("unreadable observations", f"{topic}: {error}")
            return
        if complete:
            self._tick, self._completed = self._snapshot.stamp, came
            self._step(self._tick)

    def on_period(self) -> None:
        """A control period, where the contract's trigger is the timer."""
        if self._by_timer:
            self._step(self._now())

    def retry(self) -> None:
        """Something that an episode may wait for has come: act on the newest observation."""
        self._take_weights()
        fresh = self.lockstep or time.monotonic() - self._completed <= self.contract.watchdog
        if self._tick is not None and fresh and not self._by_timer:
            self._step(self._tick, again=False)
        self._show_posterior()

    def _step(self, tick: int, again: bool = True) -> None:
        """Act on the observation as of ``tick``; ``again``: answer also what has been answered."""
        self._take_weights()
        late, episode = self._late(tick), self.episode
        if episode is None and self._stopped is None:
            return
        if episode is not None and episode.tick is not None and tick <= episode.tick:
            answered = self.lockstep and tick == episode.tick and episode.last is None
            if again and answered and self._stopped is None:
                self.repeated += 1
                self.commands.publish(self._messages)
            return
        fault = self._snapshot.at(tick, self._observation) or late
        if fault is not None:
            self._on_fault(fault)
            return
        self._heard, self._missing = time.monotonic(), ""
        self._diagnostics.clear("observation")
        if self._stopped == "observation":
            self._resume()
        if episode is None or self._stopped is not None or not self._is_of(episode, tick):
            return
        if not self._is_due(episode, tick):
            return
        if episode.all_given:
            if episode.last is None:
                episode.last = tick
                if not self.lockstep:  # rewards may take their time
                    self.send_safe()
            self._finish_if_complete()
        elif episode.started:
            self._act(episode, tick)
        elif not self.waits_for:
            if self._terminated > episode.begin.start and not episode.endless:
                self._terminated = 0  # the next attempt comes after a reset
                self.finish(f"stopped: {FALLEN}")
            else:
                self._act(episode, tick)
        self._show_posterior()

    def _late(self, tick: int) -> Fault | None:
        """Whether the whole observation is old: it has waited somewhere on its way here.

        The robot's clock may be ahead of this one's or behind it, so its age is counted from the
        quickest one of the last seconds.
        """
        if self.lockstep or self._by_timer:
            return None
        lag, now = self._now() - tick, time.monotonic()
        if now - self._lags_since > WINDOW:
            self._lags, self._lags_since = (self._lags[1], lag), now
        self._lags = (self._lags[0], min(self._lags[1], lag))
        age, (limit, topic) = lag - min(self._lags), self._shortest
        return Fault("stale", topic, age / SECOND) if age > limit else None

    def _is_of(self, episode: PolicyEpisode, tick: int) -> bool:
        """Whether an observation belongs to the episode.

        In lockstep no first observation is ever missed, and what is left of another time (the
        robot was started again) must not be taken for it.
        """
        exactly = self.lockstep and episode.tick is None and not episode.endless
        return tick == episode.begin.start if exactly else tick >= episode.begin.start

    def _is_due(self, episode: PolicyEpisode, tick: int) -> bool:
        """Thins out what a robot publishes faster than the contract's rate."""
        if self.lockstep or self._by_timer:
            return True
        period = self.contract.period_ns
        early = period // 4
        if episode.tick is None:
            self._next = tick
        elif tick < self._next - early:
            return False
        self._next = max(self._next, tick - early) + period
        return True

    def _act(self, episode: PolicyEpisode, tick: int) -> None:
        try:
            if not episode.started:
                begin = episode.begin
                self.writer.reset(self._observation)
                self.controller.begin(
                    begin.mode,
                    seed=begin.seed,
                    deterministic=begin.deterministic,
                    latent=begin.latent,
                )
                episode.started = True
            action = self.controller.act(self._observation)
            elapsed = None if episode.tick is None else (tick - episode.tick) / SECOND
            values = self.writer.encode(action, elapsed, self._observation)
        except (FloatingPointError, ValueError) as error:
            self.stop("action", f"no action: {error}")
            return
        self._messages = self.writer.fill(values, tick)
        self.commands.publish(self._messages)
        self.controller.prepare()  # the next step, now that nobody waits
        episode.gave(tick, self._observation, values)
        self.due = time.monotonic() + 1 / self.contract.rate

    def terminated(self, stamp: int) -> None:
        """The robot itself has ended its episode, with the observation of that stamp, ns.

        In real time without a stamp (0), or where observations have that of receipt: now.
        """
        if not self.lockstep and (self._by_receipt or not stamp):
            stamp = self._now()
        episode = self.episode
        if episode is not None and stamp <= episode.begin.start:
            found = f"terminated: found stamp {stamp}, expected after {episode.begin.start}"
            self._diagnostics.count("ends by the robot ignored", found)
        elif episode is None or not episode.started:
            self._terminated = max(self._terminated, stamp)
        elif episode.last is None or stamp <= episode.last:
            episode.terminated(stamp)
            self._end_by_robot(episode)

    def _end_by_robot(self, episode: PolicyEpisode) -> None:
        if episode.endless:
            self._diagnostics.count("episodes ended by the robot", f"{episode.name}: it fell")
            self.finish("the robot has ended its episode")
        elif not episode.steps:
            self.finish(f"stopped: {FALLEN}")
        else:
            if not self.lockstep:  # rewards may take their time
                self.send_safe()
            self._finish_if_complete()

    def reward(self, stamp: int | None, message: Any) -> None:
        """A message of the contract's reward stream."""
        episode = self.episode
        if episode is None:
            return
        try:
            self.contract.reward.read_values(message, self._reward)
        except MessageError as error:
            self._diagnostics.count("unreadable rewards", str(error))
            return
        if not np.isfinite(self._reward).all():
            found = f"{self.contract.reward.topic}: found {self._reward[0]}, expected a number"
            self._diagnostics.count("unreadable rewards", found)
            return
        episode.reward(self._now() if stamp is None else stamp, self._reward)
        if episode.last is not None:
            self._finish_if_complete()

    # Safety

    @property
    def stopped(self) -> bool:
        """Whether something has stopped the robot that has not gone."""
        return self._stopped is not None

    @property
    def _commanding(self) -> bool:
        """Whether the robot follows commands of an episode."""
        return self.episode is not None and self.episode.tick is not None

    def _on_fault(self, fault: Fault) -> None:
        """An observation that cannot be used."""
        text = f"{fault.topic}: {fault.kind}"
        if fault.kind == "missing":
            self._missing = text
        elif fault.kind != "not finite":
            stream = next(s for s in self.contract.observations if s.topic == fault.topic)
            limit = stream.max_age_ns / SECOND
            text += f", the newest sample is {fault.age_s:.3f} s old, limit {limit:g} s"
        if fault.kind == "dropped":
            self._diagnostics.count("dropped observations", text)
        elif self._commanding:
            self.stop("observation", text)
        elif fault.kind != "missing":
            self._report(text)

    def _report(self, text: str) -> None:
        """A fault of the observations that stops nothing."""
        if self._stopped is None and "observation" not in self._diagnostics.faults:
            self._diagnostics.fault("observation", text)

    def stop(self, cause: Cause, reason: str) -> None:
        """Safety stop: the first reason wins; an episode ends, an endless one pauses."""
        if self._stopped is not None:
            return
        self._stopped, self._held_until = cause, time.monotonic() + REPEATED
        self._diagnostics.fault("stopped", f"stopped: {reason}")
        self.send_safe()
        if self.episode is not None and not self.episode.endless:
            self.finish(f"stopped: {reason}", safe=False)

    def _resume(self) -> None:
        self._stopped = None
        self._diagnostics.clear("stopped")

    def halt(self, takeover: bool = False) -> None:
        """A human stops the robot: the safe command now, and nothing but that until ``go_on``.

        ``takeover``: after the safe command the human commands. ``interrupt`` comes next.
        """
        self._stopped, self._silent = "human", False
        self.send_safe()
        self._held_until = time.monotonic() + REPEATED
        self._silent = takeover
        if takeover:
            self.human.begin()
        self._diagnostics.clear("stopped")

    def interrupt(self, reason: str, suspend: bool) -> None:
        """End the episode; ``suspend``: what ~/start began is to go on after ``go_on``."""
        episode = self.episode
        self.suspended = suspend and (self.suspended or (episode is not None and episode.endless))
        if episode is not None:
            self.finish(f"{INTERRUPTED}{reason}", safe=False)

    def go_on(self) -> None:
        """The human gives the robot back. Whoever else commands has to leave first."""
        self._silent = False
        if self._stopped != "human":
            return
        self._resume()
        self.commands.check()
        if self.commands.foreign:
            self.commands.close(None)

    def on_watchdog(self) -> None:
        """Once a control period, whether or not anything comes in."""
        now = time.monotonic()
        idle = self._stopped is not None or not self._commanding
        if idle and now >= self._held_until and not (self._silent or self.lockstep):
            # Someone may move the robot meanwhile, or start its driver anew: a position of the
            # past, held on, would be a jump then.
            self.writer.let_go()
        if self.episode is not None and self.episode.last is not None:
            self._finish_if_complete()
        elif self._silent:
            able = self.commands.open and not self.lockstep
            for index in self.human.fallen_silent(now) if able else ():
                self.send_safe(only=index)
        elif self._stopped is not None:
            if not self.lockstep:
                self.send_safe()
        elif self._commanding:
            limit, silent = self.contract.watchdog, now - self._heard
            if self.lockstep:
                limit = max(SILENCE, limit)
            if silent > limit:
                oldest = int(np.argmin(self._came))
                topic, age = self.contract.observations[oldest].topic, now - self._came[oldest]
                text = f"no observation for {silent:.3f} s, limit {limit:g} s; the last message "
                text += f"on {topic} is {age:.3f} s old"
                if self.lockstep:
                    self._report(text)
                else:
                    self.stop("observation", text)
        elif self.episode is None and self._start_ended and now < self._held_until:
            self.send_safe()  # a message may be lost; episodes' ends have their successors

    def on_neighbours(self, patience: Any) -> None:
        """A few times a second: whether nobody else commands; ``patience`` of the last command."""
        commands, was_open = self.commands, self.commands.open
        if self._stopped == "human" and was_open:
            return  # a human's publishers come and go, and the safe command has to stay possible
        yields_to, newcomers = commands.check()
        if yields_to:
            self.stop("neighbour", yields_to)
            commands.close(patience)
            self.writer.let_go()  # it is the other's robot now
        if newcomers:
            self._diagnostics.count("other publishers of commands", newcomers)
        if commands.open:
            self._diagnostics.clear("another publisher")
            resumes = self._stopped == "neighbour" and not commands.unheard
            if resumes:
                self._resume()
            if resumes or not was_open:
                self.retry()
        elif commands.foreign:
            self._diagnostics.fault("another publisher", commands.foreign)

    def send_safe(self, only: int | None = None) -> None:
        """The contract's safe command, or ``only`` one of its messages, if this node commands."""
        if not self.commands.open:
            return
        stamp = max(self._stamps)
        if not self.lockstep:  # after all observations: it answers none
            stamp = max(self._now(), stamp + 1)
        messages = self.writer.fill_safe(stamp)
        if only is not None:
            messages = [m if index == only else None for index, m in enumerate(messages)]
        self.commands.publish(messages)

    def close(self, patience: Any) -> None:
        """End what is in progress; the robot's last command is the safe one."""
        if self.episode is not None:
            self.finish("stopped: the policy is deactivated", safe=False)
        if not self._silent:
            self.send_safe()
        self.commands.close(patience)
        self.suspended = False
        if self._stopped != "human":
            self._stopped = None
        self.forget_observations()

    def forget_observations(self) -> None:
        """What came so far is of another time."""
        self._snapshot.clear()
        self._stamps = [0] * len(self.contract.observations)  # the last one of each stream
        self._tick: int | None = None  # stamp of the newest complete observation
        self._completed = self._heard = 0.0  # when it came, when a good one came (monotonic)
        self._came = np.full(len(self.contract.observations), time.monotonic())
        self._missing = "observations"
        self._lags, self._lags_since = (float("inf"), float("inf")), 0.0  # of two windows, ns
        self._next = 0  # tick of the next command, ns
        self._terminated = 0  # when the robot ended an episode that had not begun here, ns

    def _time_jumped_back(self, topic: str) -> None:
        """The robot was started again: what is known is of another time."""
        text = f"the stamps on {topic} jumped back"
        self._diagnostics.count("time jumped back", text)
        commanding, episode = self._commanding, self.episode
        self.forget_observations()
        if commanding and episode.endless:
            self.begin(PolicyEpisode(episode.begin, endless=True))
        elif commanding:
            self.finish(f"stopped: {text}")
