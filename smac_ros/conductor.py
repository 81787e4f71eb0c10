"""Plays a job's episodes: begins each, waits for its end, its rewards and labels, for the learner.

The job is sequential code in a thread of its own. Whoever has the topics
(``episode_manager_node``) tells what it hears by the ``heard_...`` methods, from its own thread;
they leave it in a few attributes under the one condition that the job waits for. Knows no ROS.
"""

import itertools
import json
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from smac_ros.messages import INTERRUPTED, Begin, End
from smac_ros.protocol import Episode, Forgotten, JobFailed, Played, Stopped
from smac_ros.scores import Rewards

ATTEMPTS = 3  # at an episode
POLL = 0.1  # s; how often what raises no event is looked at
LOG = 5.0  # s between two lines of progress
LATE = 2.0  # s that rewards may take after an episode's end
QUIET = 1.0  # s after which a learner that says nothing new waits, too


class GivenUp(Exception):
    """This attempt at an episode has failed; the message says why."""


class Silent(GivenUp):
    """Nobody has ended the episode."""


class Interrupted(Exception):
    """A human has stopped or taken over; the message says who, how and when."""


class Halted(BaseException):
    """The node is leaving: end at once."""


@dataclass(frozen=True)
class Conduct:
    """How episodes are played.

    Attributes:
        steps: an episode's length.
        rate: control steps a second, Hz.
        exact: lockstep: every step has exactly one reward.
        timeout: s without a sign of life until what is waited for is given up.
        manual: someone sets up the scene and says so (``go``) before each episode.
        wait_for_learner: practise with what the last practice has taught.
    """

    steps: int
    rate: float
    exact: bool
    timeout: float
    manual: bool
    wait_for_learner: bool
    seed: int


