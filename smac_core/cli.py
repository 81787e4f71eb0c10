"""The ``smac`` command's part that needs no ROS.

Heavy imports wait until a command runs, and torch until its arguments have been looked at: a
mistake is answered within a second.
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from smac_core.benchmarks.cli import bench_app
from smac_core.deployment.hub import hub_phase
from smac_core.export_cli import data_export, export
from smac_core.options import (
    Device,
    Json,
    Minutes,
    Phase,
    Quiet,
    RunFolder,
    Seed,
    Set,
    Threads,
    Workers,
    print_json,
    sitting,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="SMAC: meta-train from data labelled once, improve from unlabelled practice.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look into dataset files, cut them, export them.")
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench")
app.command()(export)
data_app.command("export")(data_export)

# What ends in one line instead of a traceback: wrong inputs, and failures that are not the code's.
# By name, as importing these to compare with would load what a mistake need not wait for.
EXPECTED = {
    "smac_core.errors.InputError",
    "smac_core.config.ConfigError",
    "gymnasium.error.Error",
    "builtins.FloatingPointError",
    "builtins.OSError",
    "smac_core.training.environment_pool.EnvironmentPoolError",
    "concurrent.futures.process.BrokenProcessPool",
}


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
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    return not kinds.isdisjoint(EXPECTED)


@app.command()
def collect(
    domain: Annotated[
        str, typer.Argument(help="sawyer, cheetah_velocity, ..., or a domain's YAML.")
    ],
    out: Annotated[Path, typer.Option(help="The dataset file to write.")],
    run: Annotated[
        Path | None,
        typer.Option(help="Where PEARL runs that makes the data; default: OUT's name with _pearl."),
    ] = None,
    tasks: Annotated[int, typer.Option(help="Training tasks; 0: all.", min=0)] = 0,
    trajectories: Annotated[
        int, typer.Option(help="A training task; 0: as configured.", min=0)
    ] = 0,
    scale: Annotated[str, typer.Option(help="smoke, cpu or paper.")] = "paper",
    workers: Workers = 2,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    minutes: Minutes = 0,
    device: Device = "auto",
    threads: Threads = 0,
    changes: Set = [],
    quiet: Quiet = False,
) -> None:
    """Make an offline dataset, labelled with true rewards.

    With the domain's behaviour policy or, in the MuJoCo domains, out of the buffers of a PEARL run
    that is stopped early; the same command goes on with one that was interrupted.

    [dim]smac collect sawyer --out data/sawyer.h5 --workers 2[/dim]

    [dim]smac collect cheetah_velocity --scale cpu --out data/cheetah.h5[/dim]
    """
    from smac_core.commands.collect import collect_dataset
    from smac_core.config import load_config
    from smac_core.errors import InputError

    config = load_config(domain, scale, changes)
    scripted = config.collection.source == "scripted"
    if scripted and minutes:
        expected = f"0: {config.domain}'s data are scripted, and made in one sitting"
        raise InputError("--minutes", "value", minutes, expected)
    # Ctrl-C ends the script at once: there is nothing to save
    with nullcontext() if scripted else sitting(minutes) as unfinished:
        summary = collect_dataset(
            config,
            out,
            run=run,
            tasks=tasks,
            trajectories=trajectories,
            workers=workers,
            seed=seed,
            device=device,
            threads=threads,
            overwrite=overwrite,
            quiet=quiet,
        )
        if summary is None:
            raise unfinished()
    if not quiet:
        print(summary, file=sys.stderr)
    print(out)


@app.command()
def oracle(
    domain: Annotated[
        str, typer.Argument(help="sawyer, cheetah_velocity, ..., or a domain's YAML.")
    ],
    out: Annotated[Path, typer.Option(help="The run's folder, also one of smac collect's PEARL.")],
    scale: Annotated[str, typer.Option(help="smoke, cpu or paper.")] = "paper",
    seed: Seed = 0,
    minutes: Minutes = 0,
    device: Device = "auto",
    threads: Threads = 0,
    workers: Workers = 2,
    changes: Set = [],
    quiet: Quiet = False,
) -> None:
    """Train PEARL online with true rewards, what SMAC is measured against, or go on with it.

    [dim]smac oracle cheetah_velocity --scale cpu --out data/cheetah_pearl[/dim]
    """
    from smac_core.config import load_config

    config = load_config(domain, scale, changes)
    from smac_core.commands.evaluate import make_pool
    from smac_core.devices import resolve_device, use_threads
    from smac_core.training.meta_rl import meta_train, opened_run

    use_threads(threads, config)
    with (
        opened_run(out, config, seed=seed, device=resolve_device(device)) as run,
        make_pool(config, workers) as pool,
        sitting(minutes) as unfinished,
    ):
        if not meta_train(run, pool=pool, quiet=quiet):
            raise unfinished()
    print(out)


@data_app.command("info")
def data_info(
    dataset: Annotated[Path, typer.Argument(help="A dataset file.")], as_json: Json = False
) -> None:
    """What a dataset file holds.

    [dim]smac data info data/sawyer.h5[/dim]
    """
    from smac_core.commands.checks import check_dataset

    check_dataset(dataset)
    from smac_core.commands.collect import show_dataset
    from smac_core.data.dataset import Dataset

    summary = Dataset.load(dataset).summary()
    print_json(summary) if as_json else show_dataset(summary)


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
    from smac_core.commands.checks import check_dataset, check_new_run, check_run

    check_new_run(out)
    check_run(run, "offline")
    if dataset:
        check_dataset(dataset)
    from smac_core.training.run import copy_offline

    copy_offline(run, out, dataset)
    print(out)


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(help="A dataset file, as smac collect made it.")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    algorithm: Annotated[
        str | None, typer.Option(help="smac (the default), meta_bc, macaw or borel.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="macaw, borel: their own settings (own, the default; at scale paper their "
            "authors'), or SMAC's sizes, rates and batches (matched)."
        ),
    ] = None,
    scale: Annotated[str | None, typer.Option(help="smoke, cpu (the default) or paper.")] = None,
    domain: Annotated[str | None, typer.Option(help="Default: the dataset's.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random; default 0.", min=0, max=2**32 - 1)
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Several at once, in OUT/seed_N: 0,1,2,3. For a GPU.")
    ] = "",
    minutes: Minutes = 0,
    device: Device = "auto",
    threads: Threads = 0,
    changes: Set = [],
    quiet: Quiet = False,
) -> None:
    """Meta-train on offline data (algorithm 1, offline phase). Ctrl-C saves; --resume goes on.

    [dim]smac train data/sawyer.h5 --algorithm smac --scale cpu --out runs/sawyer[/dim]

    [dim]smac train data/sawyer.h5 --algorithm macaw --preset matched --out runs/macaw[/dim]
    """
    from smac_core.commands import checks

    checks.check_choice("--algorithm", algorithm or "smac", checks.ALGORITHMS)
    checks.check_preset(preset, algorithm or "smac", resume)
    checks.check_dataset(dataset)
    folders = {seed: out}
    if seeds:
        folders = {number: out / f"seed_{number}" for number in checks.check_seeds(seeds, seed)}
    if resume:
        checks.check_resumed(changes)
    for folder in folders.values():
        if resume:
            checks.check_run(folder, "offline")
            checks.check_changes(folder, "offline", changes)
        else:
            checks.check_new_run(folder)
    if not resume:
        from smac_core.config import load_config, override_config
        from smac_core.data.dataset import Dataset
        from smac_core.presets import configured

        data = Dataset.load(dataset)
        config = load_config(domain or data.domain, scale or "cpu", changes)
        config = configured(config, algorithm or "smac", preset or "own")
        config = override_config(config, changes)  # they come before the preset's
    from smac_core.devices import resolve_device, use_threads
    from smac_core.training.offline import train_offline
    from smac_core.training.run import Run

    device, runs = resolve_device(device), []
    for number, folder in folders.items():
        if resume:
            more = {"device": device, "dataset_path": dataset, "overrides": changes}
            runs.append(Run.resume(folder, "offline", **more))
            asked = {"algorithm": algorithm, "scale": scale, "seed": number}
            checks.check_same(folder, runs[-1], asked)
        else:
            more = {"algorithm": algorithm or "smac", "seed": number or 0, "device": device}
            runs.append(Run.create(folder, config, data, **more))
    use_threads(threads, runs[0].config)
    if not all((stages := runs[0].learner.offline_stages).values()):
        shown = ", ".join(f"{steps} of stage {stage}" for stage, steps in stages.items())
        print(f"note: offline.steps leaves a stage without any: {shown}", file=sys.stderr)
    with sitting(minutes) as unfinished:
        if not train_offline(*runs, quiet=quiet):
            raise unfinished()
    print(out)


@app.command("self-train")
def self_train(
    run: Annotated[
        list[Path], typer.Argument(help="A run's folder. Several train at once, for a GPU.")
    ],
    iterations: Annotated[int, typer.Option(help="0: as configured.", min=0)] = 0,
    phase: Annotated[
        str,
        typer.Option(
            help="self_supervised, control (no new data), true_rewards, test_scenes (practice in "
            "the held-out tasks' scenes) or test_scenes_true_rewards."
        ),
    ] = "self_supervised",
    dataset: Annotated[Path | None, typer.Option(help="If the file has moved.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the phase.")] = False,
    minutes: Minutes = 0,
    device: Device = "auto",
    threads: Threads = 0,
    workers: Workers = 2,
    changes: Set = [],
    quiet: Quiet = False,
) -> None:
    """Practise without rewards and improve (algorithm 1, self-supervised phase).

    [dim]smac self-train runs/sawyer[/dim]
    """
    from smac_core.commands import checks

    checks.check_choice("--phase", phase, checks.PHASES[1:])
    if iterations:
        changes = [*changes, f"self_supervised.iterations={iterations}"]
    checks.check_distinct(run)
    if not resume:
        checks.check_new_phases(run, phase)
    for folder in run:
        checks.check_run(folder, phase if resume else "offline")
        checks.check_changes(folder, phase if resume else "offline", changes)
    if dataset:
        checks.check_dataset(dataset)
    from smac_core.commands.evaluate import make_pool
    from smac_core.devices import resolve_device, use_threads
    from smac_core.training import self_supervised
    from smac_core.training.run import Run

    arguments = {"device": resolve_device(device), "dataset_path": dataset, "overrides": changes}
    begin = Run.resume if resume else self_supervised.begin
    runs = [begin(folder, phase, **arguments) for folder in run]
    use_threads(threads, runs[0].config)
    with make_pool(runs[0].config, workers) as pool, sitting(minutes) as unfinished:
        if not self_supervised.self_train(*runs, pool=pool, quiet=quiet):
            raise unfinished()
    for one in runs:
        print(one.folder)


@app.command()
def evaluate(
    run: RunFolder,
    phase: Phase = None,
    tasks: Annotated[
        str, typer.Option(help="test, train, or a JSON list of tasks (a path or package:path).")
    ] = "test",
    context: Annotated[
        str, typer.Option(help="online, offline, both; none: do not adapt; or all three.")
    ] = "online",
    dataset: Annotated[Path | None, typer.Option(help="If the file has moved.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 0,
    workers: Workers = 2,
    changes: Set = [],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Adapt to each task and score the last episode: from online, offline or no context.

    [dim]smac evaluate runs/sawyer --tasks test --context both --json[/dim]
    """
    from smac_core.commands import checks

    phase = phase or latest_phase(run)
    checks.check_choice("--context", context, checks.CONTEXTS)
    checks.check_agent(run, phase)
    checks.check_changes(run, phase, changes)
    checks.check_evaluated(changes)
    checks.check_tasks(tasks)
    if dataset:
        checks.check_dataset(dataset)
    from smac_core.commands.evaluate import evaluate_run, show_results
    from smac_core.devices import resolve_device, use_threads

    use_threads(threads)
    results = evaluate_run(
        run,
        phase,
        tasks=tasks,
        context=context,
        dataset_path=dataset,
        seed=seed,
        device=resolve_device(device),
        workers=workers,
        overrides=changes,
        quiet=quiet,
    )
    print_json(results) if as_json else show_results(results)


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
    from smac_core.commands.checks import check_agent, check_film, check_tasks
    from smac_core.config import domains, load_config

    check_film(out)
    check_tasks(tasks)
    size, folder = {"width": width, "height": height}, Path(target)
    scripted = target in domains()
    phase = phase or latest_phase(folder)
    if not scripted:
        check_agent(folder, phase)
    from smac_core.commands.render import film_policy, film_run

    if scripted:
        film_policy(load_config(target, "paper"), tasks, task, out, seed=seed, **size)
    else:
        film_run(folder, phase, tasks, task, out, seed=seed, **size)
    print(out)


