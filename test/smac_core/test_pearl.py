"""PEARL: its losses by hand, a small problem learned for real, and the data that its run leaves."""

import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from smac_core.algorithms.pearl import PEARL
from smac_core.commands.collect import collect_dataset, pearl_folder
from smac_core.commands.evaluate import evaluate_run
from smac_core.config import Config, ConfigError, load_config, override_config, parse_config
from smac_core.data.dataset import Dataset, DatasetError
from smac_core.data.recording import Recording
from smac_core.data.replay import Batch, Layout
from smac_core.errors import InputError
from smac_core.evaluation import meta_test
from smac_core.figures import load_metrics
from smac_core.folder_lock import locked
from smac_core.losses import (
    policy_regularization,
    posterior_divergence,
    soft_critic_loss,
    soft_value_loss,
)
from smac_core.networks import Gaussian, PolicyDistribution, ValueFunction
from smac_core.tasks import held_out_tasks, training_tasks
from smac_core.training import meta_rl
from smac_core.training.meta_rl import meta_train, open_run, opened_run, practise
from smac_core.training.run import Run, load_agent
from smac_core.training.updates import Updates

ONLINE = {
    "iterations": 7,
    "initial_transitions": 40,
    "tasks_per_iteration": 10,
    "exploration_transitions": 40,
    "adapted_transitions": 40,
    "gradient_steps": 400,
    "meta_batch": 10,
    "rl_batch": 32,
    "context_batch": 32,
    "kl_weight": 0.01,
    "capacity": 1000,
    "evaluate_every": 3,
    "checkpoint_every": 4,
}
SHORT = ["online.iterations=3", "online.gradient_steps=5", "collection.iterations=2"]


@pytest.fixture(scope="module")
def pearl(config) -> Config:
    """The point mass, whose data PEARL makes."""
    tree = config.model_dump(mode="json") | {"online": ONLINE}
    tree["collection"] = {
        "source": "pearl",
        "iterations": 6,
        "rl_transitions": 30,
        "context_transitions": 25,
        "test_trajectories": 2,
    }
    # SAC's entropy bonus needs rewards of a size beside it
    tree["updates"] |= {"reward_scale": 10.0}
    return parse_config(tree, "test")


@pytest.fixture
def short(pearl) -> Config:
    return override_config(pearl, SHORT)


class Critic(nn.Module):
    """Q_1 = a + z, Q_2 = a + z + 1 (first action, first latent)."""

    def forward(self, observations, actions, z):
        first = actions[..., 0] + z[..., :1]
        return torch.stack([first, first + 1])


class Value(nn.Module):
    """V = 10 + s."""

    def forward(self, observations, z):
        return 10 + observations[..., 0]


def test_soft_critic_loss_by_hand():
    column = torch.tensor([[[0.5], [1.0]]])
    batch = Batch(
        torch.zeros_like(column),
        column,
        torch.tensor([[1.0, 2.0]]),
        torch.full_like(column, 4.0),
        torch.tensor([[0.0, 1.0]]),
    )
    z = torch.tensor([[2.0]], requires_grad=True)
    loss, info = soft_critic_loss(Critic(), Value(), batch, z, discount=0.9, reward_scale=5.0)
    # targets 5 * 1 + 0.9 * (10 + 4) = 17.6 and 5 * 2 = 10, terminal; Q_1 2.5 and 3, Q_2 one more
    first = ((17.6 - 2.5) ** 2 + (10 - 3) ** 2) / 2
    second = ((17.6 - 3.5) ** 2 + (10 - 4) ** 2) / 2
    assert loss.item() == pytest.approx(first + second)
    assert info["q_target"].item() == pytest.approx(13.8)
    assert info["q"].item() == pytest.approx((2.5 + 3 + 3.5 + 4) / 4)
    loss.backward()  # through both Qs into z, and so into the encoder
    assert z.grad.item() == pytest.approx(-2 * (15.1 + 7 + 14.1 + 6) / 2)