class Conductor:
    """The job's ``Stage``.

    Args:
        publish: sends a marker.
        ready: puts the robot into an episode's scene, with a seed; the stamp (ns) of the first
            observation. May raise GivenUp and JobFailed, and wait by ``until``.
        diagnostics: of the node.
        log: prints a line.

    Attributes:
        session: number of this process, by which its episodes are told from others'.
        version: of the weights to act with.
        labels: episode -> (mean label, transitions), of labelled trajectories.
        progress: of the learner, the last one.
    """

    def __init__(
        self,
        conduct: Conduct,
        *,
        publish: Callable[[Begin | End], None],
        ready: Callable[[Episode, int], int],
        diagnostics: Any,
        log: Callable[[str], None],
    ):
        self.conduct, self.diagnostics = conduct, diagnostics
        self._publish, self._ready, self._log = publish, ready, log
        self.session = int.from_bytes(os.urandom(4), "little")
        self.groups = itertools.count(1)
        self._ids = itertools.count(1)
        self.changed = threading.Condition()
        self.labels: dict[int, tuple[float, int]] = {}
        self.progress: dict[str, str] = {}
        self._progress_at = 0.0
        self._running: Begin | None = None
        self._ended: End | None = None
        self._rewards = Rewards()
        self.version = self._expected = 0
        self._restarted = False  # the learner, since it was waited for
        self._control = "policy"  # who commands the robot, as the policy says
        self._held = False  # whether anyone else did during the present attempt
        self.reset()

    def reset(self) -> None:
        """Before a job."""
        self._halt = self._stop = self._pause = self._go = False
        self.labels = {}
        self._logged = 0.0
        self._finished: deque[float] = deque(maxlen=50)  # moments, for episodes a second

    def expect_learner(self) -> None:
        """Count from what the learner has and knows now."""
        self.version, self._expected = self._number("version"), self._number("trajectories")

    # What is heard (another thread)

    def heard_marker(self, marker: Begin | End) -> None:
        running = self._running
        if isinstance(marker, End) and running is not None:
            with self.changed:
                if (marker.session, marker.id) == (running.session, running.id):
                    self._ended = marker
                    self.changed.notify_all()

    def heard_reward(self, stamp: int, reward: float, success: bool) -> None:
        with self.changed:
            self._rewards.add(stamp, reward, success)
            if self._ended is not None:
                self.changed.notify_all()

    def heard_control(self, state: str) -> None:
        with self.changed:
            self._control = state
            self._held = self._held or state != "policy"
            self.changed.notify_all()

    def heard_labels(self, episode: int, mean: float, count: int) -> None:
        with self.changed:
            self.labels[episode] = (mean, count)
            self.changed.notify_all()

    def heard_progress(self, values: dict[str, str]) -> None:
        with self.changed:
            before = self._number("trajectories")
            self.progress, self._progress_at = values, time.monotonic()
            if self._number("trajectories") < before:  # a new process counts from zero
                self._expected -= before
                self._restarted = True
                self.diagnostics.count("learner restarts", "the learner was started again")
            self.changed.notify_all()

    # Orders (another thread)

    def order(self, **flags: bool) -> None:
        """``halt``, ``stop``, ``pause`` and ``go``, to be obeyed as soon as it can be."""
        with self.changed:
            for name, value in flags.items():
                setattr(self, f"_{name}", value)
            self.changed.notify_all()

    @property
    def paused(self) -> bool:
        return self._pause

    @property
    def stopping(self) -> bool:
        return self._stop

    # The job's thread

    def until(
        self,
        condition: Callable[[], Any],
        timeout: float | None = None,
        alive: Callable[[], Any] = lambda: None,
    ) -> Any:
        """The condition's value once it is true, None after ``timeout`` s without a sign of life.

        ``alive``: a value whose every change is a sign of life.

        Raises:
            Halted: the node is leaving.
        """
        with self.changed:
            sign, since = alive(), time.monotonic()
            while True:
                if self._halt:
                    raise Halted
                if value := condition():
                    return value
                now = time.monotonic()
                if (new := alive()) != sign:
                    sign, since = new, now
                left = POLL if timeout is None else since + timeout - now
                if left <= 0:
                    return None
                self.changed.wait(min(left, POLL))

    def notify(self, _: Any = None) -> None:
        """Something that a condition looks at has changed."""
        with self.changed:
            self.changed.notify_all()

    def play(self, episode: Episode) -> Played:
        """An episode that a human interrupts is no attempt: it is repeated, however often."""
        attempt = 0
        while attempt < ATTEMPTS:
            self._hold(episode)
            try:
                played = self._attempt(episode, attempt)
            except Interrupted as error:
                self.diagnostics.count("episodes interrupted", f"episode {error}; it is repeated")
                self.until(lambda: self._held, LATE)  # the word on who commands is on its way
            except GivenUp as error:
                attempt += 1
                reason = str(error)
                self.diagnostics.count("episodes given up", f"episode given up: {reason}")
                if isinstance(error, Silent) and episode.context:
                    raise Forgotten(f"an episode with a context was given up: {reason}") from None
            else:
                self._finished.append(time.monotonic())
                return played
        raise JobFailed(f"an episode was given up {ATTEMPTS} times, the last time: {reason}")

    def _hold(self, episode: Episode) -> None:
        """Between two episodes: stop, pause, wait for a human, for whoever sets up the scene."""
        if self._control != "policy" and not self._stop:
            self._log(f"the robot is not the policy's ({self._control}): waits for its ~/resume")
            self.until(lambda: self._stop or self._control == "policy")
        if self._pause and not self._stop:
            self._log("paused; ~/start goes on")
            self.until(lambda: self._stop or not self._pause)
        if self.conduct.manual and not self._stop:
            self._go = False
            scene = json.dumps(episode.scene)
            self._log(f"set up the scene for {episode.mode} and call ~/start: {scene}")
            self.until(lambda: self._stop or self._go)
        if self._stop:
            raise Stopped

    def _attempt(self, episode: Episode, attempt: int) -> Played:
        policy_seed, robot_seed = episode.seeds(self.conduct.seed, attempt)
        with self.changed:
            self._ended = self._running = None
            self._held = self._control != "policy"
            self._rewards.clear()
        begin = episode.begin(
            session=self.session,
            id=next(self._ids),
            start=self._ready(episode, robot_seed),
            steps=self.conduct.steps,
            seed=policy_seed,
            weights=self.version,
        )
        self._running = begin
        self._publish(begin)
        limit = self.conduct.timeout + begin.steps / self.conduct.rate
        try:
            end = self.until(lambda: self._ended, limit)
        except Halted:
            self._give_up(begin, "the episode manager leaves")
            raise
        if end is None:
            reason = f"the policy did not end it within {limit:.0f} s"
            self._give_up(begin, reason)
            raise Silent(reason)
        if end.reason.startswith(INTERRUPTED):
            raise Interrupted(end.reason)
        if end.reason != "complete":
            raise GivenUp(end.reason)
        if episode.purpose != "meta_test":
            return Played(begin, end)
        rewards, exact = self._rewards, self.conduct.exact
        score = self.until(lambda: rewards.score(begin, end, exact), LATE)
        if score is None:
            found = len(rewards.within(begin, end, exact))
            raise GivenUp(f"rewards of only {found} of {end.steps} steps have arrived")
        return Played(begin, end, score)

    def _give_up(self, begin: Begin, reason: str) -> None:
        self._publish(End(begin.session, begin.id, 0, begin.start, f"given up: {reason}"))

    def await_labels(self, played: Sequence[Played]) -> set[int]:
        wanted = {one.begin.id for one in played}
        arrived = self.until(
            lambda: wanted <= self.labels.keys(),
            self.conduct.timeout,
            alive=lambda: len(self.labels),
        )
        missing = set() if arrived else wanted - self.labels.keys()
        if missing:
            text = f"{len(missing)} of {len(wanted)} episodes were not labelled"
            self.diagnostics.count("labels missing", text, by=len(missing))
        return missing

    def await_learner(self) -> None:
        """Until it has taken the steps that it owes for the labelled trajectories.

        Where some were lost on the way, it does with fewer, or waits for the next ones to come;
        practice goes on.
        """
        if not self.conduct.wait_for_learner:
            return
        before, number = self.version, self._number

        def expected() -> int:
            return self._expected + len(self.labels)

        def done() -> bool:
            quiet = time.monotonic() - self._progress_at > QUIET
            if number("updates_owed"):
                return False
            if number("version") <= before:  # a new process may have nothing to learn from
                return self._restarted and quiet and not number("pending_transitions")
            return number("trajectories") >= expected() or quiet

        done = self.until(done, self.conduct.timeout, alive=lambda: self.progress)
        self._restarted, expected = False, expected()
        received, owed = number("trajectories"), number("updates_owed")
        text = f"the learner has {received} of {expected} trajectories"
        if not done and (owed or received == self._expected):
            raise JobFailed(f"{text}, owes {owed} updates and does not go on: see its log")
        if not done or received < expected:
            self.diagnostics.count("iterations with less practice", text)
            self._expected -= max(expected - received, 0)
        self.version = number("version")

    def _number(self, key: str) -> int:
        """A count in the learner's progress."""
        try:
            return int(float(self.progress.get(key, 0)))
        except ValueError:
            return 0

    def say(self, text: str, *, now: bool = False, **shown: Any) -> None:
        moment = time.monotonic()
        if len(self._finished) > 1:
            seconds = self._finished[-1] - self._finished[0]
            rate = f"{(len(self._finished) - 1) / max(seconds, 1e-9):.1f}"
            text += f", {rate} episodes/s"
            shown["episodes_per_second"] = rate
        self.diagnostics.show(**shown)
        if not now and moment - self._logged < LOG:
            return
        self._logged = moment
        if shown.get("phase") == "practice":
            means = [mean for mean, _ in list(self.labels.values())[-50:]]
            text += f"; label mean {statistics.fmean(means):.2f}" if means else ""
            text += f"; learner version {self.version}"
        self._log(text)
