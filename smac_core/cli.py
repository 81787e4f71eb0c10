"""The ``smac`` command's part that needs no ROS. Heavy imports wait until a command runs."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="SMAC: meta-train from data labelled once, improve from unlabelled practice.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look into dataset files, cut them.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")

RunFolder = Annotated[Path, typer.Argument(help="A run's folder, as smac train made it.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=2**32 - 1)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int, typer.Option(help="CPU threads of torch; 0: torch's choice.", min=0)]
Workers = Annotated[int, typer.Option(help="Simulation processes; 0: in this one.", min=0)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
Set = Annotated[
    list[str],
    typer.Option("--set", help="Change the configuration: section.key=value. Repeatable."),
]
Phase = Annotated[
    str | None,
    typer.Option(help="offline, self_supervised, control, ...; default: the latest of two."),
]


def main(application: typer.Typer = app) -> None:
    """Run the command line: wrong input ends in one line on standard error and exit code 2."""
    try:
        application()
    except Exception as error:
        if not _expected(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _expected(error: Exception) -> bool:
    from concurrent.futures.process import BrokenProcessPool

    from gymnasium.error import Error as GymnasiumError

    from smac_core.config import ConfigError
    from smac_core.errors import InputError
    from smac_core.training.environment_pool import EnvironmentPoolError

    inputs = (InputError, ConfigError, GymnasiumError)
    failures = (FloatingPointError, OSError, EnvironmentPoolError, BrokenProcessPool)
    return isinstance(error, (*inputs, *failures))


@app.command()
def collect(
    domain: Annotated[str, typer.Argument(help="sawyer, or the path of a domain's YAML.")],
    out: Annotated[Path, typer.Option(help="The dataset file to write.")],
    tasks: Annotated[int, typer.Option(help="Training tasks; 0: all.", min=0)] = 0,
    trajectories: Annotated[
        int, typer.Option(help="A training task; 0: as configured.", min=0)
    ] = 0,
    scale: Annotated[str, typer.Option(help="smoke, cpu or paper.")] = "paper",
    workers: Workers = 2,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    changes: Set = [],
    quiet: Quiet = False,
) -> None:
    """Make an offline dataset with the domain's behaviour policy, labelled with true rewards.

    [dim]smac collect sawyer --out data/sawyer.h5 --workers 2[/dim]
    """
    from smac_core.commands.collect import collect_dataset
    from smac_core.config import load_config

    summary = collect_dataset(
        load_config(domain, scale, changes),
        out,
        tasks=tasks,
        trajectories=trajectories,
        workers=workers,
        seed=seed,
        overwrite=overwrite,
        quiet=quiet,
    )
    if not quiet:
        print(summary, file=sys.stderr)
    print(out)


@data_app.command("info")
def data_info(
    dataset: Annotated[Path, typer.Argument(help="A dataset file.")], as_json: Json = False
) -> None:
    """What a dataset file holds.

    [dim]smac data info data/sawyer.h5[/dim]
    """
    from smac_core.commands.collect import show_dataset
    from smac_core.data.dataset import Dataset

    summary = Dataset.load(dataset).summary()
    _print_json(summary) if as_json else show_dataset(summary)


@data_app.command("subset")
def data_subset(
    dataset: Annotated[Path, typer.Argument(help="A dataset file.")],
    trajectories: Annotated[int, typer.Option(help="How many of each training task.", min=1)],
    out: Annotated[Path, typer.Option(help="The dataset file to write.")],
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """The first trajectories of each training task: histories small enough to ship with a run.

    [dim]smac data subset data/sawyer.h5 --trajectories 10 --out history.h5[/dim]
    """
    from smac_core.commands.collect import write_subset

    write_subset(dataset, out, trajectories, overwrite=overwrite)
    print(out)


@app.command("copy")
def copy_run(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The new run's folder.")],
    dataset: Annotated[
        Path | None, typer.Option(help="The run's data, or a part of them, for the copy to use.")
    ] = None,
) -> None:
    """Copy a run's last offline checkpoint, for second phases of its own or for shipping.

    [dim]smac copy runs/sawyer --dataset history.h5 --out shipped/sawyer[/dim]
    """
    from smac_core.training.run import copy_offline

    copy_offline(run, out, dataset)
    print(out)


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(help="A dataset file, as smac collect made it.")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    algorithm: Annotated[str | None, typer.Option(help="smac (the default) or meta_bc.")] = None,
    scale: Annotated[str | None, typer.Option(help="smoke, cpu (the default) or paper.")] = None,
    domain: Annotated[str | None, typer.Option(help="Default: the dataset's.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random; default 0.", min=0, max=2**32 - 1)
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    changes: Set = [],
    quiet: Quiet = False,
) -> None:
    """Meta-train on offline data (algorithm 1, offline phase). Ctrl-C saves; --resume goes on.

    [dim]smac train data/sawyer.h5 --algorithm smac --scale cpu --out runs/sawyer[/dim]
    """
    from smac_core.algorithms import ALGORITHMS
    from smac_core.config import load_config
    from smac_core.data.dataset import Dataset
    from smac_core.errors import InputError
    from smac_core.training.offline import train_offline
    from smac_core.training.run import Run, resolve_device

    if algorithm not in (None, *ALGORITHMS):
        raise InputError("--algorithm", "name", algorithm, " or ".join(ALGORITHMS))
    _use_threads(threads)
    device = resolve_device(device)
    if resume:
        run = Run.resume(out, "offline", device=device, dataset_path=dataset, overrides=changes)
        kept = {"algorithm": run.algorithm, "scale": run.config.scale, "seed": run.seed}
        for name, asked in (("algorithm", algorithm), ("scale", scale), ("seed", seed)):
            if asked not in (None, kept[name]):
                raise InputError(out, name, kept[name], f"{asked}, as asked: train a new run")
    else:
        data = Dataset.load(dataset)
        config = load_config(domain or data.domain, scale or "cpu", changes)
        run = Run.create(
            out, config, data, algorithm=algorithm or "smac", seed=seed or 0, device=device
        )
    if not train_offline(run, quiet=quiet):
        raise typer.Exit(130)
    print(out)


@app.command("self-train")
def self_train(
    run: RunFolder,
    iterations: Annotated[int, typer.Option(help="0: as configured.", min=0)] = 0,
    phase: Annotated[
        str,
        typer.Option(
            help="self_supervised, control (no new data), true_rewards (oracle) or test_scenes "
            "(practice in the held-out tasks' scenes)."
        ),
    ] = "self_supervised",
    dataset: Annotated[Path | None, typer.Option(help="If the file has moved.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the phase.")] = False,
    device: Device = "auto",
    threads: Threads = 0,
    workers: Workers = 2,
    changes: Set = [],
    quiet: Quiet = False,
) -> None:
    """Practise without rewards and improve (algorithm 1, self-supervised phase).

    [dim]smac self-train runs/sawyer[/dim]
    """
    from smac_core.commands.evaluate import make_pool
    from smac_core.errors import InputError
    from smac_core.training import self_supervised
    from smac_core.training.run import PHASES, Run, resolve_device

    if phase not in PHASES[1:]:
        raise InputError("--phase", "name", phase, " or ".join(PHASES[1:]))
    _use_threads(threads)
    if iterations:
        changes = [*changes, f"self_supervised.iterations={iterations}"]
    arguments = {"device": resolve_device(device), "dataset_path": dataset, "overrides": changes}
    begin = Run.resume if resume else self_supervised.begin
    state = begin(run, phase, **arguments)
    with make_pool(state.config, workers) as pool:
        if not self_supervised.self_train(state, pool, quiet=quiet):
            raise typer.Exit(130)
    print(state.folder)


@app.command()
def evaluate(
    run: RunFolder,
    phase: Phase = None,
    tasks: Annotated[
        str, typer.Option(help="test, train, or a JSON list of tasks (a path or package:path).")
    ] = "test",
    context: Annotated[str, typer.Option(help="online, offline or both.")] = "online",
    dataset: Annotated[Path | None, typer.Option(help="If the file has moved.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    workers: Workers = 2,
    changes: Set = [],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Adapt to each task and score the last episode, from online and from offline context.

    [dim]smac evaluate runs/sawyer --tasks test --context both --json[/dim]
    """
    from smac_core.commands.evaluate import evaluate_run, show_results
    from smac_core.training.run import resolve_device

    _use_threads(threads)
    results = evaluate_run(
        run,
        phase or latest_phase(run),
        tasks=tasks,
        context=context,
        dataset_path=dataset,
        seed=seed,
        device=resolve_device(device),
        workers=workers,
        overrides=changes,
        quiet=quiet,
    )
    _print_json(results) if as_json else show_results(results)


