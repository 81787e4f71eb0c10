"""``smac contract``: check a contract, and show what it makes of topics."""

import json
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

contract_app = typer.Typer(no_args_is_help=True, help="Contracts: topics to vectors and back.")

NameOrPath = Annotated[
    str, typer.Argument(help="A name in config/contracts, or the path of a .yaml file.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contract_app.command()
def check(
    contract: NameOrPath,
    live: Annotated[
        bool, typer.Option("--live", help="Compare it with what is on the network.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="To listen, with --live; default: 5.", min=0.1, max=3600.0)
    ] = None,
    namespace: Annotated[str, typer.Option(help="Of the robot, with --live.")] = "",
    lockstep: Annotated[
        bool, typer.Option("--lockstep", help="With --live: of a robot in lockstep.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Validate a contract; an error names the line, what was found and what was expected.

    Where a domain of its name comes with the package, names, units and rate are compared too.
    With --live also with a running robot: topics, types, QoS, rates, clocks, joints, NaN, who else
    commands. It only listens. Exit code 1: something there does not fit.

    [dim]smac contract check my_arm.yaml --live --seconds 5[/dim]
    """
    from smac_core.config import domains, load_config
    from smac_ros.contract import load_contract

    if not live and (seconds is not None or namespace or lockstep):
        raise typer.BadParameter("--seconds, --namespace and --lockstep go with --live")
    loaded = load_contract(contract)
    compared = loaded.domain in domains()
    if compared:
        environment = load_config(loaded.domain, "paper").environment
        loaded.check_domain(
            environment.observation_names,
            environment.observation_units,
            environment.action_names,
            environment.rate,
            f"domain {loaded.domain}",
        )
    summary = {
        "name": loaded.name,
        "domain": loaded.domain,
        "domain_compared": compared,
        "rate": loaded.rate,
        "observation_dim": loaded.observation_dim,
        "action_dim": loaded.action_dim,
        "lockstep": loaded.lockstep_problem is None,
    }
    if live:
        _check_live(loaded, summary, as_json, namespace, seconds or 5.0, lockstep)
        return
    if as_json:
        print(json.dumps({"ok": True, **summary}, indent=1))
        return
    print(
        f"ok: {loaded.name}: {loaded.observation_dim} observations of "
        f"{len(loaded.observations)} topics, {loaded.action_dim} actions to "
        f"{len(loaded.actions)} topics, {loaded.rate:g} Hz"
        + (f"; agrees with domain {loaded.domain}" if compared else "")
    )
    if not compared:
        print(f"not compared: no domain {loaded.domain!r} comes with the package", file=sys.stderr)


def _check_live(
    contract: Any,
    summary: dict[str, Any],
    as_json: bool,
    namespace: str,
    seconds: float,
    lockstep: bool,
) -> None:
    from smac_ros.live_check import check_live, show

    if lockstep:
        contract.require_lockstep()
    report = check_live(contract, namespace=namespace, seconds=seconds, lockstep=lockstep)
    if as_json:
        print(json.dumps(summary | report.data(), indent=1))
    else:
        show(report)
    if report.errors:
        raise typer.Exit(1)


@contract_app.command()
def show(contract: NameOrPath, as_json: Json = False) -> None:
    """Every column of the observation and of the action: name, unit, topic, path, limits.

    [dim]smac contract show sawyer_sim[/dim]
    """
    from smac_ros.contract import load_contract

    content = describe(load_contract(contract))
    print(json.dumps(content, indent=1)) if as_json else _show(content)


@contract_app.command()
def copy(
    contract: NameOrPath,
    out: Annotated[Path, typer.Argument(help="The .yaml file to write; the copy is named so.")],
) -> None:
    """Begin a contract of your own with a copy of the nearest example.

    [dim]smac contract copy sawyer_arm my_arm.yaml[/dim]
    """
    from smac_core.errors import InputError
    from smac_ros.contract import load_contract

    text = load_contract(contract).text
    if out.suffix not in (".yaml", ".yml"):
        raise InputError(out, "name", f"the ending {out.suffix!r}", ".yaml")
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(re.sub(r"(?m)^name: .*$", f"name: {out.stem}", text))
    except FileExistsError:
        raise InputError(out, "file", "one that exists", "a new one") from None
    print(out)


def describe(contract: Any) -> dict[str, Any]:
    """A contract as plain data: one entry a column."""
    observations = [
        {
            "index": stream.start + column,
            "name": name,
            "unit": stream.units[column],
            "topic": stream.topic,
            "type": stream.type,
            "path": stream.paths[column],
            "time": stream.time,
            "align": stream.align,
            "max_age": stream.max_age_ns / 1e9,
            "missing": stream.missing,
        }
        for stream in contract.observations
        for column, name in enumerate(stream.names)
    ]
    actions = [
        {
            "index": command.start + column,
            "name": name,
            "unit": command.units[column],
            "topic": command.topic,
            "type": command.type,
            "path": command.paths[column],
            "frame": command.frame,
            "scale": command.scale[column],
            "offset": command.offset[column],
            "limits": [command.low[column], command.high[column]],
            "max_change": _finite(command.max_change[column]),
            "max_lead": _finite(command.max_lead[column]),
            "zero": _finite(command.zero[column]),
        }
        for command in contract.actions
        for column, name in enumerate(command.names)
    ]
    return {
        "name": contract.name,
        "domain": contract.domain,
        "source": contract.source,
        "rate": contract.rate,
        "trigger": contract.trigger,
        "watchdog": contract.watchdog,
        "safety": contract.safety,
        "lockstep": contract.lockstep_problem is None,
        "observations": observations,
        "actions": actions,
        "reward": contract.reward and f"{contract.reward.topic} {contract.reward.paths[0]}",
    }


def _finite(number: float) -> float | None:
    return float(number) if abs(number) < float("inf") else None


def _show(content: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(
        f"[bold]{content['name']}[/bold] for domain {content['domain']}: {content['rate']:g} Hz, "
        f"trigger {content['trigger']}, watchdog {content['watchdog']:g} s, "
        f"safety {content['safety']}"
    )
    console.print("\n[bold]Observations[/bold]")
    for topic, rows in _by_topic(content["observations"]):
        first = rows[0]
        align = f"{first['align']} {first['max_age']:g} s"
        if first["missing"] is not None:
            align += f", else {first['missing']:g}"
        console.print(f"{topic} [dim]{first['type']}, {first['time']} time, {align}[/dim]")
        cells = [(row["index"], row["name"], row["unit"], row["path"]) for row in rows]
        console.print(_grid(cells))
    console.print("\n[bold]Actions[/bold]")
    for topic, rows in _by_topic(content["actions"]):
        frame = f", frame {rows[0]['frame']}" if rows[0]["frame"] else ""
        console.print(f"{topic} [dim]{rows[0]['type']}{frame}[/dim]")
        console.print(_grid([_action_cells(row) for row in rows]))
    if content["reward"]:
        console.print(f"\n[bold]Reward[/bold]\n{escape(content['reward'])}")


def _action_cells(row: dict[str, Any]) -> tuple[object, ...]:
    low, high = row["limits"]
    value = f"{row['scale']:g} a" + (f" {row['offset']:+g}" if row["offset"] else "")
    change = "" if row["max_change"] is None else f", change {row['max_change']:g} a step"
    change += "" if row["max_lead"] is None else f", lead {row['max_lead']:g}"
    zero = "last value" if row["zero"] is None else f"{row['zero']:g}"
    return (
        *(row[key] for key in ("index", "name", "unit", "path")),
        f"{value}, in {low:g} .. {high:g}{change}, zero: {zero}",
    )


def _by_topic(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for topic, group in groupby(rows, lambda row: row["topic"]):
        yield topic, list(group)


def _grid(rows: list[tuple[object, ...]]) -> Any:
    """Columns without lines; what does not fit is folded, never cut off."""
    from rich.markup import escape
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for column in range(len(rows[0])):
        grid.add_column(justify="left" if column else "right", min_width=0 if column else 4)
    for row in rows:
        grid.add_row(*(escape(str(cell)) for cell in row))  # "[opening]" is no style
    for column in grid.columns:
        column.overflow = "fold"
    return grid
