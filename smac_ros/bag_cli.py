"""``smac bag``: recordings of ROS 2, what is in them and what becomes of them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from smac_core.options import Json, Quiet, print_json

bag_app = typer.Typer(no_args_is_help=True, help="Recordings: what is in them, and to datasets.")

LONG = 1_000_000  # messages: how far it is, is shown

Bags = Annotated[
    list[Path], typer.Argument(help="Recordings: folders, .mcap or .db3 files, folders of them.")
]
Namespace = Annotated[str, typer.Option(help="The robot's, before its topics' names.")]
Remaps = Annotated[
    list[str] | None,
    typer.Option(help="topic:=other, its name in the recordings. Repeatable."),
]


@bag_app.command()
def info(
    bags: Bags,
    contract: Annotated[
        str | None,
        typer.Option(help="Whether its topics are there: a name, or the path of a .yaml file."),
    ] = None,
    namespace: Namespace = "",
    remap: Remaps = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Topics, types, numbers, rates and gaps; and what is odd about a recording.

    [dim]smac bag info monday/ --contract my_arm.yaml[/dim]
    """
    from smac_core.errors import InputError
    from smac_core.training.progress import Progress
    from smac_ros.bags.info import describe, show
    from smac_ros.bags.reading import Bag, find_bags
    from smac_ros.bags.topics import Names
    from smac_ros.contract import load_contract

    loaded = None if contract is None else load_contract(contract)
    names = Names.parse(namespace, remap or [])
    found, failed = [], []
    for path in find_bags(bags):
        try:
            with Bag(path) as bag:
                brief = quiet or bag.message_count < LONG
                title, total = f"looking at {path.name}", bag.message_count
                with Progress(title, total, unit="messages", quiet=brief) as bar:
                    found.append(describe(bag, loaded, names, bar.advance))
        except InputError as error:
            failed.append(error)
            found.append({"path": str(path), "error": str(error)})
            continue
        if not as_json:
            show(found[-1])
    if as_json:
        print_json(found)
    elif len(found) > 1:
        for error in failed[:-1]:
            print(error, file=sys.stderr)
    if failed:  # told at the end, behind those that can be read
        raise failed[-1]


@bag_app.command()
def convert(
    bags: Bags,
    tasks: Annotated[Path, typer.Option(help="TASKS.yaml: tasks, their episodes and rewards.")],
    out: Annotated[Path, typer.Option(help="The dataset file to write.")],
    contract: Annotated[
        str | None,
        typer.Option(
            help="A name in config/contracts, or the path of a .yaml file; default: the one that "
            "the recordings carry."
        ),
    ] = None,
    namespace: Namespace = "",
    remap: Remaps = None,
    domain: Annotated[
        str | None,
        typer.Option(help="Its name or YAML, for the actions' units; default: the contract's."),
    ] = None,
    horizon: Annotated[
        int, typer.Option(help="Cut longer episodes there; 0: at their own ends.", min=0)
    ] = 0,
    strict: Annotated[bool, typer.Option(help="Warnings are errors: nothing is written.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a dataset of recordings: episodes and rewards of each task as TASKS.yaml says.

    [dim]smac bag convert monday/ --tasks TASKS.yaml --out arm.h5[/dim]
    """
    from smac_core.config import domains, load_config
    from smac_core.training.progress import interruptible
    from smac_ros.bags.conversion import Refused, recorded_contract, report_path
    from smac_ros.bags.conversion import convert as convert_bags
    from smac_ros.bags.one_bag import Stopped
    from smac_ros.bags.reading import find_bags
    from smac_ros.bags.report import show
    from smac_ros.bags.topics import Names
    from smac_ros.contract import load_contract

    names, bags = Names.parse(namespace, remap or []), find_bags(bags)
    loaded = recorded_contract(bags) if contract is None else load_contract(contract)
    if domain is None and loaded.domain in domains():
        domain = loaded.domain

    def tell(report: dict) -> None:
        if as_json:
            print_json(report)
        elif not quiet:
            show(report)
        for warning in report["warnings"]:
            print(f"warning: {warning}", file=sys.stderr)

    try:
        with interruptible("stopping; nothing is written"):
            report = convert_bags(
                bags,
                loaded,
                tasks,
                out,
                names=names,
                config=None if domain is None else load_config(domain, "paper"),
                horizon=horizon or None,
                strict=strict,
                overwrite=overwrite,
                quiet=quiet,
            )
    except Stopped:
        raise typer.Exit(130) from None
    except Refused as error:
        tell(error.report)
        raise
    tell(report)
    if not as_json:
        print(f"{out}\n{report_path(out)}")