def test_soft_value_loss_by_hand():
    value = torch.tensor([[1.0, 2.0]], requires_grad=True)
    q = torch.tensor([[3.0, 1.0]], requires_grad=True)
    log_density = torch.tensor([[-1.0, 0.5]], requires_grad=True)
    loss, _ = soft_value_loss(value, q, log_density, entropy_coefficient=2.0)
    assert loss.item() == pytest.approx(((1 - 5) ** 2 + (2 - 0) ** 2) / 2)
    loss.backward()
    assert value.grad.tolist() == [[-4.0, 2.0]]
    assert q.grad is None and log_density.grad is None


def test_policy_regularization_and_divergence_by_hand():
    distribution = PolicyDistribution(torch.tensor([[1.0, 3.0]]), torch.tensor([[-2.0, 0.0]]))
    loss, _ = policy_regularization(distribution, weight=0.1)
    assert loss.item() == pytest.approx(0.1 * ((1 + 9) / 2 + 4 / 2))
    # two tasks: mean 1, variance e: (e + 1 - 1 - 1) / 2; and the prior: 0. Summed, not averaged
    posterior = Gaussian(torch.tensor([[1.0], [0.0]]), torch.tensor([[math.e], [1.0]]))
    loss, info = posterior_divergence(posterior, kl_weight=0.5)
    assert loss.item() == pytest.approx(0.5 * (math.e - 1) / 2)
    assert info["kl"].item() == pytest.approx((math.e - 1) / 4)


def test_value_function_is_given_the_task():
    value = ValueFunction(3, 2, [8])
    observations, z = torch.randn(4, 5, 3), torch.randn(4, 2)
    found = value(observations, z)
    assert found.shape == (4, 5)
    assert not torch.allclose(found, value(observations, -z))


def test_the_encoder_learns_from_the_critic_alone(short, pool, tmp_path):
    """Of the loss's terms only critic and KL may reach z; no term reaches the decoder."""
    run = open_run(tmp_path / "run", short, seed=0, device="cpu")
    assert meta_train(run, pool=pool, until=1, quiet=True)
    learner, agent = run.learner, run.agent
    assert isinstance(learner, PEARL)
    sample = learner.online_draw(run.replay, run.generator)
    posterior = agent.encoder(sample.context)
    z = posterior.at(sample.noise.latent)
    critic, _ = soft_critic_loss(
        learner.critic,
        learner.target_value,
        sample.batch,
        z,
        discount=short.updates.discount,
        reward_scale=short.updates.reward_scale,
    )
    kl, _ = posterior_divergence(posterior, kl_weight=short.online.kl_weight)
    parameters = list(agent.encoder.parameters())
    expected = torch.autograd.grad(critic + kl, parameters)
    loss, _ = learner.online_loss(sample)
    found = torch.autograd.grad(loss, parameters, retain_graph=True)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    decoder = list(agent.decoder.parameters())
    assert torch.autograd.grad(loss, decoder, allow_unused=True) == (None,) * len(decoder)
    assert not any(p.requires_grad for p in learner.target_value.parameters())


def test_the_target_value_follows(short, pool, tmp_path):
    run = open_run(tmp_path / "run", short, seed=0, device="cpu")
    assert meta_train(run, pool=pool, until=1, quiet=True)
    learner, rate = run.learner, short.updates.target_rate
    before = [p.clone() for p in learner.target_value.parameters()]
    learner.update(learner.online_loss, learner.online_draw(run.replay, run.generator))
    for old, new, value in zip(
        before, learner.target_value.parameters(), learner.value.parameters(), strict=True
    ):
        torch.testing.assert_close(new, (1 - rate) * old + rate * value)


