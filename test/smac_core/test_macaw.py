"""MACAW: its steps and losses against slow versions and by hand, and a small problem learned."""

import json
import math
import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from smac_core.agents.macaw import (
    MacawAgent,
    Transitions,
    WeightsActor,
    WeightTransform,
    advantage_weights,
    discounted_returns,
    inverse_softplus,
    log_density,
)
from smac_core.algorithms.macaw import MACAW, Sample, make_timeline
from smac_core.config import load_config, override_config
from smac_core.data.dataset import Dataset, TaskData
from smac_core.data.trajectories import Trajectories
from smac_core.errors import InputError
from smac_core.evaluation import meta_test
from smac_core.presets import configured
from smac_core.tasks import load_tasks
from smac_core.training.offline import train_offline
from smac_core.training.rollout import rollout
from smac_core.training.run import Run, load_agent
from smac_core.training.updates import Updates

TINY = [
    "macaw.hidden=[5,4]",
    "macaw.head_hidden=[3]",
    "macaw.inner_learning_rate=0.05",
    "macaw.head_coefficient=0.4",
    "macaw.meta_batch=2",
    "execution.graph=0",
]


@pytest.fixture(scope="module")
def macaw(config):
    """The configuration that a run of the point mass begins with."""
    return configured(config, "macaw")


@pytest.fixture(scope="module")
def learned(macaw, dataset, tmp_path_factory):
    """The folder of a MACAW run; copy it before you change it."""
    folder = tmp_path_factory.mktemp("runs") / "macaw"
    run = Run.create(folder, macaw, dataset, algorithm="macaw", seed=0, device="cpu")
    assert train_offline(run, quiet=True)
    return folder


def evaluated(folder, config, pool, context, dataset):
    agent, _, _ = load_agent(folder, "offline")
    return meta_test(
        pool,
        agent,
        load_tasks(config.tasks.test),
        config.evaluation,
        horizon=20,
        context=context,
        offline=dataset.test,
        generator=torch.Generator().manual_seed(0),
    )


def task_data(rewards, terminals=(), timeouts=(), **more) -> TaskData:
    """One-dimensional rows in time order: s_t = t in all, a_t = -t; ends where they are told."""
    count = len(rewards)
    column = np.arange(count, dtype=np.float32)[:, None]
    flags = np.zeros((2, count), bool)
    flags[0, list(terminals)], flags[1, list(timeouts)] = True, True
    return TaskData(column, -column, np.float32(rewards), column + 1, *flags, **more)


def data_of(*tasks: TaskData, path="data.h5") -> Dataset:
    names = (["s"], ["m"], ["a"], ["m"])
    return Dataset(path, "line", 1.0, *names, 10, 0, "test", "0", None, list(tasks), [], "0" * 16)


def tiny_learner(config, *changes) -> tuple[MACAW, Sample]:
    """Small networks in float64, all parameters at random, and a meta-batch at random."""
    config = override_config(config, [*TINY, *changes])
    torch.manual_seed(1)
    agent = MACAW.make_agent(config, 3, 2)
    learner = MACAW(config, agent, torch.Generator())
    for network in learner.networks.values():
        network.double()
    for parameter in [p for network in learner.networks.values() for p in network.parameters()]:
        parameter.data += 0.1 * torch.randn_like(parameter)
    def batch(count: int) -> Transitions:
        rows, numbers = torch.randn(2, 2, count, 3), torch.randn(3, 2, count)
        actions = torch.rand(2, count, 2)
        return Transitions(rows[0], actions, *numbers[:2], numbers[2].sigmoid(), rows[1])

    sample = Sample(*(Transitions(*(x.double() for x in batch(n))) for n in (6, 7)))
    return learner, sample


# --- a slow version: one task at a time, every parameter a tensor of its own


def slow_weights(layer: dict) -> torch.Tensor:
    weights = layer["base"]
    return weights + layer["transform"] @ layer["latent"] if "latent" in layer else weights