@app.command()
def reproduce(
    figure: Annotated[str, typer.Argument(help="fig2, fig5, fig6, fig7 or fig8.")],
    domain: Annotated[str | None, typer.Option(help="Default: the figure's own.")] = None,
    scale: Annotated[str, typer.Option(help="smoke, cpu or paper.")] = "cpu",
    seeds: Annotated[str, typer.Option(help="Their numbers: 0,1,2,3.")] = "0,1,2,3",
    methods: Annotated[str, typer.Option(help="smac,meta_bc,...; default: all of them.")] = "",
    out: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/reproduce"),
    results: Annotated[Path | None, typer.Option(help="Default: OUT/DOMAIN_SCALE/results.")] = None,
    at_once: Annotated[int, typer.Option(help="Seeds that train at once. For a GPU.", min=1)] = 1,
    minutes: Minutes = 0,
    workers: Workers = 2,
    threads: Threads = 0,
    device: Device = "auto",
    changes: Set = [],
    quiet: Quiet = False,
) -> None:
    """Run one of the paper's experiments, skipping what is done, and write its table and figure.

    Figures of a domain and scale share their runs. Seeds may be given to several processes.

    [dim]smac reproduce fig5 --scale cpu --seeds 0,1,2 --results results/sawyer_cpu[/dim]
    """
    from smac_core.commands.checks import check_choice, check_seeds
    from smac_core.commands.experiments import FIGURES, choose_methods
    from smac_core.config import load_config

    check_choice("FIGURE", figure, list(FIGURES))
    numbers = check_seeds(seeds)
    domain = domain or FIGURES[figure].domain
    config = load_config(domain, scale, changes)
    choose_methods(figure, methods, config)
    from smac_core.commands import reproduce as experiment
    from smac_core.commands.demo import show
    from smac_core.commands.pipeline import Interrupted
    from smac_core.devices import resolve_device, use_threads

    use_threads(threads, config)
    with sitting(minutes) as unfinished:
        try:
            place = experiment.reproduce(
                figure,
                config,
                out / f"{Path(domain).stem}_{scale}",
                numbers,
                methods=methods,
                at_once=at_once,
                results=results,
                finished=show,
                announce=lambda stage: print(stage, file=sys.stderr),
                workers=workers,
                device=resolve_device(device),
                quiet=quiet,
            )
        except Interrupted:
            raise unfinished() from None
    print(place)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What is installed, what is missing for which feature, and whether a GPU will be used.

    [dim]smac doctor[/dim]
    """
    from smac_core import installation

    checks = installation.doctor()
    if as_json:
        print_json(installation.report(checks))
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
    from smac_core.config import load_config

    load_config("sawyer", scale)
    from smac_core.commands.demo import run_demo

    run_demo(out or Path(f"runs/demo_{scale}"), scale, workers=workers, seed=seed, quiet=quiet)


def latest_phase(run: Path) -> str:
    """The phase that a run is best known by: PEARL's, or SMAC's furthest, or the first."""
    done = (p for p in ("online", "self_supervised") if (run / p / "checkpoints/latest").exists())
    return hub_phase(run) or next(done, "offline")
