"""``smac export`` and ``smac data export``: what leaves this project for other programs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from smac_core.options import Json, Phase, Quiet, RunFolder, print_json

Overwrite = Annotated[bool, typer.Option(help="Replace an earlier export.")]


def export(
    run: RunFolder,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="ONNX files of policy, encoder and reward decoder.")
    ] = False,
    hub_folder: Annotated[
        bool, typer.Option("--hub-folder", help="Weights and model card, for a model hub.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="New folder; default: RUN/exports/PHASE_onnx or _hub.")
    ] = None,
    phase: Phase = None,
    license: Annotated[
        str, typer.Option(help="Of the weights, for the model card: an SPDX name.")
    ] = "apache-2.0",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Weights for other machines: ONNX files that need no PyTorch, or a folder for a model hub.

    What is exported stays as it is: training that goes on changes the run, not its exports.

    [dim]smac export runs/sawyer --onnx --out sawyer_onnx[/dim]

    [dim]smac export runs/sawyer --hub-folder --out sawyer_hub[/dim]
    """
    from smac_core.cli import latest_phase
    from smac_core.commands.checks import check_agent
    from smac_core.deployment.exported import DESCRIPTION, PARTS
    from smac_core.deployment.hub import CONFIG, export_hub_folder
    from smac_core.deployment.new_folder import check_new_folder
    from smac_core.errors import InputError

    if onnx == hub_folder:
        found = "both" if onnx else "none"
        raise InputError("smac export", "what", found, "one of --onnx and --hub-folder")
    phase = phase or latest_phase(run)
    check_agent(run, phase)
    out = out or run / "exports" / f"{phase}_{'onnx' if onnx else 'hub'}"
    check_new_folder(out, DESCRIPTION if onnx else CONFIG, overwrite)
    if hub_folder:
        export_hub_folder(run, phase, out, license=license, overwrite=overwrite)
        print_json({"folder": str(out), "phase": phase}) if as_json else print(out)
        return
    from smac_core.deployment.export import export_onnx

    description = export_onnx(run, phase, out, overwrite=overwrite)
    if as_json:
        print_json({"folder": str(out), **description.model_dump(mode="json")})
        return
    for part in PARTS:
        file = getattr(description, part)
        shown = ", ".join(f"{name} {value:.1e}" for name, value in file.differences.items())
        told = f"{file.file}: largest difference from PyTorch: {shown}; allowed {file.tolerance:g}"
        print(told, file=sys.stderr)
    print(out)


def data_export(
    dataset: Annotated[Path, typer.Argument(help="A dataset file.")],
    minari: Annotated[
        str, typer.Option(help="The Minari dataset to make: NAMESPACE/NAME-v0.")
    ] = "",
    lerobot: Annotated[
        Path | None, typer.Option(help="The folder of the LeRobot dataset to make.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """A dataset in the format of Minari or LeRobot, with the package that is of that name.

    [dim]smac data export data/sawyer.h5 --minari smac/sawyer-v0[/dim]

    [dim]smac data export data/sawyer.h5 --lerobot sawyer_lerobot[/dim]
    """
    from smac_core.commands.checks import check_dataset
    from smac_core.errors import InputError

    if bool(minari) == (lerobot is not None):
        found = "both" if minari else "none"
        raise InputError("smac data export", "format", found, "one of --minari and --lerobot")
    check_dataset(dataset)
    if minari:
        from smac_core.data.export_minari import export_minari

        print(export_minari(dataset, minari, quiet=quiet))
    else:
        from smac_core.data.export_lerobot import export_lerobot

        print(export_lerobot(dataset, lerobot, quiet=quiet))