@app.command()
def figures(run: RunFolder) -> None:
    """Draw learning curves, KL and success from what the run has logged and evaluated.

    [dim]smac evaluate runs/sawyer --context both && smac figures runs/sawyer[/dim]
    """
    from smac_core.figures import draw

    for path in draw(run):
        print(path)


@app.command()
def render(
    target: Annotated[str, typer.Argument(help="A run's folder, or a domain for its script.")],
    out: Annotated[Path, typer.Option(help="A .gif or .mp4 file, or a .png strip.")],
    task: Annotated[int, typer.Option(help="Number of the task in its set.", min=0)] = 0,
    tasks: Annotated[str, typer.Option(help="test, train, or a JSON list of tasks.")] = "test",
    phase: Phase = None,
    seed: Seed = 0,
    width: Annotated[int, typer.Option(min=16)] = 480,
    height: Annotated[int, typer.Option(min=16)] = 360,
) -> None:
    """Film an agent exploring and adapting to a task, or the behaviour policy doing it.

    [dim]smac render runs/sawyer --task 3 --out task.gif[/dim]
    """
    from smac_core.commands.render import film_policy, film_run
    from smac_core.config import domains, load_config

    size = {"width": width, "height": height}
    if target in domains():
        film_policy(load_config(target, "paper"), tasks, task, out, seed=seed, **size)
    else:
        folder = Path(target)
        film_run(folder, phase or latest_phase(folder), tasks, task, out, seed=seed, **size)
    print(out)


