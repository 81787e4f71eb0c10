"""Long loops: a progress bar, and a Ctrl-C that lets the loop save first.

Progress goes to standard error, so that standard output stays free for results (``--json``).
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

_LINE_SECONDS = 10.0


class Progress:
    """Shows how far a loop is: completed of total, rate, time left, and a few metrics.

    On a terminal a bar; elsewhere one plain line every ten seconds and one at the end. A context
    manager::

        with Progress("Offline training", total=steps, start=resumed_at) as progress:
            for step in range(resumed_at, steps):
                progress.update(step + 1, loss=loss)

    Args:
        description: what the loop does.
        total: how many steps there are; ``None`` where nobody knows.
        start: how many are done already (a resumed run).
        quiet: show nothing.
        unit: name of a step in the rate.
        stream: where to write; standard error when not given.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        description: str,
        total: int | None = None,
        *,
        start: int = 0,
        quiet: bool = False,
        unit: str = "it",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.description, self.total, self.start, self.unit = description, total, start, unit
        self.completed = start
        self.metrics: dict[str, Any] = {}
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._began = self._last = clock()
        self._bar: RichProgress | None = None
        self._plain = False
        self._task: TaskID | None = None
        self._quiet = quiet
        self._shown = -1  # completed steps in the last plain line

    def __enter__(self) -> Progress:
        self._began = self._last = self._clock()
        if self._quiet:
            return self
        if not self._stream.isatty():
            self._plain = True
            return self
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
        ]
        console = Console(file=self._stream)
        self._bar = RichProgress(*columns, console=console, refresh_per_second=4)
        self._bar.start()
        self._task = self._bar.add_task(
            self.description, total=self.total, completed=self.start, rate="", metrics=""
        )
        return self

    def update(self, completed: int, **metrics: Any) -> None:
        """Tells that ``completed`` steps are done; metrics replace those of the same name."""
        self.completed = completed
        self.metrics.update(metrics)
        now = self._clock()
        if self._bar is not None and self._task is not None:
            # Formatting each step would cost more than some steps do.
            if now - self._last < 0.1 and completed != self.total:
                return
            self._last = now
            self._bar.update(
                self._task, completed=completed, rate=self._rate(), metrics=self._metrics()
            )
        elif self._plain and now - self._last >= _LINE_SECONDS:
            self._last = now
            self._line()

    def advance(self, steps: int = 1, **metrics: Any) -> None:
        """Tells that ``steps`` more are done."""
        self.update(self.completed + steps, **metrics)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, completed=self.completed, rate=self._rate(), metrics=self._metrics()
            )
            self._bar.stop()
        elif self._plain and self._shown != self.completed:
            self._line()

    def _speed(self) -> float:
        seconds = self._clock() - self._began
        return (self.completed - self.start) / seconds if seconds > 0 else 0.0

    def _rate(self) -> str:
        return f"{self._speed():.1f} {self.unit}/s"

    def _metrics(self) -> str:
        shown = []
        for name, value in self.metrics.items():
            try:
                shown.append(f"{name} {float(value):.4g}")
            except (TypeError, ValueError):
                shown.append(f"{name} {value}")
        return "  ".join(shown)

    def _line(self) -> None:
        self._shown = self.completed
        share, left = "", ""
        if self.total:
            share = f"/{self.total} ({100 * self.completed / self.total:.0f}%)"
            if self._speed() > 0 and self.completed < self.total:
                seconds = round((self.total - self.completed) / self._speed())
                left = f", {seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d} left"
        metrics = f", {self._metrics()}" if self.metrics else ""
        text = f"{self.description}: {self.completed}{share}, {self._rate()}{left}{metrics}"
        print(text, file=self._stream, flush=True)


class Stop:
    """``requested`` turns true at the first SIGINT or SIGTERM, or when the time is up."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.signal: int | None = None
        self._deadline = time.monotonic() + seconds
        self._asked = False

    @property
    def requested(self) -> bool:
        return self._asked or self.late

    @requested.setter
    def requested(self, value: bool) -> None:
        self._asked = value

    @property
    def late(self) -> bool:
        """Whether it is the time that is up."""
        return not self._asked and time.monotonic() > self._deadline


_current: Stop | None = None


def stop_requested() -> bool:
    """Whether a block of ``interruptible`` around this has been asked to stop, if there is one."""
    return _current is not None and _current.requested


@contextlib.contextmanager
def interruptible(
    message: str = "stopping after this step", seconds: float = math.inf
) -> Iterator[Stop]:
    """Turns the first SIGINT or SIGTERM into a flag, so that a loop can save and leave.

    So do ``seconds`` that are over. The second signal raises KeyboardInterrupt. The handlers from
    before come back at the end. Blocks inside each other share one flag. Outside the main thread,
    where Python takes no signals, no signal turns it::

        with interruptible() as stop:
            while not stop.requested:
                step()
    """
    global _current
    if threading.current_thread() is not threading.main_thread():
        yield Stop(seconds)
        return
    if _current is not None:
        yield _current
        return

    stop = Stop(seconds)

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        stop.signal = number
        # os.write: print may be what the signal has interrupted, and is not re-entrant.
        with contextlib.suppress(OSError):
            os.write(2, f"\n{message}; Ctrl-C again stops at once\n".encode())

    # A terminal that closes sends SIGHUP; one that is ignored already (nohup) stays so.
    closed = () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)
    numbers = (signal.SIGINT, signal.SIGTERM, *closed)
    before = {number: signal.signal(number, handle) for number in numbers}
    _current = stop
    try:
        yield stop
    finally:
        _current = None
        for number, handler in before.items():
            signal.signal(number, handler)
