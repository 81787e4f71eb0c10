"""``smac bench``. Heavy imports wait until a command runs."""

from pathlib import Path
from typing import Annotated

import typer

from smac_core.options import Device, Json, Threads, Workers, print_json

bench_app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")


@bench_app.command("update")
def bench_update(
    scale: Annotated[str, typer.Option(help="Sizes of: smoke, cpu or paper (table 1).")] = "paper",
    seconds: Annotated[float, typer.Option(help="Time a measurement.", min=0.1)] = 5.0,
    seeds: Annotated[int, typer.Option(help="Also so many seeds at once.", min=0)] = 0,
    compiled: Annotated[bool, typer.Option(help="Also through torch.compile.")] = False,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Gradient steps a second, offline and self-supervised, beside a textbook implementation.

    [dim]smac bench update --scale paper --json[/dim]
    """
    from smac_core.benchmarks.measurement import show
    from smac_core.benchmarks.update import bench_update
    from smac_core.devices import resolve_device, use_threads

    use_threads(threads)
    report = bench_update(
        scale, seconds=seconds, device=resolve_device(device), seeds=seeds, compiled=compiled
    )
    print_json(report) if as_json else show(report)


@bench_app.command("startup")
def bench_startup(
    rounds: Annotated[int, typer.Option(help="Processes a command.", min=1)] = 5,
    as_json: Json = False,
) -> None:
    """Seconds until a command has shown its help or refused a mistake, in fresh processes.

    [dim]smac bench startup --json[/dim]
    """
    from smac_core.benchmarks.measurement import show
    from smac_core.benchmarks.startup import bench_startup

    report = bench_startup(rounds=rounds)
    print_json(report) if as_json else show(report)


@bench_app.command("memory")
def bench_memory(
    cases: Annotated[
        list[str] | None,
        typer.Option("--case", help="smoke, cpu, paper (sawyer) or humanoid. Repeatable."),
    ] = None,
    updates: Annotated[int, typer.Option(help="Of each phase.", min=1)] = 20,
    iterations: Annotated[int, typer.Option(help="Of practice.", min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Peak resident memory of training on a CPU, in fresh processes.

    [dim]smac bench memory --case paper --json[/dim]
    """
    from smac_core.benchmarks.measurement import show
    from smac_core.benchmarks.memory import CASES, bench_memory

    report = bench_memory(cases or CASES[1:], updates=updates, iterations=iterations)
    print_json(report) if as_json else show(report)


@bench_app.command("label")
def bench_label(
    scale: Annotated[str, typer.Option(help="Sizes of: smoke, cpu or paper (table 1).")] = "paper",
    trajectories: Annotated[int, typer.Option(help="In a batch.", min=1)] = 400,
    steps: Annotated[int, typer.Option(help="A trajectory.", min=1)] = 50,
    seconds: Annotated[float, typer.Option(help="Time a measurement.", min=0.1)] = 5.0,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Labelled transitions a second, beside a loop that encodes each trajectory's history.

    [dim]smac bench label --json[/dim]
    """
    from smac_core.config import load_config

    load_config("sawyer", scale)  # a mistake is told before torch is loaded
    from smac_core.benchmarks.labelling import bench_label
    from smac_core.benchmarks.measurement import show
    from smac_core.devices import resolve_device, use_threads

    use_threads(threads)
    sizes = {"trajectories": trajectories, "steps": steps}
    report = bench_label(scale, **sizes, seconds=seconds, device=resolve_device(device))
    print_json(report) if as_json else show(report)


@bench_app.command("growth")
def bench_growth(
    scale: Annotated[str, typer.Option(help="The sizes that stay as they are.")] = "paper",
    out: Annotated[Path | None, typer.Option(help="A .png file to draw.")] = None,
    seconds: Annotated[float, typer.Option(help="Time a measurement.", min=0.01)] = 2.0,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Cost of an update as tasks, context and batch grow, and whether it grows linearly.

    [dim]smac bench growth --out growth.png[/dim]
    """
    from smac_core.config import load_config
    from smac_core.errors import InputError

    load_config("sawyer", scale)
    if out and out.suffix != ".png":
        raise InputError(out, "format", out.suffix or "none", ".png")
    from smac_core.benchmarks.growth import bench_growth, draw, show_fits
    from smac_core.benchmarks.measurement import show
    from smac_core.devices import resolve_device, use_threads

    use_threads(threads)
    report = bench_growth(scale, seconds=seconds, device=resolve_device(device))
    if out:
        draw(report, out)
    if as_json:
        print_json(report)
    else:
        show(report)
        show_fits(report)


@bench_app.command("env")
def bench_env(
    domain: Annotated[str, typer.Option(help="Which domain.")] = "sawyer",
    seconds: Annotated[float, typer.Option(help="Time a measurement.", min=0.1)] = 5.0,
    as_json: Json = False,
) -> None:
    """Environment steps and resets a second, one process and the pool of workers.

    [dim]smac bench env --json[/dim]
    """
    from smac_core.benchmarks.environment import bench_env
    from smac_core.benchmarks.measurement import show

    report = bench_env(domain, seconds=seconds)
    print_json(report) if as_json else show(report)


@bench_app.command("collect")
def bench_collect(
    domain: Annotated[str, typer.Option(help="Which domain.")] = "sawyer",
    seconds: Annotated[float, typer.Option(help="Time a measurement.", min=0.1)] = 5.0,
    as_json: Json = False,
) -> None:
    """Transitions of offline data a second, beside one environment under fixed actions.

    [dim]smac bench collect --json[/dim]
    """
    from smac_core.benchmarks.collection import bench_collect
    from smac_core.benchmarks.measurement import show

    report = bench_collect(domain, seconds=seconds)
    print_json(report) if as_json else show(report)


@bench_app.command("rollout")
def bench_rollout(
    domain: Annotated[str, typer.Option(help="Which domain.")] = "sawyer",
    workers: Workers = 2,
    seconds: Annotated[float, typer.Option(help="Time a measurement.", min=0.1)] = 5.0,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Environment steps a second under a policy, and its share of the time.

    [dim]smac bench rollout --workers 2 --json[/dim]
    """
    from smac_core.benchmarks.measurement import show
    from smac_core.benchmarks.rollout import bench_rollout
    from smac_core.devices import resolve_device, use_threads

    use_threads(threads)
    report = bench_rollout(domain, seconds=seconds, workers=workers, device=resolve_device(device))
    if as_json:
        print_json(report)
    else:
        show(report)
        print(", ".join(f"{name}: {100 * part:.0f} %" for name, part in report["share"].items()))