@pytest.mark.slow
def test_pearl_learns_to_find_held_out_goals(pearl, pool, tmp_path):
    run = open_run(tmp_path / "run", pearl, seed=0, device="cpu")
    assert meta_train(run, pool=pool, quiet=True)
    steps, returns = load_metrics(run.folder / "metrics.csv", "test/return")
    assert list(steps) == [0, 3, 6, 7]
    assert returns[0] < -16 and returns[-1] > -12
    agent, _, state = load_agent(tmp_path / "run", "online")
    assert state["step"] == 7 and state["dataset"] is None
    result = meta_test(
        pool,
        agent,
        held_out_tasks(pearl),
        pearl.evaluation,
        horizon=20,
        context="online",
        generator=torch.Generator().manual_seed(0),
    )
    assert result.returns.mean() > result.exploration_returns.mean() + 2, "it adapts"


def trajectory(start: int, length: int, layout: Layout, terminal: bool = False) -> torch.Tensor:
    """Rows whose reward counts the transitions; the last one is terminal, if asked for."""
    rows = torch.zeros(length, layout.width)
    rows[:, layout.context_width - 1] = torch.arange(start, start + length)
    rows[-1, -1] = float(terminal)
    return rows


@pytest.mark.parametrize(
    ("part", "rewards", "ends", "cut"),
    [
        # the third trajectory is cut by the part's end
        ("first", range(12), [4, 9, 11], (False, True)),
        # rewards 8 and 9 end one that is cut at its start
        ("last", range(8, 20), [1, 6, 11], (True, False)),
    ],
)
def test_recording_keeps_the_parts_of_appendix_c2(short, part, rewards, ends, cut):
    collection = short.collection.model_copy(
        update={"rl_part": part, "rl_transitions": 12, "context_transitions": 7}
    )
    layout = Layout(2, 1)
    recording = Recording(collection, layout, 2)
    for start, exploration in ((0, True), (5, True), (10, False), (15, False)):
        added = trajectory(start, 5, layout, terminal=start == 5)
        recording.add(1, added, exploration=exploration)
    recording.add(0, trajectory(50, 12, layout), exploration=True)
    data = recording.data("train", {"goal": 1}, 1)
    assert data.rewards.tolist() == list(rewards)
    terminal = list(rewards).index(9)
    assert np.flatnonzero(data.terminals).tolist() == [terminal]
    assert np.flatnonzero(data.timeouts).tolist() == [end for end in ends if end != terminal]
    assert data.context.rewards.tolist() == list(range(3, 10)), "exploration alone"
    assert data.context.trajectories == [slice(0, 2), slice(2, 7)]
    assert (data.cut, data.context.cut) == (cut, (True, False))
    assert recording.data("train", {}, 0).cut == (False, False), "12 are kept, and it has 12"
    again = Recording(collection, layout, 2)
    again.load_state(*recording.state())
    for number in range(2):
        mine, theirs = (r.data("train", {}, number) for r in (again, recording))
        np.testing.assert_array_equal(mine.observations, theirs.observations)
        np.testing.assert_array_equal(mine.context.rewards, theirs.context.rewards)
        assert mine.cut == theirs.cut
    recording.add(0, trajectory(62, 12, layout), exploration=False)
    assert recording.data("train", {}, 0).cut == (False, False), "the cut is between trajectories"


