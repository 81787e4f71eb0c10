"""Metrics on disk, progress on the screen, and Ctrl-C that lets a loop save."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from smac_core.errors import InputError
from smac_core.training.metrics import HEADER, MetricLogger
from smac_core.training.progress import Progress, interruptible


def rows(directory: Path) -> list[list[str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def scalars(directory: Path, phase: str) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard" / phase))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_rows_and_events(tmp_path: Path):
    with MetricLogger(tmp_path) as log:
        log.log("offline", 0, {"loss/q": torch.tensor(0.1), "return": np.float32(0.5)})
        log.log("offline", 10, {"loss/q": 3})
        log.log("online", 1, {"loss/q": 2.5})
    log.close()  # a second time
    assert rows(tmp_path) == [
        HEADER,
        ["offline", "0", "loss/q", repr(float(torch.tensor(0.1)))],
        ["offline", "0", "return", "0.5"],
        ["offline", "10", "loss/q", "3.0"],
        ["online", "1", "loss/q", "2.5"],
    ]
    events = scalars(tmp_path, "offline")
    assert events["return"] == [(0, 0.5)] and [step for step, _ in events["loss/q"]] == [0, 10]
    assert scalars(tmp_path, "online") == {"loss/q": [(1, 2.5)]}


def test_rows_are_buffered_but_not_for_long(tmp_path: Path):
    log = MetricLogger(tmp_path, tensorboard=False)
    log.log("a", 0, {"x": 1})
    assert len(rows(tmp_path)) == 1
    log.flush()
    assert len(rows(tmp_path)) == 2
    for step in range(2000):
        log.log("a", step, {"x": 1})
    assert len(rows(tmp_path)) > 1000
    log.close()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_nan_stops_the_run_after_writing_what_led_to_it(tmp_path: Path, value: object):
    log = MetricLogger(tmp_path)
    log.log("offline", 1, {"loss": 1.0})
    with pytest.raises(FloatingPointError, match=r"offline, step 2: bad is (nan|inf)"):
        log.log("offline", 2, {"good": 2.0, "bad": value, "after": 3.0})
    names = [(row[1], row[2]) for row in rows(tmp_path)[1:]]
    assert names == [("1", "loss"), ("2", "good"), ("2", "after")]
    assert set(scalars(tmp_path, "offline")) == {"loss", "good", "after"}
    log.close()


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path: Path):
    with MetricLogger(tmp_path) as log:
        for step in range(5):
            log.log("offline", step, {"x": step})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("offline,5,x,")  # the crash came while this line was written
    with MetricLogger(tmp_path, resume_step=2) as log:
        log.log("offline", 3, {"x": 30})
    assert [row[1::2] for row in rows(tmp_path)[1:]] == [
        ["0", "0.0"],
        ["1", "1.0"],
        ["2", "2.0"],
        ["3", "30.0"],
    ]
    assert scalars(tmp_path, "offline")["x"] == [(0, 0), (1, 1), (2, 2), (3, 30)]


def test_resuming_with_a_step_for_each_phase(tmp_path: Path):
    with MetricLogger(tmp_path, tensorboard=False) as log:
        for phase in ("offline", "self-supervised", "later"):
            for step in (10, 20, 30):
                log.log(phase, step, {"x": 1})
    steps = {"offline": 30, "self-supervised": 20}
    MetricLogger(tmp_path, resume_step=steps, tensorboard=False).close()
    found = [(row[0], row[1]) for row in rows(tmp_path)[1:]]
    assert found == [("offline", step) for step in ("10", "20", "30")] + [
        ("self-supervised", "10"),
        ("self-supervised", "20"),
    ]


def test_a_new_run_never_overwrites_an_old_one(tmp_path: Path):
    MetricLogger(tmp_path, tensorboard=False).close()
    with pytest.raises(InputError, match="metrics of an earlier run"):
        MetricLogger(tmp_path, tensorboard=False)


@pytest.mark.parametrize(
    ("text", "field"),
    [("a,b\n1,2\n", "line 1"), ("phase,step,name,value\noffline,x,loss,1\n", "line 2")],
)
def test_resuming_a_file_of_another_kind(tmp_path: Path, text: str, field: str):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        MetricLogger(tmp_path, resume_step=1, tensorboard=False)
    assert caught.value.field == field
    assert (tmp_path / "metrics.csv").read_text() == text


# --- progress


class Clock:
    """Time that passes only when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_away_from_a_terminal():
    stream, clock = io.StringIO(), Clock()
    with Progress("Training", 100, start=20, stream=stream, clock=clock) as progress:
        for step in range(20, 100):
            clock.now += 0.25
            progress.update(step + 1, loss=torch.tensor(0.123456), task="ant")
    lines = stream.getvalue().splitlines()
    assert lines == [
        "Training: 60/100 (60%), 4.0 it/s, 0:00:10 left, loss 0.1235  task ant",
        "Training: 100/100 (100%), 4.0 it/s, loss 0.1235  task ant",
    ]


def test_quiet_and_unknown_total():
    stream = io.StringIO()
    with Progress("Quiet", 3, quiet=True, stream=stream) as progress:
        progress.advance(3, loss=1)
    assert stream.getvalue() == ""
    with Progress("Open", stream=stream, clock=Clock(), unit="steps") as progress:
        progress.advance(2)
    assert stream.getvalue() == "Open: 2, 0.0 steps/s\n"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress("Training", 10, stream=stream) as progress:
        progress.update(10, loss=0.5)
    for word in ("Training", "10/10", "loss 0.5"):
        assert word in stream.getvalue()


# --- interruption


def test_first_signal_sets_the_flag_and_second_interrupts(capfd: pytest.CaptureFixture):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible("saving") as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested and stop.signal == signal.SIGTERM
        with interruptible() as inner:
            assert inner is stop  # a nested loop stops too
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert "saving" in capfd.readouterr().err


def test_time_can_be_up():
    with interruptible(seconds=0.0) as stop:
        while not stop.requested:
            pass
        assert stop.late and stop.signal is None
    with interruptible(seconds=3600) as stop:
        assert not stop.requested and not stop.late
        stop.requested = True
        assert stop.requested and not stop.late  # it was somebody's wish


def test_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for _ in range(2):
        with interruptible() as stop:
            assert not stop.requested
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_other_threads_get_a_flag_that_stays_false():
    seen = []

    def work():
        with interruptible() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_process_saves_and_leaves(tmp_path: Path, number: int):
    code = textwrap.dedent(
        """
        import sys
        from smac_core.training.progress import interruptible
        with interruptible() as stop:
            print("ready", flush=True)
            while not stop.requested:
                pass
            open(sys.argv[1], "w").write("saved")
        print("left", flush=True)
        """
    )
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        out, error = child.communicate(timeout=30)
    assert child.returncode == 0 and out == "left\n" and "Ctrl-C" in error
    assert (tmp_path / "file").read_text() == "saved"
