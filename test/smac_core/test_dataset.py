"""The dataset file: what is written comes back, and everything unusable is refused by name."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pytest

from smac_core.data import dataset_format, dataset_writer
from smac_core.data.dataset import (
    ARRAYS,
    SCHEMA_VERSION,
    Dataset,
    DatasetError,
    TaskData,
)
from smac_core.data.dataset_writer import DatasetWriter

HORIZON = 5


def make_task(seed: int = 0, split: str = "train", trajectories: int = 3, **changes) -> TaskData:
    rng = np.random.default_rng(seed)
    n = trajectories * HORIZON
    timeouts = np.zeros(n, bool)
    timeouts[HORIZON - 1 :: HORIZON] = True
    fields = {
        "observations": rng.normal(size=(n, 3)).astype(np.float32),
        "actions": rng.uniform(-1, 1, size=(n, 2)).astype(np.float32),
        "rewards": rng.normal(size=n).astype(np.float32),
        "next_observations": rng.normal(size=(n, 3)).astype(np.float32),
        "terminals": np.zeros(n, bool),
        "timeouts": timeouts,
        "task": {"velocity": 1.5, "seed": seed},
        "split": split,
    }
    return TaskData(**(fields | changes))


def writer(path: Path, **changes) -> DatasetWriter:
    fields = {
        "domain": "cheetah",
        "rate": 20.0,
        "observation_names": ["x", "y", "z"],
        "observation_units": ["m", "m", "rad"],
        "action_names": ["a", "b"],
        "action_units": ["1", "1"],
        "horizon": HORIZON,
        "seed": 3,
        "command": "smac collect cheetah --seed 3",
    }
    return DatasetWriter(path, **(fields | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.h5"


@pytest.fixture
def written(path: Path) -> Path:
    with writer(path) as out:
        out.add_task("train", make_task(0))
        out.add_task("train", make_task(1))
        out.add_task("test", make_task(2, "test"))
    return path


def refused(path: Path) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        Dataset.load(path)
    assert str(path) in str(caught.value)
    return caught.value


def test_round_trip_is_exact(written: Path):
    data = Dataset.load(written)
    assert (len(data.train), len(data.test)) == (2, 1)
    for task, seed in [(data.train[0], 0), (data.train[1], 1), (data.test[0], 2)]:
        original = make_task(seed, task.split)
        assert task.task == original.task
        for name in ARRAYS:
            array = getattr(task, name)
            assert array.dtype == getattr(original, name).dtype
            np.testing.assert_array_equal(array, getattr(original, name))
    assert data.domain == "cheetah" and data.rate == 20.0 and data.seed == 3
    assert data.horizon == HORIZON and data.contract is None
    assert data.observation_names == ["x", "y", "z"] and data.action_units == ["1", "1"]
    assert (data.observation_dim, data.action_dim) == (3, 2)
    assert data.command == "smac collect cheetah --seed 3" and data.git
    assert os.listdir(written.parent) == [written.name]


def test_optional_attributes(path: Path):
    contract = "topics:\n" * 20_000  # above HDF5's 64 KiB limit for plain attributes
    with writer(path, rate=None, contract=contract) as out:
        out.add_task("train", make_task())
    data = Dataset.load(path)
    assert data.rate is None and data.contract == contract and data.test == []
    assert data.train[0].cut == (False, False)


def test_returns_are_those_of_whole_trajectories(path: Path, tmp_path: Path):
    from smac_core.commands.collect import write_subset

    rewards = np.repeat(np.float32([0, 1, 2]), HORIZON)
    with writer(path) as out:
        for cut in ((True, False), (False, True), (True, True)):
            context = make_task(9, task={}, cut=cut)
            out.add_task("train", make_task(rewards=rewards, cut=cut, context=context))
        out.add_task("test", make_task(0, "test", trajectories=1, cut=(True, True)))
    data = Dataset.load(path)
    assert [task.cut for task in data.train] == [(True, False), (False, True), (True, True)]
    assert [task.history.cut for task in data.train] == [task.cut for task in data.train]
    found = [task.returns.tolist() for task in data.train]
    assert found == [[HORIZON, 2 * HORIZON], [0, HORIZON], [HORIZON]]
    splits = data.summary()["splits"]
    assert splits["train"]["trajectories"] == 9
    assert splits["train"]["return_mean"] == pytest.approx(HORIZON)
    assert splits["test"]["return_mean"] is splits["test"]["rewarded_at_end"] is None
    write_subset(path, tmp_path / "part.h5", 2)
    part = Dataset.load(tmp_path / "part.h5").train
    assert [task.cut for task in part] == [(True, False), (False, False), (True, False)]
    with h5py.File(path, "a") as file:
        file["train/0001"].attrs["cut"] = "yes"
    with pytest.raises(DatasetError, match="train/0001/cut"):
        Dataset.load(path)


def test_subset_is_the_first_of_each_training_task(written: Path, tmp_path: Path):
    from smac_core.commands.collect import write_subset

    whole = Dataset.load(written)
    write_subset(written, tmp_path / "part.h5", 2)
    part = Dataset.load(tmp_path / "part.h5")
    assert part.subset_of == whole.fingerprint != part.fingerprint
    assert part.test == [] and len(part.train) == 2
    for mine, all_ in zip(part.train, whole.train, strict=True):
        assert mine.task == all_.task
        for name in ARRAYS:
            assert np.array_equal(getattr(mine, name), getattr(all_, name)[: 2 * HORIZON]), name
    assert (part.git, part.seed, part.rate) == (whole.git, whole.seed, whole.rate)
    assert part.command.startswith(whole.command + " && ")
    assert part.summary()["subset_of"] == whole.fingerprint and whole.summary()["subset_of"] is None
    write_subset(tmp_path / "part.h5", tmp_path / "less.h5", 1)
    assert Dataset.load(tmp_path / "less.h5").subset_of == whole.fingerprint, "still a part of it"
    with pytest.raises(DatasetError, match="existing file"):
        write_subset(written, tmp_path / "part.h5", 1)


@pytest.fixture
def with_context(path: Path) -> Path:
    """A file whose first task draws its histories from transitions of their own."""
    with writer(path) as out:
        out.add_task("train", make_task(0, context=make_task(9, trajectories=2, task={})))
        out.add_task("train", make_task(1))
    return path


def test_context_is_kept_beside_a_task(with_context: Path, tmp_path: Path):
    from smac_core.commands.collect import write_subset

    data = Dataset.load(with_context)
    first, second = data.train
    original = make_task(9, trajectories=2)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first.history, name), getattr(original, name))
    assert len(first) == 3 * HORIZON and len(first.history) == 2 * HORIZON
    assert second.context is None and second.history is second
    summary = data.summary()["splits"]["train"]
    assert (summary["transitions"], summary["context_transitions"]) == (6 * HORIZON, 2 * HORIZON)
    with writer(tmp_path / "without.h5") as out:
        out.add_task("train", make_task(0))
        out.add_task("train", make_task(1))
    assert Dataset.load(tmp_path / "without.h5").fingerprint != data.fingerprint
    write_subset(with_context, tmp_path / "part.h5", 1)
    part = Dataset.load(tmp_path / "part.h5")
    assert part.subset_of == data.fingerprint
    np.testing.assert_array_equal(part.train[0].history.rewards, original.rewards[:HORIZON])


def test_damaged_context_is_named(with_context: Path):
    with h5py.File(with_context, "a") as file:
        rewards = file["train/0000/context/rewards"][()]
        rewards[3] += 1
        file["train/0000/context/rewards"][...] = rewards
    assert refused(with_context).field == "fingerprint"
    with h5py.File(with_context, "a") as file:
        rewards[3] = np.nan
        file["train/0000/context/rewards"][...] = rewards
    assert refused(with_context).field == "train/0000/context/rewards"
    with h5py.File(with_context, "a") as file:
        del file["train/0000/context/actions"]
    assert refused(with_context).field == "train/0000/context/actions"
    with h5py.File(with_context, "a") as file:
        del file["train/0000/context"]
        file["train/0000/context"] = [1.0]
    assert refused(with_context).field == "train/0000/context/observations"


def test_wrong_context_is_refused_by_the_writer(path: Path):
    with pytest.raises(DatasetError) as caught, writer(path) as out:
        out.add_task("train", make_task(context=make_task(timeouts=np.zeros(15, bool))))
    assert caught.value.field == "train/0000/context/timeouts"


def test_files_of_version_1_stay_readable(written: Path):
    before = Dataset.load(written)
    with h5py.File(written, "a") as file:
        file.attrs["schema_version"] = 1
    assert Dataset.load(written).fingerprint == before.fingerprint


def test_subset_keeps_the_behaviors_of_its_trajectories(path: Path, tmp_path: Path):
    from smac_core.commands.collect import write_subset

    with writer(path) as out:
        out.add_task("train", make_task(task={"behavior": ["push", "pull", "wait"]}))
    write_subset(path, tmp_path / "part.h5", 2)
    assert Dataset.load(tmp_path / "part.h5").train[0].task == {"behavior": ["push", "pull"]}


def test_wider_floats_are_stored_as_float32(path: Path):
    task = make_task()
    with writer(path) as out:
        out.add_task("train", make_task(observations=task.observations.astype(np.float64)))
    loaded = Dataset.load(path).train[0].observations
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, task.observations)


def test_file_follows_the_documented_layout(written: Path):
    with h5py.File(written) as file:
        assert file.attrs["format"].decode() == "smac-dataset"
        assert file.attrs["schema_version"] == SCHEMA_VERSION
        assert set(file) == {"train", "test"} and set(file["train"]) == {"0000", "0001"}
        assert set(file["train/0000"]) == set(ARRAYS)
        assert json.loads(file["train/0000"].attrs["task"]) == {"velocity": 1.5, "seed": 0}
        assert file["train/0000/timeouts"].dtype == bool


def test_trajectories_and_returns():
    terminals = np.zeros(15, bool)
    terminals[1] = True
    task = make_task(terminals=terminals, rewards=np.arange(15, dtype=np.float32))
    assert task.trajectories == [slice(0, 2), slice(2, 5), slice(5, 10), slice(10, 15)]
    np.testing.assert_array_equal(task.returns, [1, 9, 35, 60])


def test_fingerprint_follows_content_and_not_the_file(written: Path, tmp_path: Path):
    same, other = tmp_path / "same.h5", tmp_path / "other.h5"
    for file, seed in [(same, 2), (other, 4)]:
        with writer(file, command="another", seed=8) as out:
            out.add_task("test", make_task(seed, "test", task={"velocity": 1.5, "seed": 2}))
            out.add_task("train", make_task(0))
            out.add_task("train", make_task(1))
    first = Dataset.load(written).fingerprint
    assert len(first) == 16
    assert Dataset.load(same).fingerprint == first
    assert Dataset.load(other).fingerprint != first


def test_equal_input_gives_equal_bytes(tmp_path: Path):
    """A rerun of the recorded command can be compared with cmp."""
    for name in ("a", "b"):
        with writer(tmp_path / name, git="abc") as out:
            out.add_task("train", make_task())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_summary_of_sparse_rewards(path: Path):
    rewards = np.full(15, -1, np.float32)
    rewards[[4, 6, 9]] = 0  # first trajectory ends well, second has two hits, third none
    task = {"behavior": ["expert", "expert", "random"]}
    with writer(path) as out:
        out.add_task("train", make_task(rewards=rewards, task=task))
        out.add_task("test", make_task(rewards=rewards, task={"behavior": "expert"}, split="test"))
    summary = Dataset.load(path).summary()
    assert json.loads(json.dumps(summary)) == summary
    train = summary["splits"]["train"]
    assert (train["tasks"], train["transitions"], train["trajectories"]) == (1, 15, 3)
    assert train["return_mean"] == pytest.approx(-4)
    assert train["return_std"] == pytest.approx(np.std([-4, -3, -5]))
    assert train["rewarded_steps"] == pytest.approx(3 / 15)
    assert train["rewarded_at_end"] == pytest.approx(2 / 3)
    assert summary["behaviors"] == {"expert": 5, "random": 1}
    first = summary["observations"][0]
    column = make_task().observations[:, 0]
    assert (first["name"], first["unit"]) == ("x", "m")
    assert first["min"] == column.min() and first["max"] == column.max()
    assert first["mean"] == pytest.approx(column.mean(dtype=np.float64))


def test_summary_of_dense_rewards_claims_no_success(written: Path):
    summary = Dataset.load(written).summary()
    assert summary["splits"]["train"]["rewarded_steps"] is None
    assert summary["behaviors"] == {}


# --- the writer refuses


def with_value(name: str, value: float, *place: int) -> dict[str, np.ndarray]:
    array = getattr(make_task(), name).copy()
    array[place] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"observations": np.zeros((15, 4), np.float32)}, ["observations", "(15, 4)", "(15, 3)"]),
        ({"actions": np.zeros((14, 2), np.float32)}, ["actions", "(14, 2)", "(15, 2)"]),
        ({"rewards": np.zeros((15, 1), np.float32)}, ["rewards", "(15, 1)"]),
        ({"rewards": np.zeros(0, np.float32)}, ["rewards", "(0,)"]),
        ({"rewards": np.zeros(15, int)}, ["rewards", "int64", "float32"]),
        ({"terminals": np.zeros(15, np.uint8)}, ["terminals", "uint8", "bool"]),
        (with_value("observations", np.nan, 7, 1), ["observations", "nan", "row 7, column 1"]),
        (with_value("rewards", np.inf, 3), ["rewards", "inf", "row 3"]),
        ({"rewards": np.full(15, 1e300)}, ["rewards", "1e+300 in row 0", "finite"]),
        ({"timeouts": np.zeros(15, bool)}, ["timeouts", "no end at all", "14"]),
        ({"timeouts": np.arange(15) == 4}, ["timeouts", "row 4", "14"]),
        ({"timeouts": np.isin(np.arange(15), [5, 14])}, ["9 steps", "at most 5"]),
        ({"task": {"f": print}}, ["task", "JSON"]),
        ({"task": {"f": float("nan")}}, ["task", "JSON"]),
        ({"task": {"behavior": ["a"]}}, ["task/behavior", "1 entries", "3"]),
        ({"cut": (1, 0)}, ["cut", "(1, 0)", "two truth values"]),
        ({"split": "test"}, ["split", "'test'", "'train'"]),
    ],
)
def test_writer_names_what_is_wrong(path: Path, changes: dict, words: list[str]):
    with pytest.raises(DatasetError) as caught, writer(path) as out:
        out.add_task("train", make_task(5))
        out.add_task("train", make_task(**changes))
    for word in ["train/0001", *words]:
        assert word in str(caught.value)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"domain": ""}, "domain"),
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"horizon": 0}, "horizon"),
        ({"seed": 1.5}, "seed"),
        ({"observation_names": []}, "observation_names"),
        ({"observation_names": ["x", "x", "z"]}, "observation_names"),
        ({"observation_units": ["m"]}, "observation_units"),
        ({"contract": 3}, "contract"),
    ],
)
def test_writer_checks_its_attributes(path: Path, changes: dict, field: str):
    with pytest.raises(DatasetError) as caught:
        writer(path, **changes)
    assert caught.value.field == field


def test_writer_refuses_an_empty_dataset(path: Path):
    with pytest.raises(DatasetError, match="tasks"), writer(path):
        pass
    assert os.listdir(path.parent) == []


def test_existing_file_is_only_replaced_on_request(written: Path):
    before = written.read_bytes()
    with pytest.raises(DatasetError, match="existing file"):
        writer(written)
    assert written.read_bytes() == before
    with writer(written, overwrite=True) as out:
        out.add_task("train", make_task(9))
    assert len(Dataset.load(written).train) == 1


# --- trajectory by trajectory


def single(seed: int, trajectories: int = 1, **changes) -> TaskData:
    return make_task(seed, trajectories=trajectories, task={}, **changes)


def joined(parts: list[TaskData], task: dict, split: str = "train") -> TaskData:
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    return TaskData(**arrays, task=task, split=split)


@pytest.mark.parametrize("held", [0, 300, 10**6])
def test_growing_tasks_make_the_same_data(path: Path, tmp_path: Path, monkeypatch, held: int):
    """In turn with others, whenever they reach the file: as if each were added at once."""
    monkeypatch.setattr(dataset_writer, "_HELD_BYTES", held)
    monkeypatch.setattr(dataset_format, "_BLOCK", 7)
    parts = {"a": [single(i) for i in range(4)], "b": [single(9, 2), single(8)]}
    with writer(path, horizon=None) as out:
        a = out.open_task("train", {"name": "a"})
        out.add_task("train", make_task(5))
        b = out.open_task("train", {"name": "b", "behavior": ["x", "y", "z"]})
        c = out.open_task("test", {"name": "c"})
        for task, part in ((a, "a"), (b, "b"), (a, "a"), (a, "a"), (b, "b"), (a, "a"), (c, "a")):
            index = task.trajectories if task is not b else task.trajectories // 2
            task.add(parts[part][index])
        assert (a.trajectories, a.transitions, b.trajectories) == (4, 4 * HORIZON, 3)
    with writer(tmp_path / "at_once.h5") as out:
        out.add_task("train", joined(parts["a"], {"name": "a"}))
        out.add_task("train", make_task(5))
        out.add_task("train", joined(parts["b"], {"name": "b", "behavior": ["x", "y", "z"]}))
        out.add_task("test", joined(parts["a"][:1], {"name": "c"}, "test"))
    grown, whole = Dataset.load(path), Dataset.load(tmp_path / "at_once.h5")
    assert grown.fingerprint == whole.fingerprint
    assert grown.horizon == HORIZON
    for one, other in zip(grown.train + grown.test, whole.train + whole.test, strict=True):
        assert one.task == other.task
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
            assert getattr(one, name).dtype == getattr(other, name).dtype


def test_growing_tasks_are_checked(path: Path):
    with writer(path) as out:
        task = out.open_task("train", {})
        task.add(single(0))
        bad = single(1)
        bad.rewards[2] = np.nan
        for data, field in (
            (bad, "train/0000/rewards"),
            (single(1, timeouts=np.zeros(HORIZON, bool)), "train/0000/timeouts"),
            (single(1, context=single(2)), "train/0000"),
            (single(1, cut=(True, False)), "train/0000"),
        ):
            with pytest.raises(DatasetError) as caught:
                task.add(data)
            assert caught.value.field == field
        task.add(single(3))
    (loaded,) = Dataset.load(path).train
    assert loaded.rewards.tolist() == [*single(0).rewards, *single(3).rewards]


@pytest.mark.parametrize(
    ("task", "trajectories", "field"),
    [({}, 0, "train/0000"), ({"behavior": ["x", "y"]}, 1, "train/0000/task/behavior")],
)
def test_growing_task_that_is_not_whole(path: Path, task: dict, trajectories: int, field: str):
    with pytest.raises(DatasetError) as caught, writer(path) as out:
        grown = out.open_task("train", task)
        for seed in range(trajectories):
            grown.add(single(seed))
    assert caught.value.field == field
    assert os.listdir(path.parent) == []


# --- nothing is lost


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_leaves_the_old_file(written: Path, error: type[BaseException]):
    before = written.read_bytes()
    with pytest.raises(error), writer(written, overwrite=True) as out:
        out.add_task("train", make_task(7))
        raise error
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


def test_full_disk_leaves_the_old_file(written: Path):
    """The kernel's own refusal to write on, inside HDF5, in a process that must end cleanly."""
    before = written.read_bytes()
    code = textwrap.dedent(
        """
        import resource, signal, sys
        sys.path.insert(0, sys.argv[2])
        from test_dataset import make_task, writer
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes then fail with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            with writer(sys.argv[1], overwrite=True, git="x") as out:
                for seed in range(1000):
                    out.add_task("train", make_task(seed, trajectories=100))
        except OSError as error:
            print(error.errno, error.filename, seed)
        """
    )
    command = [sys.executable, "-c", code, str(written), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    number, name, seed = done.stdout.split()
    assert (int(number), name) == (errno.EFBIG, str(written)) and int(seed) < 100
    assert done.stderr == ""
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


def test_write_error_while_closing_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch):
    """HDF5 writes most of its metadata at the very end: the last moment for a disk to fill up."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space") as caught, writer(path) as out:
        out.add_task("train", make_task())
        monkeypatch.setattr(os, "pwrite", full)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(path.parent) == []


def test_interrupted_process_leaves_the_old_file(written: Path):
    before = written.read_bytes()
    code = textwrap.dedent(
        """
        import signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
        sys.path.insert(0, sys.argv[2])
        from test_dataset import make_task, writer
        with writer(sys.argv[1], overwrite=True) as out:
            out.add_task("train", make_task())
            print("ready", flush=True)
            sys.stdin.read()
        """
    )
    command = [sys.executable, "-c", code, str(written), str(Path(__file__).parent)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        child.wait(30)
        assert "KeyboardInterrupt" in child.stderr.read()
    assert written.read_bytes() == before
    assert os.listdir(written.parent) == [written.name]


# --- the reader refuses


def test_missing_file_and_folder(tmp_path: Path):
    assert refused(tmp_path / "none.h5").found == "no such file"
    assert refused(tmp_path).found == "a folder"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04pickle"])
def test_not_hdf5(path: Path, content: bytes):
    path.write_bytes(content)
    assert "HDF5" in refused(path).expected


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_truncated_file(written: Path, share: float):
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * share)])
    refused(written)


def test_damaged_bytes_never_pass(path: Path):
    """One flipped byte anywhere gives a DatasetError, or data that is still right."""
    with writer(path, git="x") as out:
        out.add_task("train", make_task(trajectories=300))
    content = path.read_bytes()
    fingerprint = Dataset.load(path).fingerprint
    rng = np.random.default_rng(0)
    caught = 0
    for position in rng.integers(len(content), size=60):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            assert Dataset.load(path).fingerprint == fingerprint
        except DatasetError:
            caught += 1
    assert caught > 30


def test_foreign_hdf5(path: Path):
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros((3, 2))
    assert refused(path).field == "format"


def test_newer_schema(written: Path):
    with h5py.File(written, "a") as file:
        file.attrs["schema_version"] = SCHEMA_VERSION + 1
    error = refused(written)
    assert error.field == "schema_version" and "update" in error.expected


def edit(path: Path, change) -> DatasetError:
    with h5py.File(path, "a") as file:
        change(file)
    return refused(path)


def replace_array(name: str, array: np.ndarray):
    def change(file):
        del file[name]
        file[name] = array

    return change


def test_missing_array(written: Path):
    error = edit(written, lambda file: file.__delitem__("train/0001/rewards"))
    assert error.field == "train/0001/rewards" and error.found == "nothing"


def test_missing_attribute(written: Path):
    error = edit(written, lambda file: file.attrs.__delitem__("horizon"))
    assert error.field == "horizon"


def test_wrong_shape_in_file(written: Path):
    error = edit(written, replace_array("test/0000/actions", np.zeros((15, 7), np.float32)))
    assert error.field == "test/0000/actions" and "(15, 7)" in error.found


def test_nan_in_file(written: Path):
    array = with_value("next_observations", np.nan, 12, 2)["next_observations"]
    error = edit(written, replace_array("train/0000/next_observations", array))
    assert error.field == "train/0000/next_observations" and "row 12, column 2" in error.found


def test_trajectory_without_end_in_file(written: Path):
    timeouts = np.zeros(15, bool)
    timeouts[4] = True
    error = edit(written, replace_array("train/0000/timeouts", timeouts))
    assert error.field == "train/0000/timeouts" and "14" in error.expected


def test_no_tasks_in_file(written: Path):
    def change(file):
        del file["train"], file["test"]

    assert edit(written, change).field == "tasks"


def test_gap_in_task_numbers(written: Path):
    error = edit(written, lambda file: file.move("train/0001", "train/0007"))
    assert error.field == "train" and "0007" in error.found


def test_array_where_a_task_belongs(written: Path):
    error = edit(written, replace_array("train/0001", np.zeros(3)))
    assert error.field.startswith("train/0001")


def test_broken_task_text(written: Path):
    error = edit(written, lambda file: file["train/0000"].attrs.__setitem__("task", "{"))
    assert error.field == "train/0000/task"


def test_edited_value_breaks_the_fingerprint(written: Path):
    error = edit(written, lambda file: file["train/0000/rewards"].__setitem__(0, 99.0))
    assert error.field == "fingerprint" and "edited" in error.expected


def test_file_of_another_program_needs_no_fingerprint(written: Path):
    """And may have strings of variable length, as h5py writes them unasked."""
    expected = Dataset.load(written)
    with h5py.File(written, "a") as file:
        del file.attrs["fingerprint"]
        file.attrs["domain"] = "cheetah"
        file.attrs["observation_names"] = ["x", "y", "z"]
        file["train/0000"].attrs["task"] = file["train/0000"].attrs["task"].decode()
    found = Dataset.load(written)
    assert found.fingerprint == expected.fingerprint
    assert found.observation_names == expected.observation_names
    assert found.train[0].task == expected.train[0].task


def test_names_outside_ascii(path: Path):
    with writer(path, observation_units=["m", "°", "µrad"], command="smac collect 機械") as out:
        out.add_task("train", make_task(task={"ü": "é"}))
    data = Dataset.load(path)
    assert data.observation_units == ["m", "°", "µrad"] and data.command.endswith("機械")
    assert data.train[0].task == {"ü": "é"}


def test_damaged_text_is_refused(written: Path):
    name = h5py.string_dtype("utf-8", 3)
    error = edit(
        written, lambda file: file.attrs.__setitem__("domain", np.array(b"a\xff\xfe", name))
    )
    assert error.field == "domain"
