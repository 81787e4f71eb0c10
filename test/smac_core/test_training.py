"""A small problem learned for real, and what training promises: resume, freezing, labels."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from smac_core import checkpoint, perceptron
from smac_core.checkpoint import CheckpointError
from smac_core.commands.collect import write_subset
from smac_core.config import override_config
from smac_core.data.dataset import Dataset, TaskData
from smac_core.data.dataset_writer import DatasetWriter
from smac_core.data.trajectories import Trajectories
from smac_core.errors import InputError
from smac_core.evaluation import meta_test
from smac_core.figures import load_metrics
from smac_core.tasks import load_tasks
from smac_core.training import self_supervised
from smac_core.training.labelling import Labeler
from smac_core.training.offline import train_offline
from smac_core.training.run import (
    PHASES,
    Run,
    copy_offline,
    identity,
    load_agent,
    pretrained_directory,
)
from smac_core.training.updates import Updates

SHORT = ["self_supervised.iterations=1"]


def score(folder, phase, config, pool, dataset=None) -> float:
    agent, _, _ = load_agent(folder, phase)
    result = meta_test(
        pool,
        agent,
        load_tasks(config.tasks.test),
        config.evaluation,
        horizon=20,
        context="offline" if dataset else "online",
        offline=dataset.test if dataset else None,
        generator=torch.Generator().manual_seed(0),
    )
    return float(result.returns.mean())


def state_of(run: Run) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, module in run.learner.networks.items():
        tensors |= {f"{name}.{k}": v.clone() for k, v in module.state_dict().items()}
    for name, optimizer in run.learner.optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{k}": v.clone() for k, v in state.items()}
    return tensors


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_offline_phase_adapts_better_than_the_data(trained, config, pool, dataset):
    data = np.mean([task.returns.mean() for task in dataset.test])
    assert data < -16, "the data wander; else this test shows nothing"
    assert score(trained, "offline", config, pool, dataset) > -11
    steps, errors = load_metrics(trained / "offline" / "metrics.csv", "reward_error")
    assert steps[-1] == config.offline.steps
    assert errors[-1] < 0.02 < errors[0]


def test_smac_beats_meta_behaviour_cloning(trained, config, pool, dataset, tmp_path):
    run = Run.create(tmp_path / "bc", config, dataset, algorithm="meta_bc", seed=0, device="cpu")
    train_offline(run, quiet=True)
    cloned = score(tmp_path / "bc", "offline", config, pool, dataset)
    assert score(trained, "offline", config, pool, dataset) > cloned + 2


@pytest.mark.parametrize("phase", PHASES[1:])
def test_second_phase_trains_actor_and_critic_alone(trained, config, pool, tmp_path, phase):
    folder = shutil.copytree(trained, tmp_path / "run")
    run = self_supervised.begin(folder, phase, device="cpu")
    before = state_of(run)
    offline_rows = run.replay.rl.offline.clone()
    assert self_supervised.self_train(run, pool=pool, quiet=True)
    after = state_of(run)
    for name, value in before.items():
        frozen = name.startswith(("agent.encoder", "agent.decoder", "agent.standard", "inference"))
        assert torch.equal(value, after[name]) == frozen, name
    assert torch.equal(offline_rows, run.replay.rl.offline)
    settings = config.self_supervised
    transitions = settings.iterations * settings.tasks_per_iteration * 4 * 20
    updates = config.offline.steps + transitions * settings.gradient_steps_per_transition
    assert run.counters["updates"] == updates
    assert run.counters["transitions"] == (0 if phase == "control" else transitions)
    written = sum(run.replay.rl.online_written)
    assert written == run.counters["transitions"]
    assert sum(run.replay.context.online_written) == written * 3 // 4, "exploration only"


def test_labels_are_the_decoders_for_the_tasks_offline_history(trained, config, pool):
    run = Run.resume(trained, "offline", device="cpu")
    run.phase = "self_supervised"
    values = self_supervised.practise(run, pool)
    assert values["exploration_label_error"] < 0.05
    task = int(np.flatnonzero(run.replay.rl.online_written)[0])
    online = run.replay.rl.sample(torch.tensor([task]), 200, from_online=torch.tensor([True]))
    batch = run.replay.layout.unpack(online)
    raw = batch.observations[0] * run.agent.standardizer.deviation + run.agent.standardizer.mean
    angle = run.dataset.train[task].task["angle"]
    goal = torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)
    true = -(raw + 0.1 * batch.actions[0] - goal).norm(dim=-1)
    assert (batch.rewards[0] - true).abs().mean() < 0.2, "labels are those of the task's own goal"
    assert not torch.equal(batch.rewards[0], true), "and decoded, not the environment's"


def test_test_scenes_are_those_of_the_held_out_tasks(trained, config, pool, monkeypatch):
    run = Run.resume(trained, "offline", device="cpu")
    run.phase, visited, reset = "test_scenes", [], pool.reset
    monkeypatch.setattr(
        pool, "reset", lambda e, tasks, s: visited.extend(tasks) or reset(e, tasks, s)
    )
    self_supervised.practise(run, pool)
    held_out = load_tasks(config.tasks.test)
    assert visited and all(task in held_out for task in visited)


def test_true_rewards_in_test_scenes_go_to_buffers_of_their_own(trained, config, pool, tmp_path):
    phase, folder = "test_scenes_true_rewards", shutil.copytree(trained, tmp_path / "run")
    run = self_supervised.begin(folder, phase, device="cpu")
    train, held_out = run.dataset.train, run.dataset.test
    assert run.replay.tasks == len(train) + len(held_out)
    assert run.replay.rl.offline_sizes[len(train) :].tolist() == [len(t) for t in held_out]
    self_supervised.practise(run, pool)
    written = np.array(run.replay.rl.online_written)
    assert not written[: len(train)].any() and written[len(train) :].any()
    task = int(np.flatnonzero(written)[0])
    rows = run.replay.rl.sample(torch.tensor([task]), 200, from_online=torch.tensor([True]))
    batch = run.replay.layout.unpack(rows)
    deviation, mean = run.agent.standardizer.deviation, run.agent.standardizer.mean
    angle = held_out[task - len(train)].task["angle"]
    goal = torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)
    true = -(batch.next_observations[0] * deviation + mean - goal).norm(dim=-1)
    torch.testing.assert_close(batch.rewards[0], true, rtol=1e-4, atol=1e-4)
    run.save()
    again = Run.resume(folder, phase, device="cpu")
    assert again.replay.rl.online_written == run.replay.rl.online_written


@pytest.mark.parametrize("phase", ["self_supervised", "test_scenes"])
def test_no_reward_reaches_practice(trained, config, pool, tmp_path, monkeypatch, phase):
    """Replacing every reward of the environment changes nothing in what is learned."""
    states = []
    for lie in (False, True):
        folder = shutil.copytree(trained, tmp_path / f"run_{lie}")
        run = self_supervised.begin(folder, phase, device="cpu")
        if lie:
            step = pool.step
            monkeypatch.setattr(
                pool,
                "step",
                lambda *a, step=step: step(*a)._replace(rewards=np.full(len(a[0]), 7.0)),
            )
        self_supervised.practise(run, pool)
        updates = Updates([(run.learner, run.replay)], "self_supervised")
        for _ in range(5):
            updates.take(1)
        states.append(state_of(run))
    assert_same(*states)


def test_offline_resume_is_bit_for_bit(config, dataset, tmp_path):
    def create(name, steps):
        short = override_config(
            config, [f"offline.steps={steps}", "offline.checkpoint_every=7", "offline.log_every=5"]
        )
        return Run.create(tmp_path / name, short, dataset, algorithm="smac", seed=3, device="cpu")

    whole = create("whole", 40)
    train_offline(whole, quiet=True)
    first = create("parts", 17)
    train_offline(first, quiet=True)
    second = Run.resume(tmp_path / "parts", "offline", device="cpu", overrides=["offline.steps=40"])
    assert second.step == 17
    train_offline(second, quiet=True)
    assert_same(state_of(whole), state_of(second))


def test_self_supervised_resume_is_bit_for_bit(trained, config, pool, tmp_path):
    folders = [shutil.copytree(trained, tmp_path / name) for name in ("whole", "parts")]
    whole = self_supervised.begin(folders[0], "self_supervised", device="cpu")
    self_supervised.self_train(whole, pool=pool, quiet=True)
    first = self_supervised.begin(
        folders[1], "self_supervised", device="cpu", overrides=["self_supervised.iterations=2"]
    )
    self_supervised.self_train(first, pool=pool, quiet=True)
    second = Run.resume(
        folders[1],
        "self_supervised",
        device="cpu",
        overrides=[f"self_supervised.iterations={config.self_supervised.iterations}"],
    )
    self_supervised.self_train(second, pool=pool, quiet=True)
    assert_same(state_of(whole), state_of(second))
    rows = [run.replay.rl.online_state()[0]["online"] for run in (whole, second)]
    assert torch.equal(*rows)
    assert whole.counters == second.counters


def test_seeds_repeat_and_differ(config, dataset, tmp_path):
    short = override_config(config, ["offline.steps=10", "offline.log_every=10"])
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run = Run.create(tmp_path / name, short, dataset, algorithm="smac", seed=seed, device="cpu")
        train_offline(run, quiet=True)
        states.append(state_of(run))
    assert_same(states[0], states[1])
    assert not torch.equal(
        states[0]["agent.policy.body.0.weight"], states[2]["agent.policy.body.0.weight"]
    )


def test_ctrl_c_saves_and_the_run_goes_on(config, domain, dataset, tmp_path, smac):
    import point_mass

    source = os.path.dirname(point_mass.__file__)
    root = os.path.dirname(os.path.dirname(source))
    out = tmp_path / "run"
    arguments = ["train", dataset.path, "--domain", domain, "--scale", "paper", "--out", out]
    endless = ["--set", "offline.steps=1000000", "--set", "offline.log_every=10"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from smac_ros.cli import main; main()"]
        + [str(a) for a in arguments + endless],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, source])},
        stderr=subprocess.PIPE,
        text=True,
    )
    events = out / "offline" / "tensorboard"
    while not events.exists() and process.poll() is None:  # the loop has logged: it is running
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    step = Run.resume(out, "offline", device="cpu").step
    assert 0 < step < 1000000
    finish = ["--resume", "--set", f"offline.steps={step + 20}"]
    smac(*arguments, *finish)
    assert Run.resume(out, "offline", device="cpu").step == step + 20


# oneDNN's ReLU turns a hidden NaN into 0: then the weights themselves tell
@pytest.mark.parametrize("large", [0, math.inf], ids=["one operation", "chain"])
def test_nan_in_training_stops_it_and_keeps_the_last_checkpoint(
    config, dataset, tmp_path, monkeypatch, large
):
    monkeypatch.setattr(perceptron, "LARGE", large)
    short = override_config(
        config, ["offline.steps=40", "offline.log_every=10", "offline.checkpoint_every=10"]
    )
    run = Run.create(tmp_path / "run", short, dataset, algorithm="smac", seed=0, device="cpu")
    update = run.learner.update

    def broken(*arguments):
        if run.step == 25:
            run.agent.policy.body[0].bias.data.fill_(float("nan"))
        return update(*arguments)

    run.learner.update = broken
    told = r"offline, step 30: .*(actor_loss is nan|policy.body.0.bias is not finite)"
    with pytest.raises(FloatingPointError, match=told):
        train_offline(run, quiet=True)
    kept = Run.resume(tmp_path / "run", "offline", device="cpu")
    assert kept.step == 20
    assert all(torch.isfinite(value).all() for value in state_of(kept).values())


def test_a_run_is_refused_where_it_does_not_fit(trained, config, dataset, tmp_path):
    with pytest.raises(InputError, match=r"run.json: found an earlier run"):
        Run.create(trained, config, dataset, algorithm="smac", seed=0, device="cpu")
    foreign = dataset.__class__(**{**vars(dataset), "domain": "other"})
    with pytest.raises(InputError, match="domain: found other; expected point_mass"):
        Run.create(tmp_path / "x", config, foreign, algorithm="smac", seed=0, device="cpu")
    assert not (tmp_path / "x").exists()
    with pytest.raises(CheckpointError, match="networks: found changes with --set"):
        Run.resume(trained, "offline", device="cpu", overrides=["networks.policy_hidden=[64, 64]"])
    with pytest.raises(CheckpointError, match="a phase of: offline"):
        load_agent(trained, "control")
    with pytest.raises(CheckpointError):
        load_agent(tmp_path / "nowhere", "offline")


def test_a_checkpoint_of_other_sizes_is_refused(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    path = next(folder.glob("offline/checkpoints/latest"))
    place = path.parent / path.read_text().strip()
    tensors, state = checkpoint.load(place)
    state["config"]["networks"]["policy_hidden"] = [64, 64]
    checkpoint.save(place, tensors, state)
    with pytest.raises(CheckpointError, match=r"agent.policy.* expected \(64"):
        load_agent(folder, "offline")
    with pytest.raises(CheckpointError, match=r"agent.policy.* expected \(64"):
        Run.resume(folder, "offline", device="cpu")


def test_data_of_other_columns_are_refused(config, dataset, tmp_path):
    for field, value in (
        ("observation_names", ["y", "x"]),
        ("action_units", ["m", "m"]),
        ("rate", 11.0),
        ("train", []),
    ):
        foreign = dataset.__class__(**{**vars(dataset), field: value})
        with pytest.raises(InputError, match=field):
            Run.create(tmp_path / "x", config, foreign, algorithm="smac", seed=0, device="cpu")


def test_overrides_take_effect_on_resume_or_are_refused(trained, config, pool, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    run = Run.resume(folder, "offline", device="cpu", overrides=["updates.learning_rate=1e-5"])
    rates = {g["lr"] for o in run.learner.optimizers.values() for g in o.param_groups}
    assert rates == {1e-5}
    run = self_supervised.begin(
        folder, "self_supervised", device="cpu", overrides=["self_supervised.iterations=1"]
    )
    self_supervised.self_train(run, pool=pool, quiet=True)
    with pytest.raises(CheckpointError, match="online_capacity: found 1000; expected 500"):
        Run.resume(
            folder,
            "self_supervised",
            device="cpu",
            overrides=["self_supervised.online_capacity=500"],
        )


def test_a_phase_killed_before_its_first_step_can_be_resumed(trained, pool, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    short = ["self_supervised.iterations=1"]
    self_supervised.begin(folder, "control", device="cpu", overrides=short)
    run = Run.resume(folder, "control", device="cpu")
    assert run.step == 0
    assert self_supervised.self_train(run, pool=pool, quiet=True)


def test_stopping_within_an_iteration_resumes_bit_for_bit(trained, config, pool, tmp_path):
    folders = [shutil.copytree(trained, tmp_path / name) for name in ("whole", "parts")]
    short = ["self_supervised.iterations=2"]
    whole = self_supervised.begin(folders[0], "self_supervised", device="cpu", overrides=short)
    self_supervised.self_train(whole, pool=pool, quiet=True)
    part = self_supervised.begin(folders[1], "self_supervised", device="cpu", overrides=short)
    for step, stopped in ((0, 20), (1, 200)):
        update = part.learner.update

        def interrupting(*arguments, run=part, update=update, stopped=stopped):
            if run.counters["updates"] == config.offline.steps + stopped:
                os.kill(os.getpid(), signal.SIGINT)  # the user's Ctrl-C
            return update(*arguments)

        part.learner.update = interrupting
        assert not self_supervised.self_train(part, pool=pool, quiet=True)
        part = Run.resume(folders[1], "self_supervised", device="cpu")
        assert part.step == step and part.iteration_updates > 0
    assert self_supervised.self_train(part, pool=pool, quiet=True)
    assert_same(state_of(whole), state_of(part))
    # also the evaluation before the first iteration, and the practice before each stop
    for name in ("test/return", "exploration_label_error", "adapted_labelled_reward"):
        logged = [load_metrics(run.folder / "metrics.csv", name) for run in (whole, part)]
        np.testing.assert_array_equal(*logged)
        assert list(logged[0][0]) == ([0, 2] if name == "test/return" else [1, 2])


def test_another_dataset_is_refused(trained, dataset, tmp_path):
    other = tmp_path / "other.h5"
    with DatasetWriter(
        other,
        domain="point_mass",
        rate=None,
        observation_names=["x", "y"],
        observation_units=["m", "m"],
        action_names=["dx", "dy"],
        action_units=["0.1 m", "0.1 m"],
        horizon=20,
        seed=1,
        command="test",
    ) as writer:
        task = dataset.train[0]
        writer.add_task("train", TaskData(**{**vars(task), "rewards": task.rewards + 1}))
    Dataset.load(other)
    with pytest.raises(CheckpointError, match="fingerprint"):
        Run.resume(trained, "offline", device="cpu", dataset_path=other)


def test_a_copy_with_a_part_of_the_data(trained, dataset, pool, tmp_path):
    part = tmp_path / "data" / "part.h5"
    write_subset(dataset.path, part, 3)
    copy_offline(trained, tmp_path / "copy", part)
    run = Run.resume(tmp_path / "copy", "offline", device="cpu")
    assert run.dataset.path.resolve() == part and len(run.dataset.train[0]) == 3 * 20
    whole = Run.resume(trained, "offline", device="cpu")
    assert_same(state_of(run), state_of(whole))
    assert identity(tmp_path / "copy") != identity(trained)
    copied = json.loads((tmp_path / "copy" / "run.json").read_text())
    assert copied["copy_of"] == identity(trained)
    assert copied["dataset"] == {
        "path": "../data/part.h5",
        "fingerprint": dataset.fingerprint,
    }
    run = self_supervised.begin(tmp_path / "copy", "self_supervised", device="cpu", overrides=SHORT)
    assert self_supervised.self_train(run, pool=pool, quiet=True)
    Run.resume(tmp_path / "copy", "self_supervised", device="cpu")
    with pytest.raises(InputError, match=r"run.json: found an earlier run"):
        copy_offline(trained, tmp_path / "copy")


def test_the_shipped_run_can_be_started_from():
    folder = pretrained_directory() / "sawyer"
    text = "".join(path.read_text() for path in folder.rglob("*.json"))
    assert "/home" not in text and "/tmp" not in text, "no path of the machine that made it"
    run = Run.resume(folder, "offline", device="cpu")
    assert run.step == run.config.offline.steps and run.config.scale == "cpu"
    assert run.dataset.path == folder / "history.h5" and len(run.dataset.train) == 50
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 5_000_000


def test_labels_do_not_depend_on_others(trained, config, dataset):
    agent, _, _ = load_agent(trained, "offline")
    one = Trajectories.one(*np.random.default_rng(0).normal(size=(3, 20, 2)).astype(np.float32))
    labeler = Labeler(agent, dataset, config, task="uniform", seed=1)
    first = labeler.label(one, 3, seed=-5)
    assert not torch.equal(first, labeler.label(one, 3, seed=6))
    assert torch.equal(first, labeler.label(one, 3, seed=-5))
    other = Labeler(agent, dataset, config, task="same", seed=2)
    assert not torch.equal(first, other.label(one, 3, seed=-5))
    groups = [labeler.choose(4, group) for group in range(30)]
    assert groups == [labeler.choose(4, group) for group in range(30)] and len(set(groups)) > 5
    assert [other.choose(4, group) for group in range(3)] == [4, 4, 4]
    assert 0 <= other.choose(-1, 0) < 20, "an unknown scene: any history"
    with pytest.raises(InputError, match="found 20 tasks; expected task 20"):
        other.choose(20, 0)


def test_self_training_is_refused_before_the_offline_phase_is_done(config, dataset, tmp_path):
    short = override_config(config, ["offline.steps=5"])
    run = Run.create(tmp_path / "run", short, dataset, algorithm="smac", seed=0, device="cpu")
    train_offline(run, quiet=True)
    with pytest.raises(InputError, match="offline steps: found 5; expected 10"):
        self_supervised.begin(
            tmp_path / "run", "self_supervised", device="cpu", overrides=["offline.steps=10"]
        )
    cloning = Run.create(tmp_path / "bc", short, dataset, algorithm="meta_bc", seed=0, device="cpu")
    train_offline(cloning, quiet=True)
    with pytest.raises(InputError, match="algorithm: found meta_bc; expected smac"):
        self_supervised.begin(tmp_path / "bc", "self_supervised", device="cpu")