def slow_layer(layer: dict, rows):
    weights = slow_weights(layer)
    outputs = len(weights) // (rows.shape[-1] + 1)
    matrix, bias = weights[:-outputs].view(rows.shape[-1], outputs), weights[-outputs:]
    return functional.linear(rows, matrix.T, bias)


def slow_value(layers, observations):
    for layer in layers[:-1]:
        observations = slow_layer(layer, observations).relu()
    return slow_layer(layers[-1], observations).squeeze(-1)


def slow_policy(layers, observations, actions):
    first, second, last, head, head_last = layers
    hidden = slow_layer(second, slow_layer(first, observations).relu())
    mean = slow_layer(last, hidden.relu()).tanh()
    seen = slow_layer(head, torch.cat([hidden, actions], -1)).relu()
    return mean, slow_layer(head_last, seen).squeeze(-1)


def slow_steps(network, loss, steps):
    """SGD on every tensor, at its own rate, with the graph kept."""
    names = ("base", "latent", "transform")
    layers = [{n: getattr(x, n) for n in names if hasattr(x, n)} for x in network.layers]
    rates = [functional.softplus(x.raw_rates) for x in network.layers]
    for _ in range(steps):
        tensors = [t for layer in layers for t in layer.values()]
        gradients = iter(torch.autograd.grad(loss(layers), tensors, create_graph=True))
        layers = [
            {name: tensor - own[i] * next(gradients) for i, (name, tensor) in enumerate(x.items())}
            for x, own in zip(layers, rates, strict=True)
        ]
    return layers


def slow_weighting(advantages):
    a = advantages.detach()
    scaled = (a - a.mean()) / a.std(correction=0)
    return scaled.clamp(max=math.log(20)).exp()


def slow_likelihood(mean, actions):
    return torch.distributions.Normal(mean, 0.2).log_prob(actions).sum(-1)


def slow_losses(learner, sample):
    agent, steps, losses = learner.agent, learner.macaw.inner_steps, []
    for task in range(2):
        inner = Transitions(*(x[task] for x in sample.inner))
        outer = Transitions(*(x[task] for x in sample.outer))

        def value_loss(layers, inner=inner):
            return ((slow_value(layers, inner.observations) - inner.returns) ** 2).mean()

        value = slow_steps(agent.value, value_loss, steps)
        target = deepcopy(learner.target_value).requires_grad_(True)
        later = slow_value(slow_steps(target, value_loss, steps), outer.last_observations)
        targets = (outer.earned + outer.continuation * later).detach()
        found = slow_value(value, outer.observations)
        after = slow_value(value, inner.last_observations)
        advantages = inner.earned + inner.continuation * after
        advantages = (advantages - slow_value(value, inner.observations)).detach()
        weighting = slow_weighting(advantages)
        coefficient = functional.softplus(agent.policy.raw_coefficient)

        def policy_loss(
            layers, inner=inner, weighting=weighting, a=advantages, coefficient=coefficient
        ):
            mean, head = slow_policy(layers, inner.observations, inner.actions)
            likelihood = slow_likelihood(mean, inner.actions)
            return (coefficient * (head - a) ** 2 - weighting * likelihood).mean()

        policy = slow_steps(agent.policy, policy_loss, steps)
        mean, _ = slow_policy(policy, outer.observations, outer.actions)
        weighting = slow_weighting(targets - found)
        actor_error = -(slow_likelihood(mean, outer.actions) * weighting).mean()
        losses.append(torch.stack([((found - targets) ** 2).mean(), actor_error]))
    return torch.stack(losses).mean(0)