@pytest.mark.parametrize("part", ["first", "last"])
def test_collected_data_are_what_the_run_has_seen(short, pool, tmp_path, monkeypatch, part):
    config = override_config(short, [f"collection.rl_part={part}"])
    seen = {"rl": [[] for _ in range(20)], "context": [[] for _ in range(20)]}
    store = meta_rl._store

    def spy(run, task, trajectories, *, exploration):
        seen["rl"][task] += trajectories
        seen["context"][task] += trajectories if exploration else []
        store(run, task, trajectories, exploration=exploration)

    monkeypatch.setattr(meta_rl, "_store", spy)
    out = tmp_path / "data.h5"
    assert "training trajectories" in collect_dataset(config, out, workers=0, quiet=True)
    dataset = Dataset.load(out)
    assert [t.task for t in dataset.train] == training_tasks(config)
    assert [t.task for t in dataset.test] == held_out_tasks(config)
    rl, context = (slice(30), slice(-30, None))[part == "last"], slice(-25, None)
    reward = 4  # of (x, y, dx, dy, reward, x', y', terminal)
    for number, task in enumerate(dataset.train):
        for data, rows, kept in ((task, seen["rl"], rl), (task.context, seen["context"], context)):
            expected = torch.cat(rows[number])[kept].numpy()
            np.testing.assert_array_equal(data.observations, expected[:, :2])
            np.testing.assert_array_equal(data.actions, expected[:, 2:4])
            np.testing.assert_array_equal(data.rewards, expected[:, reward])
            np.testing.assert_array_equal(data.next_observations, expected[:, 5:7])
            goal = [math.cos(task.task["angle"]), math.sin(task.task["angle"])]
            distance = np.linalg.norm(data.next_observations - goal, axis=1)
            np.testing.assert_allclose(data.rewards, -distance, atol=1e-5)
    for task in dataset.test:  # two exploring trajectories and two adapted ones of 20 steps
        assert (len(task), len(task.context)) == (80, 40)
        np.testing.assert_array_equal(task.observations[:40], task.context.observations)
    before = dataset.fingerprint
    run = open_run(pearl_folder(out), config, seed=0, device="cpu")
    assert meta_train(run, pool=pool, quiet=True) and run.step == 3
    with pytest.raises(DatasetError, match="existing file"):
        collect_dataset(config, out, workers=0, quiet=True)
    collect_dataset(config, out, workers=0, overwrite=True, quiet=True)
    assert Dataset.load(out).fingerprint == before, "going on changes nothing in the data"


def test_one_buffer_for_both_where_no_context_is_kept(short, tmp_path):
    config = override_config(short, ["collection.context_transitions=0"])
    collect_dataset(config, tmp_path / "data.h5", workers=0, quiet=True)
    dataset = Dataset.load(tmp_path / "data.h5")
    assert all(task.context is None for task in [*dataset.train, *dataset.test])
    assert dataset.train[0].history is dataset.train[0]


def test_practice_clears_the_encoders_buffer(short, pool, tmp_path):
    run = open_run(tmp_path / "run", short, seed=0, device="cpu")
    assert meta_train(run, pool=pool, until=1, quiet=True)
    rl = list(run.replay.rl.online_written)
    scalars = practise(run, pool)
    practised = [n for n, count in enumerate(run.replay.rl.online_written) if count > rl[n]]
    assert len(practised) == 10
    for task in range(20):
        assert run.replay.context.online_written[task] == 40, "initial or this visit's, never both"
        if task in practised:
            assert run.replay.rl.online_written[task] == rl[task] + 80
    assert scalars.keys() == {"exploration_return", "adapted_return"}
    rows = run.replay.rl.online_state()[0]["online"]
    assert scalars["exploration_return"] < 0 and torch.isfinite(rows).all()


def interrupted_after(monkeypatch, updates: int) -> None:
    """Ctrl-C arrives in the gradient step of this number."""
    take, taken = Updates.take, []

    def counted(self, most):
        taken.append(None)
        if len(taken) == updates:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, most)

    monkeypatch.setattr(Updates, "take", counted)


