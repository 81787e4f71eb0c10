"""What the policy remembers of the episode that it plays, and of the task that it plays in."""

from collections import deque
from collections.abc import Callable

import numpy as np

from smac_core.deployment.interface import LATENTS, RobotController, Rows
from smac_core.errors import InputError
from smac_ros.contract import CommandReader, Contract
from smac_ros.experience import Series
from smac_ros.messages import Begin, End

LONGEST = 10_000  # steps of an endless episode that are remembered
MOST_STEPS = 10**9
LARGEST_SEED = 2**63
NUMBERS = 2**32  # of episodes are below

NOTHING: Rows = (np.zeros((0, 0)), np.zeros((0, 0)), np.zeros(0, np.float32))


def check_begin(begin: Begin, contract: Contract) -> None:
    """Raise InputError unless a policy can play the episode."""

    def require(condition: bool, field: str, expected: str) -> None:
        if not condition:
            raise InputError("episode", field, getattr(begin, field), expected)

    require(1 <= begin.steps <= MOST_STEPS, "steps", f"1 to {MOST_STEPS}")
    require(0 <= begin.seed < LARGEST_SEED, "seed", f"0 to {LARGEST_SEED - 1}")
    latents = LATENTS[begin.mode]
    require(begin.latent in latents, "latent", f"{' or '.join(latents)} for mode {begin.mode}")
    if begin.mode == "adapt" and contract.reward is None:
        expected = f"explore or exploit: contract {contract.name} has no reward"
        raise InputError("episode", "mode", begin.mode, expected)


class PolicyEpisode:
    """An episode from its beginning to its end.

    Attributes:
        begin: as the manager asked for it.
        endless: of ``~/start``: it ends when it is told to.
        started: whether the policy's random numbers have been drawn from the seed.
        steps: commands given.
        tick: stamp of the last command, ns; None before the first.
        last: stamp of the last observation, ns; None before it came.
        terminal: whether the robot itself has ended it.
    """

    def __init__(self, begin: Begin, endless: bool = False):
        self.begin, self.endless = begin, endless
        self.started = False
        self.steps = 0
        self.tick: int | None = None
        self.last: int | None = None
        self.terminal = False
        self._collects = begin.mode == "adapt"
        most = LONGEST if endless else begin.steps
        # tick, observation and command; ticks alone where no context is collected
        self._rows: deque[tuple[int, np.ndarray | None, np.ndarray | None]] = deque(maxlen=most)
        self._rewards = Series(1)

    @property
    def name(self) -> str:
        return "~/start" if self.endless else f"episode {self.begin.id}"

    @property
    def all_given(self) -> bool:
        """Whether every command has been given."""
        return self.terminal or (not self.endless and self.steps >= self.begin.steps)

    def is_of(self, marker: Begin | End) -> bool:
        """Whether the marker is this episode's."""
        mine = (self.begin.session, self.begin.id)
        return not self.endless and (marker.session, marker.id) == mine

    def gave(self, tick: int, observation: np.ndarray, values: np.ndarray) -> None:
        """A command of message values [da] answered the observation [ds] of ``tick``."""
        self.steps += 1
        self.tick = tick
        kept = (observation.copy(), values) if self._collects else (None, None)
        self._rows.append((tick, *kept))

    def terminated(self, stamp: int) -> None:
        """The robot has ended it with that observation: what was commanded since is no step."""
        self.terminal, self.last = True, stamp
        while self._rows and self._rows[-1][0] >= stamp:
            self._rows.pop()
            self.steps -= 1

    def reward(self, stamp: int, value: np.ndarray) -> None:
        """A reward [1] of the observation with that stamp."""
        if self._collects and self._rows:
            self._rewards.append(stamp, value)
            if self.endless:
                self._rewards.clear_before(self._rows[0][0])

    def rows(self, reader: CommandReader) -> tuple[Rows, int]:
        """In mode adapt the steps with a reward, and how many lack one.

        A step's reward is the newest sample in (its tick, the next tick], as in ``assemble``.
        """
        if not self._rows:
            return NOTHING, 0
        ticks = np.array([tick for tick, _, _ in self._rows], np.int64)
        ends = np.append(ticks[1:], ticks[-1:] if self.last is None else self.last)
        index = np.searchsorted(self._rewards.stamps, ends, "right") - 1
        there = index >= 0
        there[there] = self._rewards.stamps[index[there]] > ticks[there]
        rewards = self._rewards.values[index[there], 0].astype(np.float32)
        steps = [row for row, has in zip(self._rows, there, strict=True) if has]
        if not steps:
            return NOTHING, len(ticks)
        observations = np.stack([observation for _, observation, _ in steps])
        actions = reader.decode(np.stack([values for _, _, values in steps]))
        return (observations, actions, rewards), len(ticks) - len(steps)

    def end(self, reason: str) -> End:
        """Its marker."""
        last = next(s for s in (self.last, self.tick, self.begin.start) if s is not None)
        return End(self.begin.session, self.begin.id, self.steps, last, reason, self.terminal)


class TaskContext:
    """The trajectories of the present task, in the order of their episodes, whenever they come.

    Attributes:
        changed: whether the posterior may have changed since someone set this to False.
    """

    def __init__(self, refused: Callable[[str], None]):
        self._refused = refused
        self._group: tuple[int, int] | None = None
        self._rows: dict[int, Rows] = {}
        self._excluded: set[int] = set()
        self.controller: RobotController | None = None
        self.changed = False

    def __len__(self) -> int:
        return len(self._rows)

    def use(self, controller: RobotController) -> None:
        """The first controller: it learns what came before it."""
        self.controller = controller
        self._refill()

    def enter(self, session: int, group: int) -> None:
        """An episode of that group begins; another one's context is forgotten."""
        if self._group != (session, group):
            self._excluded.clear()
            if self._rows:
                self.clear()
        self._group = (session, group)

    def is_of(self, session: int, group: int) -> bool:
        return self._group == (session, group)

    def clear(self) -> None:
        """Forget all trajectories."""
        self._rows.clear()
        self._refill()

    def exclude(self, episode: int) -> None:
        """An episode that was not played to its end, and is played again, does not count."""
        self._excluded.add(episode)
        if self._rows.pop(episode, None) is not None:
            self._refill()

    def add(self, episode: int | None, rows: Rows) -> None:
        """A trajectory; only the first one of an episode counts. None: after all others."""
        if episode is None:
            episode = max(NUMBERS - 1, *self._rows) + 1 if self._rows else NUMBERS
        if episode not in self._rows and episode not in self._excluded and len(rows[2]):
            self._rows[episode] = rows
            self._refill()

    def _refill(self) -> None:
        self.changed = True
        if self.controller is None:
            return
        self.controller.forget()
        for episode in sorted(self._rows):
            try:
                self.controller.add(*self._rows[episode])
            except (ValueError, FloatingPointError) as error:
                del self._rows[episode]
                self._refused(f"context of episode {episode}: {error}")
