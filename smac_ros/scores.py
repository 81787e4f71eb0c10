"""Scores of the meta-test: from rewards to a table. Knows no ROS."""

from typing import Any, NamedTuple

import numpy as np

from smac_core.commands.evaluate import percent, plain
from smac_core.evaluation import interval
from smac_ros.messages import Begin, End

FEW = 4  # values


class Score(NamedTuple):
    """Sum of an episode's rewards, and success at its last step."""

    total: float
    success: bool


class Rewards:
    """The rewards of one episode, told by their stamps: the robot may send one again."""

    def __init__(self) -> None:
        self._samples: dict[int, tuple[float, bool]] = {}

    def clear(self) -> None:
        self._samples.clear()

    def add(self, stamp: int, reward: float, success: bool) -> None:
        """A sample with the stamp (ns) of the observation that follows the action."""
        self._samples[stamp] = (reward, success)

    def within(self, begin: Begin, end: End, exact: bool) -> list[int]:
        """Stamps of an episode's rewards, in order.

        ``exact``: every step has one (lockstep). Else those until the last observation.
        """
        after = sorted(stamp for stamp in self._samples if stamp > begin.start)
        if exact:
            return after[: end.steps]
        return [stamp for stamp in after if stamp <= end.last]

    def score(self, begin: Begin, end: End, exact: bool) -> Score | None:
        """Of the whole episode; None while a reward is missing."""
        stamps = self.within(begin, end, exact)
        complete = len(stamps) == end.steps if exact else stamps and stamps[-1] >= end.last
        if not stamps or not complete:
            return None
        samples = [self._samples[stamp] for stamp in stamps]
        return Score(float(sum(reward for reward, _ in samples)), samples[-1][1])


class Scores:
    """Scores of K tasks x R repeats; a task counts once all its repeats are in.

    ``numbers`` are the tasks' in their set, ``weights`` the version that acted.
    """

    def __init__(
        self, tasks: list[dict[str, Any]], numbers: list[int], repeats: int, weights: int = 0
    ):
        self.tasks, self.numbers, self.weights = tasks, numbers, weights
        shape = (len(tasks), repeats)
        self.returns, self.success = np.full(shape, np.nan), np.full(shape, np.nan)
        self.exploration_returns = np.full(shape, np.nan)

    def add(self, row: int, repeat: int, last: Score, explored: list[Score]) -> None:
        """The last episode's score and those of the exploration before it."""
        self.returns[row, repeat], self.success[row, repeat] = last
        totals = [score.total for score in explored]
        self.exploration_returns[row, repeat] = np.mean(totals) if totals else np.nan

    @property
    def success_rate(self) -> float:
        """Share of successes so far."""
        return float(np.nanmean(self.success)) if np.isfinite(self.success).any() else np.nan

    @property
    def mean_return(self) -> float:
        """Mean of the returns so far."""
        return float(np.nanmean(self.returns)) if np.isfinite(self.returns).any() else np.nan

    @property
    def rows(self) -> list[int]:
        """The tasks that count."""
        return np.flatnonzero(np.isfinite(self.returns).all(1)).tolist()

    def behaviors(self, rows: list[int]) -> dict[str, list[int]]:
        """``rows`` by desired behaviour, where tasks name one."""
        found: dict[str, list[int]] = {}
        for row in rows:
            if "behavior" in self.tasks[row]:
                found.setdefault(str(self.tasks[row]["behavior"]), []).append(row)
        return dict(sorted(found.items()))

    def report(self) -> dict[str, Any]:
        """JSON-able: the tasks that count, scores [K][R], means and intervals."""
        rows = self.rows
        exploration = self.exploration_returns[rows]
        return {
            "tasks": [self.tasks[i] for i in rows],
            "task_numbers": [self.numbers[i] for i in rows],
            "complete": len(rows) == len(self.tasks),
            "returns": self.returns[rows].tolist(),
            "success": (self.success[rows] == 1).tolist(),
            "exploration_returns": exploration.tolist() if len(rows) else [],
            "summary": self._summary(rows),
            "by_behavior": {n: self._summary(r) for n, r in self.behaviors(rows).items()},
        }

    def _summary(self, rows: list[int]) -> dict[str, Any] | None:
        if not rows:
            return None
        return {
            "tasks": len(rows),
            "return": interval(self.returns[rows].mean(1)),
            "success": interval(self.success[rows].mean(1)),
        }


def difference(before: Scores, after: Scores, rows: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What each of these tasks has gained in success and in return [n]."""
    success, returns = (
        (getattr(after, name) - getattr(before, name))[rows].mean(1)
        for name in ("success", "returns")
    )
    return success, returns


def table_rows(scores: dict[str, Scores]) -> list[tuple[str, str, str, str]]:
    """Name, number of tasks, success and return: all tasks, then each desired behaviour."""
    lines: list[tuple[str, str, str, str]] = []
    for name, one in scores.items():
        if not one.rows:
            continue
        source = f"weights {one.weights}" if one.weights else "offline phase"
        groups = {f"{name}: {source}": one.rows}
        groups |= {f"  {behavior}": rows for behavior, rows in one.behaviors(one.rows).items()}
        for label, rows in groups.items():
            returns, success = one.returns[rows].mean(1), one.success[rows].mean(1)
            cells = percent(shown(success)), plain(shown(returns))
            lines.append((label, str(len(rows)), *cells))
    if len(scores) == 2:
        before, after = scores["before"], scores["after"]
        both = [row for row in before.rows if row in after.rows]
        groups = {"difference": both} if both else {}
        groups |= {f"  {behavior}": rows for behavior, rows in before.behaviors(both).items()}
        for label, rows in groups.items():
            success, returns = difference(before, after, rows)
            cells = signed(shown(success), percent), signed(shown(returns), plain)
            lines.append((label, str(len(rows)), *cells))
    return lines


def shown(values: np.ndarray) -> dict[str, float | None]:
    """An interval for the table; so few values (``FEW``) have none that says anything."""
    found = interval(values)
    return found if len(values) >= FEW else found | {"half_width_95": None}


def signed(value: dict[str, float | None], text: Any) -> str:
    """With a plus where it is one."""
    written = text(value)
    return f"+{written}" if value["mean"] > 0 else written


def make_table(
    scores: dict[str, Scores],
    episodes: int,
    practice: dict[str, int],
    *,
    measures_success: bool = True,
) -> Any:
    """A rich table; ``practice`` counts trajectories and transitions between before and after.

    ``measures_success``: whether the domain knows success, else there is no such column.
    """
    from rich import box
    from rich.table import Table

    count = max(len(one.rows) for one in scores.values())
    caption = ""
    if practice["trajectories"]:
        caption = f"practice: {practice['trajectories']} trajectories, "
        caption += f"{practice['transitions']} transitions without rewards"
    title = f"{count} held-out tasks, last of {episodes} episodes (mean ± 95 %)"
    width = max(len(title), len(caption))
    table = Table(title=title, caption=caption or None, box=box.SIMPLE, min_width=width)
    table.add_column("", no_wrap=True)
    kept = (0, 1, 2, 3) if measures_success else (0, 1, 3)
    headings = ("", "tasks", "success", "return")
    for index in kept[1:]:
        table.add_column(headings[index], no_wrap=True, justify="right")
    for line in table_rows(scores):
        table.add_row(*(line[index] for index in kept))
    return table
