"""A dataset in LeRobot's format (version 3 of it): Parquet files that its policies train on.

A trajectory is an episode, a transition a frame: ``observation.state``, ``action``,
``next.observation.state``, ``next.reward``, ``next.terminated`` and ``next.truncated``. The task,
which LeRobot has as text, is JSON: split, number, part and parameters. Beside LeRobot's own files
``meta/smac.json`` has what the file says of itself, and which episodes are cut.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.data.dataset import Dataset
from smac_core.data.export_episodes import Episode, described, episodes
from smac_core.deployment.new_folder import check_new_folder, new_folder
from smac_core.errors import InputError
from smac_core.installation import require

MARKER = "meta/info.json"


def export_lerobot(path: Path, out: Path, *, quiet: bool = False) -> Path:
    """Make a LeRobot dataset of a dataset file.

    Returns:
        Its folder, for ``LeRobotDataset(repo_id, root=...)``.

    Raises:
        InputError: no such package, ``out`` is taken, or the file has no whole control rate.
        DatasetError: the file cannot be used.
    """
    require("lerobot", "smac data export --lerobot")
    check_new_folder(out, MARKER, overwrite=False)
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.datasets.utils import write_info

    from smac_core.training.progress import Progress

    dataset = Dataset.load(path)
    if dataset.rate is None or dataset.rate != int(dataset.rate):
        found = "none" if dataset.rate is None else f"{dataset.rate:g} Hz"
        expected = "a whole number of Hz: LeRobot counts frames a second"
        raise InputError(path, "rate", found, expected)
    found = list(episodes(dataset))
    with (
        new_folder(out, MARKER) as folder,
        _quietly(),
        Progress("exporting", len(found), unit="episodes", quiet=quiet) as progress,
    ):
        folder.rmdir()  # LeRobot makes it
        made = LeRobotDataset.create(
            repo_id=f"smac/{out.name}",
            root=folder,
            fps=int(dataset.rate),
            robot_type=dataset.domain,
            features=_features(dataset),
            use_videos=False,
        )
        for done, episode in enumerate(found, start=1):
            for frame in _frames(episode):
                made.add_frame(frame)
            made.save_episode()
            progress.update(done)
        made.finalize()
        made.meta.info["splits"] = _splits(found)
        write_info(made.meta.info, folder)
        cuts = {i: list(episode.cut) for i, episode in enumerate(found) if any(episode.cut)}
        told = described(dataset) | {"cut": cuts}
        (folder / "meta" / "smac.json").write_text(json.dumps(told, indent=1) + "\n")
    return out


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bars and warnings of what LeRobot writes with, one or more an episode."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Converting input from bool", RuntimeWarning)
            yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def _features(dataset: Dataset) -> dict[str, Any]:
    state = {
        "dtype": "float32",
        "shape": (dataset.observation_dim,),
        "names": dataset.observation_names,
    }
    one = {"shape": (1,), "names": None}
    return {
        "observation.state": state,
        "action": {
            "dtype": "float32",
            "shape": (dataset.action_dim,),
            "names": dataset.action_names,
        },
        "next.observation.state": state,
        "next.reward": {"dtype": "float32"} | one,
        "next.terminated": {"dtype": "bool"} | one,
        "next.truncated": {"dtype": "bool"} | one,
    }


def _frames(episode: Episode) -> Iterator[dict[str, Any]]:
    columns = {
        "observation.state": episode.array("observations"),
        "action": episode.array("actions"),
        "next.observation.state": episode.array("next_observations"),
        "next.reward": episode.array("rewards")[:, None],
        "next.terminated": episode.array("terminals")[:, None],
        "next.truncated": episode.array("timeouts")[:, None],
    }
    text = episode.task_text
    for row in range(len(episode)):
        yield {name: np.array(values[row]) for name, values in columns.items()} | {"task": text}


def _splits(found: list[Episode]) -> dict[str, str]:
    """LeRobot's: the first episode of each and the one after its last."""
    splits = {}
    for name in ("train", "test"):
        numbers = [i for i, episode in enumerate(found) if episode.split == name]
        if numbers:
            splits[name] = f"{numbers[0]}:{numbers[-1] + 1}"
    return splits