def test_resume_is_exact_also_within_an_iteration(short, pool, tmp_path, monkeypatch):
    whole = open_run(tmp_path / "whole", short, seed=1, device="cpu")
    assert meta_train(whole, pool=pool, quiet=True)
    part = open_run(tmp_path / "part", short, seed=1, device="cpu")
    with monkeypatch.context() as patch:
        interrupted_after(patch, 7)
        assert not meta_train(part, pool=pool, quiet=True)
    part = open_run(tmp_path / "part", short, seed=1, device="cpu")
    assert (part.step, part.iteration_updates) == (1, 2)
    assert meta_train(part, pool=pool, quiet=True)
    for name, module in whole.learner.networks.items():
        mine = part.learner.networks[name].state_dict()
        for key, value in module.state_dict().items():
            assert torch.equal(value, mine[key]), f"{name}.{key}"
    first, second = (r.recording.state() for r in (whole, part))
    assert first[1] == second[1]
    assert all(torch.equal(rows, second[0][name]) for name, rows in first[0].items())
    for name in ("test/return", "transitions", "exploration_return"):
        logged = [load_metrics(r.folder / "metrics.csv", name) for r in (whole, part)]
        np.testing.assert_array_equal(*logged)


def test_stopped_while_preparing_nothing_is_kept(short, pool, tmp_path, monkeypatch):
    run = open_run(tmp_path / "run", short, seed=0, device="cpu")
    until, calls = meta_rl._until, []

    def interrupt(*arguments, **named):
        calls.append(None)
        os.kill(os.getpid(), signal.SIGINT)
        return until(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(meta_rl, "_until", interrupt)
        assert not meta_train(run, pool=pool, quiet=True)
    assert len(calls) == 1 and run.counters["transitions"] == 0
    again = open_run(tmp_path / "again", short, seed=0, device="cpu")
    for one in (run, again):
        assert meta_train(one, pool=pool, until=1, quiet=True)
    one, other = (r.agent.policy.state_dict() for r in (run, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_seeds_at_once_are_seeds_alone(short, pool, tmp_path):
    made = {
        kind: [open_run(tmp_path / f"{kind}{s}", short, seed=s, device="cpu") for s in (0, 1)]
        for kind in ("alone", "together")
    }
    for run in made["alone"]:
        assert meta_train(run, pool=pool, until=1, quiet=True)
    assert meta_train(*made["together"], pool=pool, until=1, quiet=True)
    for alone, together in zip(*made.values(), strict=True):
        again = Run.resume(together.directory, "online", device="cpu")
        for name, module in alone.learner.networks.items():
            found = again.learner.networks[name].state_dict()
            for key, value in module.state_dict().items():
                torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-3, msg=key)


def test_a_task_with_less_data_than_asked_for_is_told(short, tmp_path, capsys):
    few = ["online.tasks_per_iteration=1", "collection.rl_transitions=200"]
    assert collect_dataset(override_config(short, few), tmp_path / "x.h5", workers=0, quiet=True)
    told = capsys.readouterr().err.splitlines()
    counts = [len(task.rewards) for task in Dataset.load(tmp_path / "x.h5").train]
    assert sorted(counts)[:-2] == [40] * (len(counts) - 2)  # what all have before the first
    assert told == [
        f"warning: training task {number} has {count} of 200 rl transitions"
        for number, count in enumerate(counts)
        if count < 200
    ]


def test_other_settings_are_refused(short, config, tmp_path):
    folder = tmp_path / "run"
    open_run(folder, short, seed=0, device="cpu")
    longer = open_run(folder, override_config(short, ["online.iterations=9"]), seed=0, device="cpu")
    assert longer.config.online.iterations == 9
    for change in (
        "online.rl_batch=8",
        "updates.discount=0.5",
        "collection.rl_transitions=20",
        "evaluation.repeats=7",
    ):
        name, _, asked = change.partition("=")
        with pytest.raises(InputError, match=rf"run/run.json: {name}: found .*; expected {asked} "):
            open_run(folder, override_config(short, [change]), seed=0, device="cpu")
    with pytest.raises(InputError, match="run.json: seed: found 0; expected 1 .*or a new folder"):
        open_run(folder, short, seed=1, device="cpu")
    faster = override_config(short, ["execution.precision=bfloat16", "execution.graph=0"])
    assert open_run(folder, faster, seed=0, device="cpu").config.execution == faster.execution
    refused = pytest.raises(InputError, match="^point_mass: online: .*PEARL's schedule")
    with refused, opened_run(tmp_path / "none", config, seed=0, device="cpu"):
        pass
    assert not (tmp_path / "none").exists()
    foreign = config.model_copy(update={"domain": "sawyer"})
    with pytest.raises(InputError, match="config/domains/sawyer.yaml: online: found no such"):
        open_run(tmp_path / "none", foreign, seed=0, device="cpu")
    with locked(folder), pytest.raises(InputError, match=f"process {os.getpid()} at work there"):
        collect_dataset(short, tmp_path / "x.h5", run=folder, workers=0, quiet=True)
    with pytest.raises(InputError, match="scripted"):
        collect_dataset(config, tmp_path / "x.h5", run=folder, workers=0, quiet=True)
    with pytest.raises(InputError, match="--trajectories"):
        collect_dataset(short, tmp_path / "x.h5", trajectories=3, workers=0, quiet=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("collection.source=perl", "collection.source: unknown source 'perl'.*'pearl'"),
        ("collection.rl_prt=1", "collection.rl_prt: unknown key.*did you mean 'rl_part'"),
        ("collection.rl_part=middle", "collection.rl_part: .*found 'middle'"),
        ("collection.iterations=1000", "beyond online.iterations"),
        ("collection.rl_transitions=100", "collection.rl_transitions 100 holds no trajectory"),
        ("collection.rl_transitions=52001", "rl_transitions 52001 is more than the 52000 that"),
        ("collection.context_transitions=22001", "more than the 22000 that PEARL has of a task"),
        ("online=null", "expected PEARL's schedule"),
        ("online.iters=1", "did you mean 'iterations'"),
        ("online.capacity=10", "online.capacity 10 holds no trajectory"),
    ],
)
def test_bad_schedules_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        load_config("cheetah_velocity", "paper", [change])


def test_paper_scale_is_the_papers():
    config = load_config("cheetah_velocity", "paper")
    collection = config.collection
    assert (collection.iterations, collection.rl_part) == (50, "first")
    assert (collection.rl_transitions, collection.context_transitions) == (1200, 400)
    assert len(training_tasks(config)) == 100 and len(held_out_tasks(config)) == 30
    assert config.self_supervised.freeze_context_buffer
    updates = config.updates
    assert (updates.awac_temperature, updates.reward_scale) == (100, 5)
    assert config.self_supervised.lambda_pearl == 1 and config.environment.horizon == 200


def test_too_many_tasks_are_refused():
    with pytest.raises(InputError, match="tasks.train_count: found 101; expected at most 100"):
        training_tasks(load_config("cheetah_velocity", "cpu", ["tasks.train_count=101"]))


@pytest.mark.slow
def test_cheetah_from_collecting_to_evaluation(smac, smac_here, tmp_path):
    data, run, pearl = (tmp_path / name for name in ("data.h5", "run", "data_pearl"))
    common = ["--quiet", "--workers", "0", "--device", "cpu"]
    smac("collect", "cheetah_velocity", "--scale", "smoke", "--out", data, *common)
    smac_here("train", data, "--scale", "smoke", "--out", run, "--quiet", "--device", "cpu")
    smac_here("self-train", run, *common)
    done = smac_here("evaluate", run, "--context", "both", "--json", *common)
    results = json.loads(done.stdout)
    for context in ("online", "offline"):
        assert results[context]["tasks"] == 2 and results[context]["return"]["mean"] < 0
    smac("oracle", "cheetah_velocity", "--scale", "smoke", "--out", pearl, *common)
    results = evaluate_run(pearl, "online", workers=0, quiet=True)
    assert (results["algorithm"], results["step"]) == ("pearl", 3)
    with pytest.raises(InputError, match="PEARL has no data"):
        evaluate_run(pearl, "online", context="offline", workers=0, quiet=True)
