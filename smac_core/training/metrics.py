"""Scalars of a run, in TensorBoard and in one tidy CSV.

``metrics.csv`` is long: one row ``phase,step,name,value`` per scalar, so that one file holds every
phase of a run and any table program reads it. TensorBoard gets one run per phase under
``tensorboard/<phase>``, because steps of different phases count separately.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from smac_core.errors import InputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

HEADER = ["phase", "step", "name", "value"]
_BUFFERED_ROWS = 512


class MetricLogger:
    """Writes scalars to ``metrics.csv`` and TensorBoard event files.

    Args:
        directory: the run's folder.
        resume_step: where an earlier session left off. A number drops what was logged beyond that
            step, in every phase. A mapping gives each phase its own step; phases that it does not
            name come later and are dropped. ``None``: a new run.
        tensorboard: also write event files.

    Raises:
        InputError: ``metrics.csv`` is there although ``resume_step`` is ``None``, or is malformed.
    """

    def __init__(
        self,
        directory: str | Path,
        resume_step: int | Mapping[str, int] | None = None,
        tensorboard: bool = True,
    ) -> None:
        self.directory = Path(directory)
        self.path = self.directory / "metrics.csv"
        self.resume_step = resume_step
        self._tensorboard = tensorboard
        self._writers: dict[str, SummaryWriter] = {}
        self._rows: list[tuple[str, int, str, str]] = []
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and resume_step is None:
            expected = "none in a new run's folder; resume the run or choose another folder"
            raise InputError(self.path, "file", "metrics of an earlier run", expected)
        if not self.path.exists():
            self._replace([])
        elif resume_step is not None:
            self._replace(self._kept_rows())
        self._file = self.path.open("a", newline="", encoding="utf-8")

    def log(self, phase: str, step: int, values: Mapping[str, Any]) -> None:
        """Takes down scalars; numbers, and tensors and arrays of one element.

        Raises:
            FloatingPointError: a value is NaN or infinite. What was logged before it, and the
                other values of this call, are on the disk by then.
        """
        broken = []
        writer = self._writer(phase)
        for name, value in values.items():
            number = float(value)
            if not math.isfinite(number):
                broken.append(f"{name} is {number}")
                continue
            self._rows.append((phase, int(step), name, repr(number)))
            if writer is not None:
                writer.add_scalar(name, number, int(step))
        if broken:
            self.flush()
            raise FloatingPointError(f"{phase}, step {step}: {', '.join(broken)}")
        if len(self._rows) >= _BUFFERED_ROWS:
            self._write_rows()

    def flush(self) -> None:
        """Brings everything logged so far to the files."""
        self._write_rows()
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Writes what is left and closes the files. A second call does nothing."""
        if self._file.closed:
            return
        try:
            self._write_rows()
        finally:
            self._file.close()
            for writer in self._writers.values():
                writer.close()

    def __enter__(self) -> MetricLogger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write_rows(self) -> None:
        rows, self._rows = self._rows, []
        csv.writer(self._file).writerows(rows)
        self._file.flush()

    def _writer(self, phase: str) -> SummaryWriter | None:
        if not self._tensorboard:
            return None
        if phase not in self._writers:
            # Imported here: TensorBoard takes seconds to load, and most programs never log.
            from torch.utils.tensorboard import SummaryWriter

            purge = None if self.resume_step is None else self._last_step(phase) + 1
            folder = self.directory / "tensorboard" / phase
            self._writers[phase] = SummaryWriter(str(folder), purge_step=purge)
        return self._writers[phase]

    def _last_step(self, phase: str) -> int:
        """The last step of ``phase`` that resuming keeps; -1: none."""
        if isinstance(self.resume_step, Mapping):
            return self.resume_step.get(phase, -1)
        return -1 if self.resume_step is None else self.resume_step

    def _kept_rows(self) -> list[list[str]]:
        with self.path.open(newline="", encoding="utf-8") as file:
            lines = file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()  # a crash cut it; its step is beyond the checkpoint anyway
        rows = list(csv.reader(lines))
        if rows and rows[0] != HEADER:
            raise InputError(self.path, "line 1", ",".join(rows[0]), ",".join(HEADER))
        kept = []
        for number, row in enumerate(rows[1:], start=2):
            try:
                phase, step = row[0], int(row[1])
                float(row[3])
            except (IndexError, ValueError):
                expected = ",".join(HEADER)
                raise InputError(self.path, f"line {number}", ",".join(row), expected) from None
            if step <= self._last_step(phase):
                kept.append(row)
        return kept

    def _replace(self, rows: list[list[str]]) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([HEADER, *rows])
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)
