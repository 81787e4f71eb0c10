"""smac data export: what Minari and LeRobot read back is what the file holds.

Each test needs the package that it is named after, and is left out where that is not installed.
"""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from smac_core.data.dataset import Dataset, TaskData
from smac_core.data.dataset_writer import DatasetWriter
from smac_core.data.export_episodes import episodes

DS, DA = 3, 2


def task(seed: int, lengths: tuple[int, ...], **changes) -> TaskData:
    """Trajectories that end by a fall (even ones) or by the clock."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        seen = rng.normal(size=(length + 1, DS)).astype(np.float32)
        ends = np.arange(length) == length - 1
        fell = length % 2 == 0
        rows.append((
            seen[:-1], rng.uniform(-1, 1, (length, DA)).astype(np.float32),
            rng.normal(size=length).astype(np.float32), seen[1:], ends & fell, ends & (not fell),
        ))  # fmt: skip
    arrays = [np.concatenate(part) for part in zip(*rows, strict=True)]
    return TaskData(*arrays, task={"goal": seed / 4}, **changes)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Two training tasks, one with a context of its own, cut at its end and with a step left out;
    one held-out task."""
    place = tmp_path_factory.mktemp("data") / "two.h5"
    gap = task(1, (5, 4), cut=(False, True), context=task(2, (3,)))
    gap.next_observations[1] += 1  # what came next was left out
    with DatasetWriter(
        place, domain="two", rate=20.0, horizon=9, seed=3, command="made up", contract="rate: 20\n",
        observation_names=["a", "b", "c"], observation_units=["m", "m", "rad"],
        action_names=["u", "v"], action_units=["N", "N"],
    ) as writer:  # fmt: skip
        writer.add_task("train", task(0, (6, 7, 1)))
        writer.add_task("train", gap)
        writer.add_task("test", replace(task(4, (2, 8)), split="test"))
    return place


def test_episodes_are_all_there_is(path):
    found = list(episodes(Dataset.load(path)))
    kinds = [(e.split, e.task, e.part, len(e)) for e in found]
    assert kinds == [
        *(("train", 0, "rl", n) for n in (6, 7, 1)),
        *(("train", 1, "rl", n) for n in (5, 4)),
        ("train", 1, "context", 3),
        *(("test", 0, "rl", n) for n in (2, 8)),
    ]
    assert [e.cut for e in found].count((False, True)) == 1 and found[4].cut == (False, True)
    assert [e.follows for e in found] == [True] * 3 + [False] + [True] * 4


@pytest.mark.parametrize("package", ["minari", "lerobot"])
def test_a_missing_package_is_named(smac_here, path, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    where = {"minari": "two/two-v0", "lerobot": tmp_path / "out"}[package]
    done = smac_here("data", "export", path, f"--{package}", where, check=False)
    assert done.returncode == 2 and f"pip install {package}" in done.stderr
    assert not (tmp_path / "out").exists()


def test_one_format_at_a_time(smac_here, path, tmp_path):
    both = ("--minari", "two/two-v0", "--lerobot", tmp_path / "out")
    for options in (both, ()):
        done = smac_here("data", "export", path, *options, check=False)
        assert done.returncode == 2 and "one of --minari and --lerobot" in done.stderr


def test_minari_reads_back_what_was_written(smac, smac_here, path, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    smac("data", "export", path, "--minari", "two/data-v0")
    found, data = minari.load_dataset("two/data-v0"), Dataset.load(path)
    expected = list(episodes(data))
    assert found.total_episodes == len(expected)
    assert found.total_steps == sum(map(len, expected))
    told = json.loads(found.storage.metadata["smac_dataset"])
    assert told["fingerprint"] == data.fingerprint and told["contract"] == "rate: 20\n"
    assert told["observation_units"] == ["m", "m", "rad"] and told["rate"] == 20.0
    options = list(found.storage.get_episode_metadata(range(len(expected))))
    for mine, right, about in zip(found.iterate_episodes(), expected, options, strict=True):
        following = right.array("next_observations")
        np.testing.assert_array_equal(mine.observations[:-1], right.array("observations"))
        np.testing.assert_array_equal(mine.observations[-1], following[-1])
        if right.follows:
            np.testing.assert_array_equal(mine.observations[1:], following)
        else:
            np.testing.assert_array_equal(mine.infos["next_observations"], following)
        names = {"actions": "actions", "rewards": "rewards"}
        names |= {"terminations": "terminals", "truncations": "timeouts"}
        for name, ours in names.items():
            array = getattr(mine, name)
            np.testing.assert_array_equal(array, right.array(ours))
            assert array.dtype == right.array(ours).dtype
        about = about["options"]
        assert json.loads(about["parameters"]) == right.parameters
        place = (about["split"], about["task"], about["part"])
        assert place == (right.split, right.task, right.part)
        assert (about["cut_begin"], about["cut_end"]) == right.cut
    again = smac_here("data", "export", path, "--minari", "two/data-v0", check=False)
    assert again.returncode == 2 and "found an earlier one" in again.stderr
    wrong = smac_here("data", "export", path, "--minari", "two/data", check=False)
    assert wrong.returncode == 2 and "--minari: name: found two/data" in wrong.stderr


READ = """
import json, sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
found = LeRobotDataset("smac/two", root=sys.argv[1])
columns = found.hf_dataset.with_format("numpy")[:]
tasks = [found[i]["task"] for i in range(found.num_frames)]
kept = {name: np.asarray(values) for name, values in columns.items()}
np.savez(sys.argv[2], **kept, tasks=tasks)
print(json.dumps({"fps": found.fps, "episodes": found.num_episodes, "names": found.meta.names}))
"""


@pytest.mark.slow
def test_lerobot_reads_back_what_was_written(smac, smac_here, path, tmp_path, monkeypatch):
    pytest.importorskip("lerobot")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out, read = tmp_path / "lerobot", tmp_path / "read.npz"
    assert smac("data", "export", path, "--lerobot", out).stdout == f"{out}\n"
    command = [sys.executable, "-c", READ, str(out), str(read)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    expected, data = list(episodes(Dataset.load(path))), Dataset.load(path)
    assert (told["fps"], told["episodes"]) == (20, len(expected))
    assert told["names"]["observation.state"] == ["a", "b", "c"]
    found = np.load(read)
    for column, name in (
        ("observation.state", "observations"),
        ("action", "actions"),
        ("next.observation.state", "next_observations"),
        ("next.reward", "rewards"),
        ("next.terminated", "terminals"),
        ("next.truncated", "timeouts"),
    ):
        wanted = np.concatenate([episode.array(name) for episode in expected])
        np.testing.assert_array_equal(found[column], wanted)
        assert found[column].dtype == wanted.dtype
    numbers = [number for number, episode in enumerate(expected) for _ in range(len(episode))]
    np.testing.assert_array_equal(found["episode_index"], numbers)
    for text, number in zip(found["tasks"], numbers, strict=True):
        about, right = json.loads(str(text)), expected[number]
        assert about["parameters"] == right.parameters
        assert (about["split"], about["part"]) == (right.split, right.part)
    info = json.loads((out / "meta" / "info.json").read_text())
    assert info["splits"] == {"train": "0:6", "test": "6:8"}
    more = json.loads((out / "meta" / "smac.json").read_text())
    assert more["fingerprint"] == data.fingerprint and more["cut"] == {"4": [False, True]}
    assert more["action_units"] == ["N", "N"]
    again = smac_here("data", "export", path, "--lerobot", out, check=False)
    assert again.returncode == 2 and "found one with meta/info.json" in again.stderr