@pytest.mark.parametrize("latent, steps", [(0, 1), (3, 1), (3, 3)])
def test_losses_and_meta_gradients_are_those_of_the_slow_version(macaw, latent, steps):
    """Steps on generated weights, kept as rank one, are steps on each tensor of its own."""
    changes = f"macaw.layer_latent={latent}", f"macaw.inner_steps={steps}"
    learner, sample = tiny_learner(macaw, *changes)
    parameters = dict(learner.agent.named_parameters())
    if steps == 1:  # the head is of no use after the last step, and nor are its rates
        for layer in (3, 4):
            del parameters[f"policy.layers.{layer}.raw_rates"]
    loss, info = learner.offline_loss(sample)
    expected = slow_losses(learner, sample)
    assert info["critic_loss"].item() == pytest.approx(expected[0].item(), rel=1e-9)
    assert info["actor_loss"].item() == pytest.approx(expected[1].item(), rel=1e-9)
    assert loss.item() == pytest.approx(expected.sum().item(), rel=1e-9)
    found = torch.autograd.grad(loss, list(parameters.values()))
    slow = torch.autograd.grad(expected.sum(), list(parameters.values()))
    for name, one, other in zip(parameters, found, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9, msg=name)
        assert one.abs().max() > 0, f"{name} learns, the head by its part in the inner step"


def test_meta_gradients_are_finite_differences(macaw):
    learner, sample = tiny_learner(macaw, "macaw.layer_latent=2", "macaw.inner_steps=2")
    loss, _ = learner.offline_loss(sample)
    loss.backward()
    step = 1e-6
    networks = (learner.agent.policy, "actor_loss"), (learner.agent.value, "critic_loss")
    for network, term in networks:
        for name, parameter in network.named_parameters():
            flat, place = parameter.data.view(-1), parameter.numel() // 2
            before, found = flat[place].item(), []
            for change in (step, -step):
                flat[place] = before + change
                found.append(learner.offline_loss(sample)[1][term].item())
            flat[place] = before
            slope = (found[0] - found[1]) / (2 * step)
            expected = parameter.grad.view(-1)[place].item()
            assert slope == pytest.approx(expected, rel=1e-4, abs=1e-7), name


def test_a_layer_and_its_step_by_hand():
    """One input, one output, one latent: weight and bias are base + transform z."""
    layer = WeightTransform(1, 1, 1, rate=0.1)
    layer.base.data = torch.tensor([1.0, 2.0])
    layer.latent.data = torch.tensor([0.5])
    layer.transform.data = torch.tensor([[2.0], [4.0]])
    assert layer.rates.tolist() == pytest.approx([0.1] * 3)
    state = layer.begin()
    weights = layer.weights(state)
    assert weights.tolist() == [[2.0, 4.0]]
    assert layer(weights, torch.tensor([[[3.0], [-1.0]]])).squeeze().tolist() == [10.0, 2.0]
    state = layer.step(state, torch.tensor([[1.0, -1.0]]))
    # base (1 - .1, 2 + .1); z .5 - .1 (2 - 4) = .7; transform (2 - .1 .5, 4 + .1 .5)
    expected = [0.9 + 1.95 * 0.7, 2.1 + 4.05 * 0.7]
    assert layer.weights(state)[0].tolist() == pytest.approx(expected)


def test_initial_weights_and_coefficients(macaw):
    torch.manual_seed(0)
    layer = WeightTransform(50, 20, 1000, rate=1e-3)
    assert layer.latent.std().item() == pytest.approx(1 / 20, rel=0.1)
    assert layer.base.abs().max().item() == pytest.approx(50**-0.5, rel=0.01)
    assert functional.softplus(layer.raw_rates).tolist() == pytest.approx([1e-3] * 3)
    agent = MACAW.make_agent(macaw, 3, 2)
    coefficient = functional.softplus(agent.policy.raw_coefficient).item()
    assert coefficient == pytest.approx(macaw.macaw.head_coefficient)
    assert inverse_softplus(math.log(2)) == pytest.approx(0)


def test_returns_end_with_their_trajectory():
    rewards, remaining = torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([3, 2, 1, 2, 1])
    found = discounted_returns(rewards, remaining, 0.5)
    assert found.tolist() == [1 + 1 + 0.75, 2 + 1.5, 3, 4 + 2.5, 5]