@app.command()
def reproduce(
    figure: Annotated[str, typer.Argument(help="fig5 (fig2 is drawn from the same runs).")],
    domain: Annotated[str, typer.Option(help="Which domain.")] = "sawyer",
    scale: Annotated[str, typer.Option(help="smoke, cpu or paper.")] = "cpu",
    seeds: Annotated[str, typer.Option(help="Their numbers: 0,1,2.")] = "0,1,2",
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/reproduce"),
    results: Annotated[Path | None, typer.Option(help="Default: results in --out.")] = None,
    workers: Workers = 2,
    threads: Threads = 0,
    device: Device = "auto",
    changes: Set = [],
    quiet: Quiet = False,
) -> None:
    """Run one of the paper's experiments, skipping what is done, and write its table and figures.

    [dim]smac reproduce fig5 --scale cpu --seeds 0,1,2 --results results/sawyer_cpu[/dim]
    """
    from smac_core.commands.demo import show
    from smac_core.commands.pipeline import Interrupted, run_seed
    from smac_core.commands.reproduce import summarize
    from smac_core.errors import InputError
    from smac_core.training.run import resolve_device

    if figure != "fig5":
        raise InputError("FIGURE", "name", figure, "fig5")
    if not all(seed.isdecimal() for seed in seeds.split(",")):
        raise InputError("--seeds", "numbers", seeds, "numbers with commas between: 0,1,2")
    _use_threads(threads)
    base, folders = out / f"{Path(domain).stem}_{scale}", []
    for seed in map(int, seeds.split(",")):
        folders.append(base / f"seed_{seed}")
        try:
            scores = run_seed(
                domain,
                scale,
                folders[-1],
                seed,
                changes,
                workers=workers,
                device=resolve_device(device),
                quiet=quiet,
                announce=lambda stage, seed=seed: print(f"seed {seed}: {stage}", file=sys.stderr),
            )
        except Interrupted:
            raise typer.Exit(130) from None
        show(scores)
    place = results or base / "results"
    summarize(folders, place)
    print(place)


@bench_app.command("update")
def bench_update(
    scale: Annotated[str, typer.Option(help="Sizes of: smoke, cpu or paper (table 1).")] = "paper",
    seconds: Annotated[float, typer.Option(help="Time a measurement.", min=0.1)] = 5.0,
    device: Device = "auto",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Gradient steps a second, offline and self-supervised, beside a textbook implementation.

    [dim]smac bench update --scale paper --json[/dim]
    """
    from smac_core.benchmarks import bench_update, show
    from smac_core.training.run import resolve_device

    _use_threads(threads)
    report = bench_update(scale, seconds=seconds, device=resolve_device(device))
    _print_json(report) if as_json else show(report)


@bench_app.command("env")
def bench_env(
    domain: Annotated[str, typer.Option(help="Which domain.")] = "sawyer",
    seconds: Annotated[float, typer.Option(help="Time a measurement.", min=0.1)] = 5.0,
    as_json: Json = False,
) -> None:
    """Environment steps and resets a second, one process and the pool of workers.

    [dim]smac bench env --json[/dim]
    """
    from smac_core.benchmarks import bench_env, show

    report = bench_env(domain, seconds=seconds)
    _print_json(report) if as_json else show(report)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What is installed, what is missing for which feature, and whether a GPU will be used.

    [dim]smac doctor[/dim]
    """
    from smac_core import installation

    checks = installation.doctor()
    if as_json:
        _print_json(installation.report(checks))
    else:
        installation.show(checks)
    if not all(check.ok for check in checks if check.required):
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Where data, runs and figures go; default runs/demo_SCALE.")
    ] = None,
    scale: Annotated[str, typer.Option(help="cpu, or smoke to see it run in a minute.")] = "cpu",
    workers: Workers = 2,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """The whole idea on a simulated Sawyer: collect, meta-train, practise without rewards, adapt.

    [dim]smac demo[/dim]
    """
    from smac_core.commands.demo import run_demo

    run_demo(out or Path(f"runs/demo_{scale}"), scale, workers=workers, seed=seed, quiet=quiet)


def latest_phase(run: Path) -> str:
    """The furthest of ``self_supervised`` and ``offline`` that a run has a checkpoint of."""
    done = (run / "self_supervised" / "checkpoints" / "latest").exists()
    return "self_supervised" if done else "offline"


def _use_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1, allow_nan=False))
