"""The reward labeler: an episode's samples from the robot's topics become a labelled trajectory.

No reward is listened to. Labels are the decoder's (equation 4), for z from a task's offline
history: the very numbers of ``smac_core.training.labelling.label`` for the same transitions.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header, String, UInt8MultiArray

from smac_core.data.trajectories import Trajectories
from smac_core.deployment.hub import hub_phase
from smac_core.errors import InputError
from smac_core.training.labelling import Labeler
from smac_core.training.run import load_context_agent, load_dataset, run_folder
from smac_ros.base_node import Parameter, SmacNode, latched, reliable, run, sensor
from smac_ros.contract import (
    Command,
    CommandReader,
    MessageError,
    Stream,
    load_contract,
    message_class,
)
from smac_ros.experience import DONE, JUMP, KEPT, OPEN, OVERDUE, Series, Transitions, assemble
from smac_ros.messages import (
    SECOND,
    Begin,
    End,
    Trajectory,
    pack_trajectory,
    parse_marker,
    stamp_ns,
)
from smac_ros.weights import Weights, WeightsReceiver

POLL = 0.1  # s between two looks at what waits for its last samples
COUNTS = 2**32  # of what a trajectory's message has room for


@dataclass
class _Episode:
    """What is known of an episode that is not labelled yet."""

    begin: Begin | None = None
    end: End | None = None
    whole_since: float = 0.0  # when both were there, s

    @property
    def start(self) -> int:
        return self.begin.start if self.begin is not None else self.end.last


class RewardLabelerNode(SmacNode):
    """Begin, End and samples may come in any order; see ``_Episode`` and ``_has_all``."""

    parameters = (
        Parameter("contract", "sawyer_sim", "Name or path of the robot's contract."),
        Parameter("checkpoint", "", "Run folder; empty or shipped: the domain's that is shipped."),
        Parameter("phase", "", "offline, self_supervised, ...; empty: the latest of these two."),
        Parameter("dataset", "", "Offline histories, HDF5; empty: the run's."),
        Parameter("clock", "real_time", "Whose time.", choices=("real_time", "lockstep")),
        Parameter(
            "labelling_task",
            "",
            "Whose history labels: the scene's task, or any; empty: as configured.",
            choices=("", "same", "uniform"),
        ),
        Parameter("context", 0, "Transitions of the history; 0: as configured.", low=0, high=10**6),
        Parameter(
            "seed", 0, "Of the labels' draws, with the episode's seed.", low=0, high=2**32 - 1
        ),
        Parameter(
            "grace", 0.5, "Seconds after an end to wait for last samples.", low=0.0, high=3600.0
        ),
    )

    def __init__(self, **arguments: Any):
        super().__init__("reward_labeler", **arguments)
        self._receiver: WeightsReceiver | None = None
        self._active = self._whole = False  # whole: some episode waits for samples alone
        self._sequence = self._labelled = 0
        self._sum = 0.0  # of rewards, and of how many
        self._count = 0
        self._episodes: OrderedDict[tuple[int, int], _Episode] = OrderedDict()
        self._done: OrderedDict[tuple[int, int], None] = OrderedDict()

    # Lifecycle

    def configure(self) -> None:
        self._contract = contract = load_contract(self.setting("contract"))
        if self.setting("clock") == "lockstep":
            contract.require_lockstep()
        self._load()
        self._reader = CommandReader(contract)
        self._publisher = self.own(
            "publisher", PointCloud2, "labelled_trajectories", reliable(100)
        )
        lossless = reliable(100) if self.setting("clock") == "lockstep" else sensor(100)
        for index, stream in enumerate(contract.observations):
            self.own(
                "subscription",
                message_class(stream.type),
                stream.topic,
                lambda message, index=index: self._on_observation(index, message),
                lossless,
            )
        for index, command in enumerate(contract.actions):
            self.own(
                "subscription",
                message_class(command.type),
                command.topic,
                lambda message, index=index: self._on_command(index, message),
                reliable(100),
            )
        self.own("subscription", String, "episode", self._on_episode, reliable(100))
        self.own("subscription", Header, "terminated", self._on_terminated, reliable(10))
        self.own("subscription", UInt8MultiArray, "weights", self._receiver.receive, latched())
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.own("timer", POLL, self._on_timer, clock=steady)
        self.diagnostics.show(
            labelled_trajectories=lambda: self._labelled,
            labelled_reward=lambda: f"{self._sum / max(self._count, 1):.4f}",
            weights_version=lambda: self._receiver and self._receiver.present.version,
            episodes_under_way=lambda: len(self._episodes),
        )

    def _load(self) -> None:
        """Agent and histories."""
        dataset = self.setting("dataset")
        folder = run_folder(self.setting("checkpoint"), self._contract.domain)
        phase = self.setting("phase") or hub_phase(folder)
        if not phase:
            trained = (folder / "self_supervised" / "checkpoints" / "latest").exists()
            phase = "self_supervised" if trained else "offline"
        agent, config, state = load_context_agent(folder, phase)
        self._contract.check_run(config.environment, state["contract"], folder)
        histories = load_dataset(folder, state, Path(dataset) if dataset else None)
        self._labeler = Labeler(
            agent,
            histories,
            config,
            task=self.setting("labelling_task"),
            context=self.setting("context"),
            seed=self.setting("seed"),
        )
        self._receiver = WeightsReceiver(
            self._contract,
            self.diagnostics.count,
            lambda: None,  # the next episode takes them
            Weights(agent, 0, ""),
        )

    def activate(self) -> None:
        contract = self._contract
        self._streams = [Series(stream.width) for stream in contract.observations]
        self._commands = [Series(command.width) for command in contract.actions]
        self._terminated: deque[int] = deque(maxlen=OPEN)  # stamps of the robot's own ends, ns
        self._episodes.clear()
        self._active, self._whole = True, False

    def deactivate(self) -> None:
        self._active = False

    def cleanup(self) -> None:
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None

    # Samples

    def _on_observation(self, index: int, message: Any) -> None:
        stream = self._contract.observations[index]
        self._sample(self._streams, index, stream, message, stream.read_values)

    def _on_command(self, index: int, message: Any) -> None:
        def read(message: Any, out: np.ndarray) -> None:
            out[:] = self._reader.values(index, message)

        self._sample(self._commands, index, self._contract.actions[index], message, read)

    def _sample(
        self,
        all_series: list[Series],
        index: int,
        source: Stream | Command,
        message: Any,
        read: Callable[[Any, np.ndarray], None],
    ) -> None:
        if not self._active:
            return
        values = np.empty(source.width)
        try:
            read(message, values)
        except MessageError as error:
            self.diagnostics.count("samples refused", f"{source.topic}: {error}")
            return
        if source.time == "header":
            stamp = stamp_ns(message.header.stamp)
        else:
            stamp = self.get_clock().now().nanoseconds
        last = all_series[index].last
        if last is not None and stamp < last - JUMP:
            self.diagnostics.count("clocks set back", f"{source.topic}: its time went back")
            all_series[index] = Series(source.width)
            self._terminated.clear()
        all_series[index].append(stamp, values)
        if self._whole:
            self._label_what_is_there()

    def _on_terminated(self, message: Header) -> None:
        """Marks also an episode that the policy had ended with its last step already."""
        if self._active:
            self._terminated.append(stamp_ns(message.stamp))

    # Episodes

    def _on_episode(self, message: String) -> None:
        if not self._active:
            return
        try:
            marker = parse_marker(message.data)
            for name in ("session", "id", "group"):
                value = getattr(marker, name, 0)
                if not 0 <= value < COUNTS:
                    raise InputError("episode", name, value, f"0 to {COUNTS - 1}")
        except InputError as error:
            self.diagnostics.count("markers refused", str(error))
            return
        key = (marker.session, marker.id)
        if key in self._done:  # for example the manager's end, after the policy's
            return
        if isinstance(marker, Begin) and marker.purpose == "meta_test":
            self._close(key)
            return
        episode = self._episodes.setdefault(key, _Episode())
        if isinstance(marker, Begin):
            episode.begin = episode.begin or marker
        else:
            episode.end = episode.end or marker
        if episode.begin is not None and episode.end is not None:
            episode.whole_since = episode.whole_since or time.monotonic()
            self._whole = True
        self._label_what_is_there()
        halves = [key for key, episode in self._episodes.items() if not episode.whole_since]
        if len(halves) > OPEN:
            self._forget(halves[0], f"{OPEN} others have come since")

    def _close(self, key: tuple[int, int]) -> None:
        self._episodes.pop(key, None)
        self._done[key] = None
        if len(self._done) > DONE:
            self._done.popitem(last=False)

    def _forget(self, key: tuple[int, int], why: str) -> None:
        missing = "end" if self._episodes[key].end is None else "begin"
        self.diagnostics.count(f"episodes without {missing}", f"episode {key[1]} forgotten: {why}")
        self._close(key)

    def _on_timer(self) -> None:
        """Label what has waited long enough; forget what nobody will need."""
        if not self._active:
            return
        self._label_what_is_there()
        newest = max((s.last for s in self._streams if len(s)), default=None)
        if newest is None:
            return
        for key, episode in list(self._episodes.items()):
            steps = episode.begin.steps if episode.begin is not None else 0
            late = newest - episode.start
            if late > 3 * steps * self._contract.period_ns + OVERDUE:
                self._forget(key, "it is overdue")
            elif late < -OVERDUE:
                self._forget(key, "the clock was set back")
        starts = [episode.start for episode in self._episodes.values()]
        for series in (*self._streams, *self._commands):
            series.clear_before(min([newest - KEPT, *starts]))

    def _label_what_is_there(self) -> None:
        if not self._whole:
            return
        now, grace = time.monotonic(), self.setting("grace")
        for key, episode in list(self._episodes.items()):
            if not episode.whole_since:
                continue
            if self._has_all(episode) or now - episode.whole_since >= grace:
                self._close(key)
                self._label(episode.begin, episode.end)
        self._whole = any(episode.whole_since for episode in self._episodes.values())

    def _has_all(self, episode: _Episode) -> bool:
        """Whether every stream has got as far as the last observation, every command as the end."""
        begin, end = episode.begin, episode.end
        if any(series.last is None or series.last < end.last for series in self._streams):
            return False
        for series in self._commands:
            first, after = np.searchsorted(series.stamps, (begin.start, end.last + 1))
            if after - first < end.steps:
                return False
        return True

    def _label(self, begin: Begin, end: End) -> None:
        transitions = assemble(
            self._contract,
            self._streams,
            self._commands,
            start=begin.start,
            last=end.last,
            steps=end.steps,
        )
        for reason, count in transitions.left_out.items():
            text = f"episode {begin.id}: {count} transitions left out: {reason}"
            self.diagnostics.count(f"transitions left out, {reason}", text, by=count)
        if not len(transitions.ticks):
            self.diagnostics.count("episodes skipped", f"episode {begin.id} has no transitions")
            return
        weights = self._receiver.take(idle=True) or self._receiver.present
        self._labeler.agent = weights.agent
        try:
            task = self._labeler.choose(begin.task, begin.group, begin.session)
        except InputError as error:
            self.diagnostics.count("episodes skipped", f"episode {begin.id}: {error}")
            return
        one = Trajectories.one(
            transitions.observations, transitions.actions, transitions.next_observations
        )
        rewards = self._labeler.label(one, task, begin.seed)[0].numpy()
        if not np.isfinite(rewards).all():
            text = f"episode {begin.id}: a label is NaN or infinite"
            self.diagnostics.count("episodes skipped", text)
            return
        terminals = np.zeros_like(rewards)
        if end.terminal or end.last in self._terminated:
            terminals[-1] = transitions.next_ticks[-1] == end.last
            if not terminals[-1]:
                text = f"episode {begin.id}: the transition at whose end the robot fell is left out"
                self.diagnostics.count("terminals left out", text)
        self._publish(begin, transitions, rewards, terminals, task, weights.version)

    def _publish(
        self,
        begin: Begin,
        transitions: Transitions,
        rewards: np.ndarray,
        terminals: np.ndarray,
        task: int,
        version: int,
    ) -> None:
        trajectory = Trajectory(
            session=begin.session,
            episode=begin.id,
            group=begin.group,
            sequence=self._sequence,
            task=task,
            exploration=begin.purpose == "exploration",
            weights=version,
            stamp=begin.start,
            times=(transitions.ticks - begin.start) / SECOND,
            observations=transitions.observations,
            actions=transitions.actions,
            rewards=rewards,
            next_observations=transitions.next_observations,
            terminals=terminals,
        )
        self._publisher.publish(pack_trajectory(trajectory))
        self._sequence = (self._sequence + 1) % COUNTS
        self._labelled += 1
        self._sum += float(rewards.sum())
        self._count += len(rewards)


def main() -> None:
    """Entry point of the executable."""
    torch.set_num_threads(1)  # the networks are small, and the robot's other nodes need cores
    run(RewardLabelerNode)


if __name__ == "__main__":
    main()