def test_weights_and_density_by_hand():
    advantages = torch.tensor([[0.0, 2.0, 4.0, 90.0], [1.0, 1.0, 1.0, 1.0]])
    present = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1]])
    found = advantage_weights(advantages, 0.5, 3.0, present)
    # mean 2, deviation sqrt(8 / 3), so exponents -+ 2 / sqrt(8 / 3) / .5; exp of the larger: > 3
    assert found[0, :3].tolist() == pytest.approx([math.exp(-4 / math.sqrt(8 / 3)), 1, 3])
    assert found[1].tolist() == [1, 1, 1, 1], "advantages that are all equal tell nothing"
    density = log_density(torch.tensor([0.0, 0.5]), torch.tensor([0.2, 0.5]), 0.2)
    assert density.item() == pytest.approx(-0.5 - 2 * math.log(0.2 * math.sqrt(2 * math.pi)))


def test_timeline_by_hand(config):
    """A terminal end is worth nothing, one by the clock or a cut what V says of it."""
    config = override_config(config, ["updates.discount=0.5", "networks.standardize=none"])
    agent = MACAW.make_agent(config, 1, 1)
    context = task_data([8.0, 4], timeouts=[1], cut=(True, True))
    first = task_data([1.0, 2, 4, 8, 2], terminals=[1], timeouts=[4], context=context)
    line = make_timeline(agent, data_of(first, task_data([2.0, 2], terminals=[1])), least=2)
    returns = torch.tensor([2.0, 2, 4 + 4 + 0.5, 9, 2, 10, 4, 3, 2])
    mean, deviation = returns.mean(), returns.std(correction=0)
    assert agent.return_mean.item() == pytest.approx(mean.item())
    assert agent.return_deviation.item() == pytest.approx(deviation.item())
    torch.testing.assert_close(line.returns, (returns - mean) / deviation)
    continuation = torch.tensor([0, 0, 0.125, 0.25, 0.5, 0.25, 0.5, 0, 0])
    torch.testing.assert_close(line.continuation, continuation)
    assert line.starts.tolist() == [0, 7] and line.sizes.tolist() == [7, 2]
    last = line.last_observations[line.trajectory].squeeze(-1)
    assert last.tolist() == [2, 2, 5, 5, 5, 2, 2, 2, 2]
    # with V'(s_T) = 3 in V's unit the bootstrapped return is that of mean + 3 deviation
    targets = line.earned + line.continuation * 3
    raw = returns + continuation * (mean + 3 * deviation)
    torch.testing.assert_close(targets, (raw - mean) / deviation)


