"""Root of the ``smac`` command: what needs ROS, beside what ``smac_core`` has."""

import json
from typing import Annotated

import typer

from smac_core.benchmarks.cli import bench_app
from smac_core.cli import app
from smac_core.cli import main as run
from smac_ros.bag_cli import bag_app
from smac_ros.contract_cli import contract_app
from smac_ros.operator_cli import operator

app.add_typer(bag_app, name="bag")
app.add_typer(contract_app, name="contract")
app.command()(operator)


@app.command()
def up(
    system: Annotated[str, typer.Argument(help="Its name; --list shows them.")] = "",
    arguments: Annotated[
        list[str] | None, typer.Argument(help="name:=value, as for ros2 launch.")
    ] = None,
    list_systems: Annotated[bool, typer.Option("--list", help="The systems.")] = False,
    show_args: Annotated[
        bool, typer.Option("--show-args", "-s", help="The system's arguments.")
    ] = False,
    dry: Annotated[
        bool, typer.Option("--print", help="The processes and parameters; starts nothing.")
    ] = False,
) -> None:
    """Start a system of ROS 2 nodes on this machine and stay until it ends.

    [dim]smac up sawyer_sim iterations:=10 meta_test_tasks:=12[/dim]
    """
    from smac_ros.system import SYSTEMS, find_system
    from smac_ros.up import Runner, parse_arguments, show

    if list_systems or not system:
        _table([(name, one.description) for name, one in SYSTEMS.items()])
        raise typer.Exit(0 if list_systems else 2)
    found = find_system(system)
    if show_args:
        _table([(a.name, a.default or '""', _describe(a)) for a in found.arguments])
        return
    specs = found.build(parse_arguments(arguments or []))
    if dry:
        show(specs)
        return
    raise typer.Exit(Runner(specs).run())


@app.command()
def record(
    contract: Annotated[
        str, typer.Option(help="A name in config/contracts, or the path of a .yaml file.")
    ],
    out: Annotated[
        str, typer.Option(help="New folder to write; default: bags/<contract>_<date>_<time>.")
    ] = "",
    max_size: Annotated[
        float, typer.Option(help="MB, about, of a file; then another; 0: any.", min=0)
    ] = 1000,
    disk_left: Annotated[
        float, typer.Option(help="MB of the disk to leave; it ends before.", min=0)
    ] = 500,
    compression: Annotated[str, typer.Option(help="zstd or none.")] = "zstd",
    seconds: Annotated[
        float, typer.Option(help="From the first message to the end; 0: until Ctrl-C.", min=0)
    ] = 0,
    use_sim_time: Annotated[
        bool, typer.Option("--use-sim-time", help="Take times of receipt from /clock.")
    ] = False,
    namespace: Annotated[str, typer.Option(help="Of the robot's topics.")] = "",
    writer: Annotated[
        str, typer.Option(help="auto, smac (ours; auto is that) or ros2bag (rosbag2's recorder).")
    ] = "auto",
) -> None:
    """Record a robot's topics: those of its contract, and the episodes' markers.

    [dim]smac record --contract my_arm.yaml --out bags/monday[/dim]
    """
    from smac_ros.system import find_system
    from smac_ros.up import Runner

    texts = {"contract": contract, "out": out, "max_size": f"{max_size}"}
    texts |= {"disk_left": f"{disk_left}", "compression": compression, "namespace": namespace}
    texts |= {"seconds": f"{seconds}"}
    texts |= {"use_sim_time": str(use_sim_time).lower(), "writer": writer}
    runner = Runner(find_system("record").build(texts))
    code = runner.run()
    # Ctrl-C is how a recording ends, and no failure
    raise typer.Exit(0 if code > 128 and runner.ended_well else code)


@bench_app.command("policy_latency")
def bench_policy_latency(
    seconds: Annotated[float, typer.Option(help="At 100 Hz.", min=2.0)] = 20.0,
    wake: Annotated[
        float | None, typer.Option(help="The policy's parameter wake; default: its own.", min=0)
    ] = None,
    export: Annotated[
        bool, typer.Option("--export", help="A policy on an export (ONNX) takes turns with them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Observation message to command message at 100 Hz, beside a node that only echoes.

    [dim]smac bench policy_latency --json[/dim]
    """
    from smac_ros.benchmarks import bench_policy_latency

    _report(bench_policy_latency(seconds=seconds, wake=wake, export=export), as_json)


@bench_app.command("lockstep")
def bench_lockstep(
    seconds: Annotated[float, typer.Option(help="Of stepping.", min=2.0)] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Control steps a second of simulated Sawyer and policy over topics, beside one process.

    [dim]smac bench lockstep --json[/dim]
    """
    from smac_ros.benchmarks import bench_lockstep

    _report(bench_lockstep(seconds=seconds), as_json)


@bench_app.command("bags")
def bench_bags(
    megabytes: Annotated[int, typer.Option(help="Of each recording.", min=1)] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Recorded joint states to arrays, messages a second, beside rosbags' one by one.

    [dim]smac bench bags --megabytes 1000 --json[/dim]
    """
    from smac_ros.bags.benchmark import bench_bags, show

    content = bench_bags(megabytes=megabytes, quiet=as_json)
    print(json.dumps(content, indent=1)) if as_json else show(content)


@bench_app.command("record")
def bench_record(
    seconds: Annotated[float, typer.Option(help="Of each round.", min=0.5)] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Joint states a second that the recorder keeps up with, published at several rates.

    [dim]smac bench record --json[/dim]
    """
    from smac_ros.bags.record_benchmark import bench_record

    content = bench_record(seconds=seconds)
    _report(content, as_json)
    for row in () if as_json else content["rates"]:
        print(
            f"{row['rate']:>6} Hz: {row['published']} published, {row['recorded']} recorded, "
            f"{row['known_lost']} known to be lost, {row['cpu_us']} us of the processor each"
        )


def _report(content: dict, as_json: bool) -> None:
    from smac_core.benchmarks.measurement import show

    print(json.dumps(content, indent=1)) if as_json else show(content)


def _describe(argument) -> str:
    choices = f" One of: {', '.join(argument.choices)}." if argument.choices else ""
    return argument.description + ("" if argument.kind == "boolean" else choices)


def _table(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for index in range(len(rows[0])):
        table.add_column(no_wrap=index == 0, style="bold" if index == 0 else "")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)


def main() -> None:
    """Entry point of the installed ``smac`` program."""
    run(app)
