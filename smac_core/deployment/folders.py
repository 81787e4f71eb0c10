"""Of the folders that agents leave in (``hub``, ``exported``): how their runs were configured."""

from pathlib import Path
from typing import Any, NamedTuple

from smac_core.deployment import hub


class Configuration(NamedTuple):
    """A run's configuration, as ``config.parse_config`` takes it, and the file that it is in."""

    tree: dict[str, Any]
    path: Path


def exported_configuration(folder: Path) -> Configuration | None:
    """What an ONNX export or a hub folder says; None: the folder is neither. Loads no torch.

    Raises:
        InputError: a damaged one, or one of a newer version.
    """
    if hub.hub_phase(folder):
        return Configuration(hub.read_config(folder)["config"], folder / hub.CONFIG)
    from smac_core.deployment import exported

    if exported.is_export(folder):
        path = folder / exported.DESCRIPTION
        return Configuration(exported.read_description(path).config, path)
    return None