def test_draws_are_neighbours_inside_and_random_outside(macaw, dataset, tmp_path):
    run = Run.create(tmp_path / "run", macaw, dataset, algorithm="macaw", seed=0, device="cpu")
    learner, line = run.learner, run.learner.timeline
    rows = torch.arange(len(line.returns), dtype=torch.float64)
    learner.timeline = line._replace(returns=rows, earned=rows)
    learner.macaw = learner.macaw.model_copy(update={"meta_batch": 20})
    firsts, outer = [], []
    for _ in range(50):
        sample = learner.offline_draw(run.replay, run.generator)
        assert (sample.inner.returns.diff() == 1).all()
        tasks = sample.inner.returns // 400  # 20 trajectories of 20 steps a task
        assert (tasks == tasks[:, :1]).all() and (sample.outer.earned // 400 == tasks[:, :1]).all()
        assert tasks[:, 0].sort().values.tolist() == list(range(20))
        firsts.append(sample.inner.returns[:, 0] % 400)
        outer.append(sample.outer.earned.flatten())
    firsts = torch.cat(firsts)
    assert firsts.max() <= 400 - 40 and firsts.max() > 340 and firsts.min() < 20
    assert torch.cat(outer).unique().numel() > 0.98 * len(rows)
    index = sample.outer.earned.long()
    torch.testing.assert_close(sample.outer.observations, line.observations[index])
    torch.testing.assert_close(sample.outer.actions, line.actions[index])
    torch.testing.assert_close(sample.outer.continuation, line.continuation[index])


def test_it_learns_to_adapt(learned, macaw, pool, dataset):
    behaviour = np.mean([task.returns.mean() for task in dataset.test])
    assert behaviour < -16, "the data wander; else this test shows nothing"
    offline = evaluated(learned, macaw, pool, "offline", dataset)
    online = evaluated(learned, macaw, pool, "online", dataset)
    without = online.exploration_returns.mean()
    assert offline.returns.mean() > max(behaviour, without) + 3
    assert online.returns.mean() > without + 3
    assert np.isnan(online.kl).all() and np.isnan(online.decoder_error).all()
    assert len(online.explorations) == 2 and online.trajectories.present.all()


def test_actors_use_each_episodes_own_weights(learned, macaw, pool, dataset):
    """Also where fewer environments than episodes are at hand, and where some end early."""
    agent, _, _ = load_agent(learned, "offline")
    generator = torch.Generator().manual_seed(0)
    history = agent.recall(dataset.test, macaw.evaluation, 20, generator)
    actor = agent.adapt(history, macaw.evaluation).actor
    assert isinstance(actor, WeightsActor)
    observations = torch.randn(10, 2)
    with torch.no_grad():
        rows = agent.standardizer(observations)
        expected = [
            agent.policy([layer[e : e + 1] for layer in actor.weights], rows[None, e : e + 1])
            for e in range(10)
        ]
    expected = torch.cat(expected).squeeze(1)
    for episodes in (np.arange(10), np.array([2, 7]), np.array([2, 7]), np.array([0, 9])):
        torch.testing.assert_close(actor.act(episodes, observations[episodes]), expected[episodes])
    assert (expected[0] - expected[5]).abs().max() > 1e-3, "tasks have policies of their own"
    three = agent.adapt([Trajectories(*(x[:3] for x in h)) for h in history], macaw.evaluation)
    torch.testing.assert_close(three.actor.act(np.arange(3), observations[:3]), expected[:3])
    tasks = load_tasks(macaw.tasks.test) * 3
    explore = agent.explorer(30, macaw.evaluation, generator)
    assert rollout(pool, explore(), tasks, horizon=20, generator=generator).present.all()


def test_adapting_ignores_what_is_absent(learned, macaw, dataset):
    """An episode that ended early, padded with numbers, and an episode that never was."""
    agent, _, _ = load_agent(learned, "offline")
    task = dataset.test[0]
    arrays = (task.observations, task.actions, task.next_observations, task.rewards)
    short = Trajectories.one(*(array[:12] for array in arrays))
    padded = Trajectories.one(*(array[:20] for array in arrays))
    padded.present[:, 12:] = False
    nothing = Trajectories.one(*(array[20:40] for array in arrays))
    nothing.present[:] = False
    expected = agent.adapt([short], macaw.evaluation).actor.weights
    found = agent.adapt([padded, nothing], macaw.evaluation).actor.weights
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_an_adaptation_that_diverges_is_undone(learned, macaw, dataset):
    """The seventh task's alone: found in an evaluation that ended in actions of NaN."""
    agent, _, _ = load_agent(learned, "offline")
    history = agent.recall(dataset.test, macaw.evaluation, 20, torch.Generator().manual_seed(0))
    expected = agent.adapt(history, macaw.evaluation).actor.weights
    for episode in history:
        episode.rewards[7] *= 1e30
    found = agent.adapt(history, macaw.evaluation).actor.weights
    for one, other, before in zip(found, expected, agent.policy.unadapted(), strict=True):
        assert torch.equal(one[7], before[0]) and not torch.equal(other[7], before[0])
        torch.testing.assert_close(one[:7], other[:7])


def test_exploration_is_the_policy_that_has_not_adapted(macaw):
    torch.manual_seed(0)
    agent = MACAW.make_agent(macaw, 2, 2)  # untrained: its means are far from the bounds
    observations, episodes, settings = torch.randn(500, 2), np.arange(500), macaw.evaluation
    with torch.no_grad():
        mean = agent.policy(agent.policy.unadapted(), observations.unsqueeze(1)).squeeze(1)
    actor = agent.explorer(500, settings)()
    torch.testing.assert_close(actor.act(episodes, observations), mean)
    sampling = settings.model_copy(update={"deterministic_exploration": False})
    actor = agent.explorer(500, sampling, torch.Generator().manual_seed(0))()
    sampled = actor.act(episodes, observations)
    assert sampled.abs().max() <= 1
    assert (sampled - mean)[mean.abs() < 0.3].std().item() == pytest.approx(0.2, rel=0.1)


def test_recall_takes_trajectories_in_a_row(config):
    """Enough for as many transitions as exploration, of the task's own data and its histories."""
    agent = MACAW.make_agent(config, 1, 1)
    context = task_data([7.0, 8], timeouts=[1])
    task = task_data([1.0, 2, 3, 4, 5, 6], terminals=[1], timeouts=[2, 5], context=context)
    settings = config.evaluation.model_copy(update={"exploration_episodes": 1})
    found = set()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        history = agent.recall([task, task_data([1.0, 1], terminals=[1])], settings, 4, generator)
        rewards = [h.rewards[0][h.present[0]].tolist() for h in history]
        found.add(tuple(map(tuple, rewards)))
        assert sum(h.present[1].sum() for h in history) == 2, "all there is"
    assert found == {((1, 2), (3,), (4, 5, 6)), ((3,), (4, 5, 6)), ((4, 5, 6), (7, 8))}


@pytest.mark.parametrize(
    "data, field, found",
    [
        (task_data([1.0, 2, 3], timeouts=[2]), "train/0001", "3 transitions"),
        (task_data([1.0] * 9, timeouts=range(9)), "train/0001/timeouts", "9 trajectories of one"),
        (task_data([1.0] * 9, terminals=[4]), "train/0001/timeouts", "no end in the last row"),
        (
            replace(
                task_data([1.0] * 9, timeouts=[8]),
                next_observations=np.arange(9, dtype=np.float32)[:, None] + 0.5,
            ),
            "train/0001/next_observations",
            "observations in 0% of the rows",
        ),
        (
            task_data([1.0] * 9, timeouts=[8], context=task_data([1.0], terminals=[0])),
            "train/0001/context/timeouts",
            "1 trajectories of one",
        ),
    ],
)
def test_data_without_returns_are_refused(config, data, field, found):
    agent = MACAW.make_agent(config, 1, 1)
    whole = task_data([1.0] * 9, timeouts=[8])
    with pytest.raises(InputError, match=f"data.h5: {field}: found .*{found}.*expected"):
        make_timeline(agent, data_of(whole, data), least=5)


def test_bfloat16_is_refused(macaw, dataset, tmp_path):
    config = override_config(macaw, ["execution.precision=bfloat16"])
    with pytest.raises(InputError, match="execution.precision: .*: found bfloat16|bfloat16"):
        Run.create(tmp_path / "run", config, dataset, algorithm="macaw", seed=0, device="cpu")


def test_seeds_at_once_are_seeds_alone(macaw, dataset, tmp_path):
    def create(name, seed):
        return Run.create(
            tmp_path / name, macaw, dataset, algorithm="macaw", seed=seed, device="cpu"
        )

    alone, together = ([create(f"{k}{s}", s) for s in (0, 1)] for k in ("alone", "together"))
    stacked = Updates([(run.learner, run.replay) for run in together], "offline")
    for _ in range(10):
        _, info = stacked.take(1)
        infos = [Updates([(r.learner, r.replay)], "offline").take(1)[1] for r in alone]
    for name, values in info.items():
        expected = torch.stack([i[name] for i in infos])
        torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-4, msg=name)
    for one, other in zip(alone, together, strict=True):
        for name, module in one.learner.networks.items():
            found = other.learner.networks[name].state_dict()
            for key, value in module.state_dict().items():
                torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_resume_is_bit_for_bit_and_keeps_the_scale_of_returns(macaw, dataset, tmp_path):
    def create(name, steps):
        short = override_config(macaw, [f"offline.steps={steps}", "offline.checkpoint_every=7"])
        return Run.create(tmp_path / name, short, dataset, algorithm="macaw", seed=3, device="cpu")

    whole, first = create("whole", 20), create("parts", 9)
    train_offline(whole, quiet=True)
    train_offline(first, quiet=True)
    second = Run.resume(tmp_path / "parts", "offline", device="cpu", overrides=["offline.steps=20"])
    assert second.learner.agent.return_deviation == whole.learner.agent.return_deviation > 0
    train_offline(second, quiet=True)
    for name, module in whole.learner.networks.items():
        found = second.learner.networks[name].state_dict()
        for key, value in module.state_dict().items():
            assert torch.equal(found[key], value), key
    for name, optimizer in whole.learner.optimizers.items():
        states = second.learner.optimizers[name].state_dict()["state"]
        for index, state in optimizer.state_dict()["state"].items():
            assert all(torch.equal(value, states[index][key]) for key, value in state.items())


