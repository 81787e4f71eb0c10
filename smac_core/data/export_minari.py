"""A dataset in Minari's format: Gymnasium's way to keep offline data.

A trajectory is an episode, with the task in its ``options``: ``split``, ``task``, ``part``,
``parameters`` (JSON), ``cut_begin``, ``cut_end``. Rewards, terminations and truncations are the
file's rewards, terminals and timeouts. What the file says of itself is JSON in the metadata's
``smac_dataset``. Where an observation is not what the step before led to (steps were left out), the
episode has ``infos["next_observations"]`` besides.
"""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from smac_core.data.dataset import Dataset
from smac_core.data.export_episodes import Episode, described, episodes
from smac_core.errors import InputError
from smac_core.installation import require


def export_minari(path: Path, name: str, *, quiet: bool = False) -> str:
    """Make a local Minari dataset of a dataset file.

    Args:
        name: Minari's id, such as ``smac/sawyer-v0``. Minari keeps it in MINARI_DATASETS_PATH,
            by default in ~/.minari/datasets.

    Returns:
        Where it is.

    Raises:
        InputError: no such package, a malformed name, or one that is taken.
        DatasetError: the file cannot be used.
    """
    minari = require("minari", "smac data export --minari")
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    from smac_core.training.progress import Progress

    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):
        expected = "NAMESPACE/NAME-v0, with Minari's letters and a version"
        raise InputError("--minari", "name", name, expected) from None
    place = Path(get_dataset_path(name))
    if place.exists():
        raise InputError(place, "dataset", "an earlier one", "a new name or version")
    dataset = Dataset.load(path)
    found = list(episodes(dataset))
    spaces = _spaces(dataset)
    try:
        with (
            warnings.catch_warnings(),  # of the author and such, which the file does not know
            Progress("exporting", len(found), unit="episodes", quiet=quiet) as progress,
        ):
            warnings.simplefilter("ignore", UserWarning)

            def buffers() -> Any:
                for done, episode in enumerate(found, start=1):
                    yield EpisodeBuffer(**_buffer(episode))
                    progress.update(done)

            made = minari.create_dataset_from_buffers(
                name,
                buffers(),
                description=f"{dataset.domain}, made by: {dataset.command}",
                **spaces,
            )
            made.storage.update_metadata({"smac_dataset": json.dumps(described(dataset))})
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)  # half of it is of no use
        raise
    return str(place)


def _spaces(dataset: Dataset) -> dict[str, Any]:
    from gymnasium.spaces import Box

    tasks = [*dataset.train, *dataset.test]
    parts = [part for task in tasks for part in (task, task.context) if part is not None]
    usual = all(np.abs(part.actions).max() <= 1 for part in parts)
    largest = 1.0 if usual else np.inf
    return {
        "observation_space": Box(-np.inf, np.inf, (dataset.observation_dim,), np.float32),
        "action_space": Box(-largest, largest, (dataset.action_dim,), np.float32),
    }


def _buffer(episode: Episode) -> dict[str, Any]:
    last = episode.array("next_observations")[-1:]
    infos = None
    if not episode.follows:
        infos = {"next_observations": episode.array("next_observations")}
    return {
        "observations": np.concatenate([episode.array("observations"), last]),
        "actions": episode.array("actions"),
        "rewards": episode.array("rewards"),
        "terminations": episode.array("terminals"),
        "truncations": episode.array("timeouts"),
        "infos": infos,
        "options": {
            "split": episode.split,
            "task": episode.task,
            "part": episode.part,
            "parameters": json.dumps(episode.parameters, sort_keys=True),
            "cut_begin": bool(episode.cut[0]),
            "cut_end": bool(episode.cut[1]),
        },
    }
