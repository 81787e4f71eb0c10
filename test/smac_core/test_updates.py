"""Ways of taking gradient steps: all learn the same."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch

from smac_core.config import override_config
from smac_core.devices import suitable_threads, use_threads
from smac_core.errors import InputError
from smac_core.evaluation import meta_test
from smac_core.figures import load_metrics
from smac_core.tasks import load_tasks
from smac_core.training import self_supervised
from smac_core.training import updates as updates_module
from smac_core.training.offline import RunningMeans, train_offline
from smac_core.training.run import Run
from smac_core.training.updates import Updates

STEPS, WINDOW = 1000, 100
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def make(config, dataset, folder, *changes, seed=0, device="cpu") -> Run:
    config = override_config(config, list(changes))
    return Run.create(folder, config, dataset, algorithm="smac", seed=seed, device=device)


def losses(run: Run) -> np.ndarray:
    """Mean critic and decoder losses of each window of the first steps, [windows, 2]."""
    updates, means, found = Updates([(run.learner, run.replay)], "offline"), RunningMeans(), []
    done = 0
    while done < STEPS:
        count, info = updates.take(WINDOW - done % WINDOW)
        means.add({name: info[name] for name in ("critic_loss", "reward_error")}, count)
        done += count
        if done % WINDOW == 0:
            found.append(list(means.take()[0].values()))
    return np.array(found)


def score(run: Run, pool) -> float:
    result = meta_test(
        pool,
        run.agent,
        load_tasks(run.config.tasks.test),
        run.config.evaluation,
        horizon=20,
        context="online",
        generator=torch.Generator(run.agent.device).manual_seed(0),
    )
    return float(result.returns.mean())


@pytest.fixture(scope="module")
def plain(config, dataset, tmp_path_factory):
    """Losses of the plain way, and the run that has learned."""
    run = make(config, dataset, tmp_path_factory.mktemp("plain") / "run")
    return losses(run), run


def test_bfloat16_learns_the_same(plain, config, dataset, pool, tmp_path):
    expected, learned = plain
    run = make(config, dataset, tmp_path / "run", "execution.precision=bfloat16")
    found = losses(run)
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=0.25, atol=0.02)
    assert score(run, pool) == pytest.approx(score(learned, pool), abs=1.5)
    assert all(p.dtype == torch.float32 for p in run.learner.critic.parameters())


@pytest.mark.slow  # compiling takes half a minute
def test_compiled_losses_are_the_plain_ones(plain, config, dataset, pool, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    expected, _ = plain
    run = make(config, dataset, tmp_path / "run", "execution.compile=true")
    np.testing.assert_allclose(losses(run), expected, rtol=0.05, atol=0.005)


@pytest.mark.parametrize("phase", ["offline", "self_supervised"])
def test_seeds_at_once_are_seeds_alone(config, dataset, trained, tmp_path, phase):
    """The same numbers, up to the order of sums, and checkpoints of each as if it were alone."""
    if phase == "offline":
        made = [
            [make(config, dataset, tmp_path / f"{kind}{seed}", seed=seed) for seed in range(3)]
            for kind in ("alone", "together")
        ]
    else:
        made = [
            [
                self_supervised.begin(
                    shutil.copytree(trained, tmp_path / f"{kind}{seed}"), phase, device="cpu"
                )
                for seed in range(2)
            ]
            for kind in ("alone", "together")
        ]
        for runs in made:
            for seed, run in enumerate(runs):
                run.generator.manual_seed(seed)
    alone, together = made
    stacked = Updates([(run.learner, run.replay) for run in together], phase)
    single = [Updates([(run.learner, run.replay)], phase) for run in alone]
    for _ in range(30):
        _, info = stacked.take(1)
        infos = [updates.take(1)[1] for updates in single]
    for name, values in info.items():
        torch.testing.assert_close(
            values, torch.stack([i[name] for i in infos]), rtol=1e-3, atol=1e-4, msg=name
        )
    for one, other in zip(alone, together, strict=True):
        again = Run.resume(other.save().parents[2], phase, device="cpu")
        for name, optimizer in one.learner.optimizers.items():
            states = optimizer.state_dict()["state"]
            kept = again.learner.optimizers[name].state_dict()["state"]
            assert states.keys() == kept.keys()
            for index, state in states.items():
                assert state["step"] == kept[index]["step"]
                torch.testing.assert_close(
                    state["exp_avg"], kept[index]["exp_avg"], rtol=1e-2, atol=1e-4
                )
        for name, module in one.learner.networks.items():
            found = again.learner.networks[name].state_dict()
            for key, value in module.state_dict().items():
                torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-3, msg=key)


def test_seeds_at_once_go_on_where_they_were(config, dataset, tmp_path):
    short = ["offline.steps=40", "offline.checkpoint_every=20", "offline.log_every=10"]
    whole = [make(config, dataset, tmp_path / f"whole{s}", *short, seed=s) for s in (0, 1)]
    assert train_offline(*whole, quiet=True)
    less = [*short, "offline.steps=20"]
    parts = [make(config, dataset, tmp_path / f"part{s}", *less, seed=s) for s in (0, 1)]
    assert train_offline(*parts, quiet=True)
    parts = [
        Run.resume(run.directory, "offline", device="cpu", overrides=["offline.steps=40"])
        for run in parts
    ]
    assert train_offline(*parts, quiet=True)
    for one, other in zip(whole, parts, strict=True):
        for a, b in zip(one.agent.parameters(), other.agent.parameters(), strict=True):
            assert torch.equal(a, b)
        steps, values = load_metrics(other.folder / "metrics.csv", "critic_loss")
        assert list(steps) == [10, 20, 30, 40] and np.isfinite(values).all()
    assert not torch.equal(*(next(run.agent.policy.parameters()) for run in whole))


def test_seeds_at_once_must_be_alike_and_equally_far(config, dataset, tmp_path):
    runs = [
        make(config, dataset, tmp_path / "a"),
        make(config, dataset, tmp_path / "b", "updates.discount=0.8"),
    ]
    with pytest.raises(ValueError, match="several configurations"):
        Updates([(run.learner, run.replay) for run in runs], "offline")
    runs[1].step = 5
    with pytest.raises(InputError, match=r"b: 5; expected equally many"):
        train_offline(*runs, quiet=True)


def test_practice_ahead_resumes_bit_for_bit(trained, config, pool, tmp_path):
    short = ["self_supervised.iterations=3", "self_supervised.practise_ahead=true"]
    runs = [
        self_supervised.begin(
            shutil.copytree(trained, tmp_path / name),
            "self_supervised",
            device="cpu",
            overrides=short,
        )
        for name in ("whole", "parts")
    ]
    assert self_supervised.self_train(runs[0], pool=pool, quiet=True)
    first = runs[1]
    update, stop_at = first.learner.update, config.offline.steps + 100

    def interrupting(*arguments):
        if first.counters["updates"] == stop_at:
            os.kill(os.getpid(), signal.SIGINT)  # the user's Ctrl-C
        return update(*arguments)

    first.learner.update = interrupting
    assert not self_supervised.self_train(first, pool=pool, quiet=True)
    assert first.practising is not None  # the next iteration's practice was under way
    second = Run.resume(first.directory, "self_supervised", device="cpu")
    assert self_supervised.self_train(second, pool=pool, quiet=True)
    assert second.practising is None
    for one, other in zip(
        runs[0].learner.critic.parameters(), second.learner.critic.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert second.counters == runs[0].counters
    rows = [run.replay.rl.online_state()[0]["online"] for run in (runs[0], second)]
    assert torch.equal(*rows)


def test_practice_ahead_uses_the_policy_before_the_updates(trained, pool, tmp_path, monkeypatch):
    run = self_supervised.begin(
        shutil.copytree(trained, tmp_path / "run"),
        "self_supervised",
        device="cpu",
        overrides=["self_supervised.iterations=2", "self_supervised.practise_ahead=true"],
    )
    policies, plain = [], self_supervised.PracticeAhead._collect

    def spy(self, run, iteration):
        policies.append(next(run.practising.policy.parameters()).clone())
        return plain(self, run, iteration)

    monkeypatch.setattr(self_supervised.PracticeAhead, "_collect", spy)
    before = next(run.agent.policy.parameters()).clone()
    assert self_supervised.self_train(run, pool=pool, quiet=True)
    assert len(policies) == 2 and all(torch.equal(policy, before) for policy in policies)
    assert not torch.equal(next(run.agent.policy.parameters()), before)


@pytest.mark.parametrize("ahead", [False, True])
def test_runs_practise_and_learn_at_once_as_alone(trained, pool, tmp_path, ahead):
    short = ["self_supervised.iterations=1", f"self_supervised.practise_ahead={ahead}"]

    def begin(name, seed):
        folder = shutil.copytree(trained, tmp_path / name)
        run = self_supervised.begin(folder, "self_supervised", device="cpu", overrides=short)
        run.seed = seed
        run.generator.manual_seed(seed)
        return run

    alone, together = ([begin(f"{kind}{seed}", seed) for seed in (1, 2)] for kind in "at")
    for run in alone:
        assert self_supervised.self_train(run, pool=pool, quiet=True)
    assert self_supervised.self_train(*together, pool=pool, quiet=True)
    for one, other in zip(alone, together, strict=True):
        assert one.counters == other.counters
        rows = [run.replay.rl.online_state()[0]["online"] for run in (one, other)]
        torch.testing.assert_close(*rows)
        for a, b in zip(one.agent.parameters(), other.agent.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)
    first, second = (run.replay.rl.online_state()[0]["online"] for run in together)
    assert not torch.equal(first, second)


def test_when_graphs_are_captured_and_replayed(trained, monkeypatch):
    """Without a GPU: a stand-in for the graph takes the steps that it should replay."""
    run = Run.resume(trained, "offline", device="cpu")
    captures, steps = [], []
    update = run.learner.update
    monkeypatch.setattr(run.learner, "update", lambda *a: steps.append(1) or update(*a))

    class Graph:
        def __init__(self, step, count, generators, storage):
            self.step, self.count, self.storage = step, count, storage
            captures.append(generators)

        def replay(self):
            return [self.step() for _ in range(self.count)][-1]

    monkeypatch.setattr(updates_module, "_Graph", Graph)
    monkeypatch.setattr(Updates, "_beside", lambda self: self._step())
    updates = Updates([(run.learner, run.replay)], "self_supervised")
    updates._at_once = 4
    assert [updates.take(100)[0] for _ in range(5)] == [1, 1, 1, 4, 4]  # three to warm up
    assert updates.take(3)[0] == 1  # fewer than a graph has
    assert len(steps) == 12 and captures == [[run.learner.generator]]
    run.replay.append(0, run.replay.rl.offline[:5], exploration=True)  # the first: storage moves
    assert updates.take(4)[0] == 4 and len(captures) == 2
    run.replay.append(0, run.replay.rl.offline[:5], exploration=True)  # there is room for these
    assert updates.take(4)[0] == 4 and len(captures) == 2


def test_an_optimiser_goes_on_as_its_device_wants_it(config, dataset, tmp_path, monkeypatch):
    make(config, dataset, tmp_path / "run")
    plain = torch.optim.Adam.__init__

    def capturable(self, *arguments, **options):
        plain(self, *arguments, **options)
        self.param_groups[0]["capturable"] = True  # as it is made on a GPU

    monkeypatch.setattr(torch.optim.Adam, "__init__", capturable)
    run = Run.resume(tmp_path / "run", "offline", device="cpu")
    assert all(o.param_groups[0]["capturable"] for o in run.learner.optimizers.values())


def test_threads_suit_the_sizes(config, monkeypatch):
    wide = ["networks.critic_hidden=[128, 128]"]
    assert suitable_threads(config, 8) == 1
    assert suitable_threads(override_config(config, wide), 8) == 8
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", str(before))
    use_threads(0, override_config(config, wide))
    assert torch.get_num_threads() == before


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_captured_updates_learn_the_same(config, dataset, pool, tmp_path, precision):
    eager, captured = (
        make(
            config,
            dataset,
            tmp_path / f"graph{graph}",
            f"execution.graph={graph}",
            f"execution.precision={precision}",
            device="cuda",
        )
        for graph in (0, 8)
    )
    expected, found = losses(eager), losses(captured)
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.01)
    assert score(captured, pool) == pytest.approx(score(eager, pool), abs=1.5)


@gpu
@pytest.mark.gpu
def test_a_captured_phase_practises_and_resumes(config, dataset, pool, tmp_path):
    """The replay's storage moves as practice comes in: graphs are captured anew."""
    run = make(config, dataset, tmp_path / "run", "offline.steps=200", device="cuda")
    assert train_offline(run, quiet=True)
    run = self_supervised.begin(tmp_path / "run", "self_supervised", device="cuda")
    assert self_supervised.self_train(run, pool=pool, quiet=True)
    again = Run.resume(tmp_path / "run", "self_supervised", device="cuda")
    for one, other in zip(run.agent.parameters(), again.agent.parameters(), strict=True):
        assert torch.equal(one, other)


@gpu
@pytest.mark.gpu
def test_captured_seeds_are_seeds_alone(config, dataset, tmp_path):
    alone = [
        make(config, dataset, tmp_path / f"alone{s}", seed=s, device="cuda") for s in range(3)
    ]
    together = [
        make(config, dataset, tmp_path / f"together{s}", seed=s, device="cuda") for s in range(3)
    ]
    stacked = Updates([(run.learner, run.replay) for run in together], "offline")
    single = [Updates([(run.learner, run.replay)], "offline") for run in alone]
    for updates in (stacked, *single):
        done = 0
        while done < 35:  # three to warm up, then graphs of eight
            done += updates.take(35 - done)[0]
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one.agent.parameters(), other.agent.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)