def test_the_target_is_a_running_average(macaw, dataset, tmp_path):
    run = Run.create(tmp_path / "run", macaw, dataset, algorithm="macaw", seed=0, device="cpu")
    learner = run.learner
    before = [p.clone() for p in learner.target_value.parameters()]
    Updates([(learner, run.replay)], "offline").take(1)
    for old, new, target in zip(
        before, learner.agent.value.parameters(), learner.target_value.parameters(), strict=True
    ):
        torch.testing.assert_close(target.data, 0.9 * old + 0.1 * new.data)
        assert not torch.equal(new, old), "every tensor learns"


def test_preset_matched_takes_smacs_sizes(config, dataset, tmp_path):
    changed = configured(config, "macaw", "matched")
    assert changed.macaw.hidden == config.networks.policy_hidden
    assert changed.macaw.inner_batch == changed.macaw.outer_batch == config.updates.rl_batch
    assert changed.macaw.policy_learning_rate == config.updates.learning_rate
    assert changed.offline.steps == config.macaw.steps
    run = Run.create(tmp_path / "run", changed, dataset, algorithm="macaw", seed=0, device="cpu")
    assert run.learner.offline_draw(run.replay, run.generator).inner.returns.shape == (4, 64)
    rates = {name: o.param_groups[0]["lr"] for name, o in run.learner.optimizers.items()}
    assert rates == {"policy": 3e-3, "value": 3e-3, "rates": config.macaw.rate_learning_rate}
    assert isinstance(run.agent, MacawAgent)


@pytest.mark.parametrize("domain", ["cheetah_velocity", "sawyer"])
def test_authors_settings_are_the_paper_scales(domain):
    found = configured(load_config(domain, "paper"), "macaw").macaw
    assert (found.hidden, found.layer_latent) == ([100, 100, 100], 100)
    assert (found.policy_learning_rate, found.value_learning_rate) == (1e-4, 1e-5)
    assert (found.meta_batch, found.inner_batch, found.inner_steps) == (5, 256, 1)


def test_command_line_train_resume_evaluate(smac_here, domain, dataset, tmp_path):
    run = tmp_path / "run"
    train = ["train", dataset.path, "--out", run, "--quiet", "--device", "cpu"]
    sizes = ["--set", "macaw.steps=20", "--set", "offline.checkpoint_every=10"]
    macaw = ["--algorithm", "macaw", "--preset", "matched", "--domain", domain]
    smac_here(*train, *macaw, "--scale", "paper", *sizes)
    shutil.rmtree(run / "offline" / "checkpoints" / "step_00000020")
    (run / "offline" / "checkpoints" / "latest").write_text("step_00000010\n")
    smac_here(*train, "--resume")
    common = ("--workers", 0, "--json", "--quiet")
    result = json.loads(smac_here("evaluate", run, "--context", "all", *common).stdout)
    assert result["algorithm"] == "macaw" and result["step"] == 20
    for context in ("online", "offline"):
        assert result[context]["kl"] is None and result[context]["return"]["mean"] < 0
    assert result["online"]["exploration_return"] < 0
    # exploration is deterministic here and its policy the same: so is a task's return
    unadapted = result["none"]["return"]["mean"]
    assert unadapted == pytest.approx(result["online"]["exploration_return"])
