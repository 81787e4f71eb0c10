"""BOReL: the belief and its loss against slow or hand-worked versions, rollouts, and whole runs."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from smac_core.agents.borel import Belief, BeliefAgent, BeliefDecoder, BeliefEncoder
from smac_core.algorithms.belief import BeliefSample, Rollouts, belief_loss
from smac_core.algorithms.borel import BOReL, relabelled
from smac_core.config import Borel, override_config
from smac_core.data.dataset import TaskData
from smac_core.data.replay import Batch, Layout
from smac_core.data.trajectories import Trajectories
from smac_core.errors import InputError
from smac_core.evaluation import meta_test
from smac_core.networks import PolicyDistribution
from smac_core.presets import configured
from smac_core.tasks import load_tasks
from smac_core.training.offline import train_offline
from smac_core.training.rollout import rollout
from smac_core.training.run import Run
from smac_core.training.updates import Updates

SMALL = Borel(
    latent_dim=2,
    hidden_state=6,
    observation_embedding=4,
    action_embedding=3,
    reward_embedding=2,
    decoder_hidden=[5, 4],
    hidden=[8],
)
LAYOUT = Layout(2, 1)


def trajectories(*lengths: int, seed: int = 0, ended: tuple[int, ...] = ()) -> TaskData:
    """Random numbers; those numbered in ``ended`` end by a terminal, the others by the clock."""
    rng, rows = np.random.default_rng(seed), sum(lengths)
    arrays = [rng.normal(size=(rows, d)).astype(np.float32) for d in (2, 1, 2)]
    rewards = rng.normal(size=rows).astype(np.float32)
    ends, terminals = np.zeros((2, rows), bool)
    ends[np.cumsum(lengths) - 1] = True
    for number in ended:
        terminals[np.cumsum(lengths)[number] - 1] = True
    return TaskData(
        observations=arrays[0],
        actions=arrays[1],
        next_observations=arrays[2],
        rewards=rewards,
        terminals=terminals,
        timeouts=ends & ~terminals,
    )


def make_rollouts(tasks, openings=None, episodes=2) -> Rollouts:
    return Rollouts(
        tasks, openings, nn.Identity(), LAYOUT, episodes=episodes, device=torch.device("cpu")
    )


# ------------------------------------------------------------------------------------- belief
def test_the_divergence_by_hand():
    one = Belief(torch.tensor([1.0, 0.0]), torch.tensor([math.log(4), 0.0]))
    other = Belief(torch.tensor([3.0, 0.0]), torch.tensor([math.log(2), 0.0]))
    # ln(sqrt 2 / 2) + (4 + 2^2) / (2 * 2) - 1 / 2
    expected = 0.5 * math.log(0.5) + 2 - 0.5
    assert one.divergence(other).item() == pytest.approx(expected, rel=1e-6)
    assert one.divergence(one).item() == 0.0


def test_beliefs_are_a_loop_over_steps_from_the_untouched_state():
    torch.manual_seed(0)
    encoder, batch = BeliefEncoder(2, 1, SMALL), 3
    after, actions = torch.randn(batch, 5, 2), torch.randn(batch, 5, 1)
    rewards = torch.randn(batch, 5)
    found = encoder(after, actions, rewards)
    cell = nn.GRUCell(9, 6)
    unit = encoder.recurrent
    cell.load_state_dict(
        {
            "weight_ih": unit.input.weight,
            "bias_ih": unit.input.bias,
            "weight_hh": unit.recurrent.weight,
            "bias_hh": unit.recurrent.bias,
        }
    )
    state = torch.zeros(batch, 6)
    for t in range(6):
        mean, log_variance = encoder.head(state).chunk(2, -1)
        torch.testing.assert_close(found.mean[:, t], mean)
        torch.testing.assert_close(found.log_variance[:, t], log_variance)
        if t < 5:
            parts = (
                encoder.observation(after[:, t]),
                encoder.action(actions[:, t]),
                encoder.reward(rewards[:, t, None]),
            )
            state = cell(torch.cat([part.relu() for part in parts], -1), state)


def test_the_decoder_is_an_mlp_of_z_and_every_transition():
    torch.manual_seed(0)
    decoder = BeliefDecoder(2, 2, 1, [5, 4])
    z, after, actions, before = (torch.randn(3, *s) for s in ((4, 2), (6, 2), (6, 1), (6, 2)))
    first = nn.Linear(7, 5)
    first.weight.data = torch.cat([decoder.latent.weight, decoder.transition.weight], 1)
    first.bias.data = decoder.transition.bias
    found = decoder(z, after, actions, before)
    assert found.shape == (3, 4, 6)
    for k in range(4):
        for t in range(6):
            row = torch.cat([z[:, k], after[:, t], actions[:, t], before[:, t]], -1)
            expected = decoder.body(first(row).relu()).squeeze(-1)
            torch.testing.assert_close(found[:, k, t], expected)


def slow_loss(encoder, decoder, sample: BeliefSample, kl_weight: float) -> float:
    """The same in loops over rollouts, posteriors and rewards."""
    total = 0.0
    for b, length in enumerate(sample.present.sum(-1).tolist()):
        batch = Batch(*(part[b : b + 1, :length] for part in sample.batch))
        beliefs = encoder(batch.next_observations, batch.actions, batch.rewards)
        rebuilt = 0.0
        for k, t in enumerate(sample.times[b].tolist()):
            z = beliefs.mean[0, t] + (beliefs.log_variance[0, t] / 2).exp() * sample.noise[b, k]
            for i in range(length):
                row = (batch.next_observations, batch.actions, batch.observations)
                guess = decoder(z[None], *(part[0, i : i + 1] for part in row))
                error = (guess - batch.rewards[0, i]).item() ** 2
                rebuilt += sample.weights[b, k].item() * error
        mean, variance = torch.zeros(2), torch.ones(2)
        divergence = 0.0
        for t in range(length + 1):
            now, its = beliefs.mean[0, t], beliefs.log_variance[0, t].exp()
            q, p = Normal(now, its.sqrt()), Normal(mean, variance.sqrt())
            divergence += kl_divergence(q, p).sum().item()
            mean, variance = now, its
        total += rebuilt + kl_weight * divergence / (length + 1)
    return total / len(sample.present)


def make_sample(rollouts: Rollouts, chosen: list[list[int]], posteriors: int) -> BeliefSample:
    places, present = rollouts.places(torch.tensor(chosen))
    generator = torch.Generator().manual_seed(1)
    lengths = present.sum(-1, keepdim=True)
    uniform = torch.rand(len(chosen), posteriors, generator=generator)
    return BeliefSample(
        rollouts.batch(places),
        present,
        (uniform * (lengths + 1)).long(),
        torch.full_like(uniform, 1 / posteriors),
        torch.randn(len(chosen), posteriors, 2, generator=generator),
    )


def test_the_loss_of_rollouts_of_unequal_length_in_loops():
    torch.manual_seed(0)
    encoder, decoder = BeliefEncoder(2, 1, SMALL), BeliefDecoder(2, 2, 1, [5, 4])
    rollouts = make_rollouts([trajectories(3, 1, 4, ended=(1,))])
    sample = make_sample(rollouts, [[0, 2], [1, 0], [1, 1]], 5)
    loss, info = belief_loss(encoder, decoder, sample, kl_weight=0.7)
    assert loss.item() == pytest.approx(slow_loss(encoder, decoder, sample, 0.7), rel=1e-5)
    assert info["belief_loss"] == loss
    assert info["kl"] > 0 and info["reward_error"] > 0
    # what stands where nothing is present touches neither the loss nor a gradient
    loss.backward()
    gradients = [p.grad.clone() for p in encoder.parameters()]
    encoder.zero_grad()
    absent = ~sample.present
    spoilt = Batch(*(part.clone() for part in sample.batch))
    for part in spoilt:
        part[absent] = 99.0
    again, _ = belief_loss(encoder, decoder, sample._replace(batch=spoilt), kl_weight=0.7)
    again.backward()
    assert again.item() == pytest.approx(loss.item(), rel=1e-6)
    for parameter, gradient in zip(encoder.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


# ----------------------------------------------------------------------------------- rollouts
def test_a_rollout_is_trajectories_one_right_after_the_other():
    first, second = trajectories(3, 1, 4, seed=1), trajectories(2, seed=2)
    history = trajectories(2, 2, seed=3)
    rollouts = make_rollouts([first, replace(second, context=history)])
    assert rollouts.steps == 8 and rollouts.lengths.tolist() == [3, 1, 4, 2, 2, 2]
    assert rollouts.count.tolist() == [3, 3] and rollouts.first.tolist() == [0, 3]
    places, present = rollouts.places(torch.tensor([[2, 0], [1, 5], [3, 3]]))
    assert [row[here].tolist() for row, here in zip(places, present, strict=True)] == [
        [4, 5, 6, 7, 0, 1, 2],
        [3, 12, 13],
        [8, 9, 8, 9],
    ]
    assert present[:, :3].all()  # nothing is missing but at the end
    found = rollouts.batch(torch.tensor([13]))
    np.testing.assert_array_equal(found.rewards, history.rewards[[3]])
    np.testing.assert_array_equal(found.next_observations, history.next_observations[[3]])


def test_random_rollouts_are_of_their_task_and_different_where_it_has_enough():
    rollouts = make_rollouts([trajectories(2, 2, 2), trajectories(2)], episodes=2)
    generator = torch.Generator().manual_seed(0)
    found = rollouts.draw(torch.tensor([1, 0]), 200, generator)
    assert (found[:200] == 3).all()  # a single trajectory comes again
    assert (found[200:] < 3).all() and (found[200:, 0] != found[200:, 1]).all()
    assert len(found[200:].unique(dim=0)) == 6  # all pairs
    orders = rollouts.orders(0, 4)
    assert orders.shape == (12, 2) and (orders[:, 0] != orders[:, 1]).all()
    assert [(orders[:, e] == i).sum().item() for e in (0, 1) for i in range(3)] == [4] * 6
    assert torch.equal(orders, rollouts.orders(0, 4))


def test_all_posteriors_or_some_of_them(config, dataset, tmp_path):
    means = []
    for count in ("null", 40):
        run = make(config, dataset, tmp_path / str(count), f"borel.belief_posteriors={count}")
        sample = run.learner.belief_draw(run.replay, torch.Generator().manual_seed(0))
        torch.testing.assert_close(sample.weights.sum(-1), torch.ones(16))
        assert sample.times.min() == 0 and sample.times.max() == 40  # two episodes of 20
        means.append((sample.times * sample.weights).sum(-1).mean().item())
    assert means[0] == pytest.approx(20.0)  # each of 0 .. 40 once
    assert means[1] == pytest.approx(20.0, abs=5 * 12 / math.sqrt(16 * 40))


# ----------------------------------------------------------------------------------- the agent
def make(config, dataset, folder, *changes, seed=0) -> Run:
    config = override_config(configured(config, "borel"), list(changes))
    return Run.create(folder, config, dataset, algorithm="borel", seed=seed, device="cpu")


def test_an_actor_carries_its_belief_as_training_saw_it(config, dataset, tmp_path):
    """Step by step, and by ``adapt``: the beliefs that augment a rollout's states."""
    run = make(config, dataset, tmp_path / "run")
    agent, learner, task = run.agent, run.learner, dataset.train[3]
    learner.begin_stage("offline")
    steps = learner.augmented
    # three orders of 20 trajectories of 20 steps, each in both places
    assert steps.sizes.tolist() == [3 * 20 * 40] * 20
    mine = slice(int(steps.starts[3]), int(steps.starts[3]) + 40)
    rows = steps.places[mine] - 3 * 400
    actor = agent.explorer(1, config.evaluation, None)()
    for t, row in enumerate(rows.tolist()):
        belief = agent.encoder.belief(actor.state)
        torch.testing.assert_close(belief.features[0], steps.before[mine][t])
        arrays = (task.observations, task.actions, task.rewards, task.next_observations)
        raw = [torch.from_numpy(array[row : row + 1]) for array in arrays]
        actor.observe(np.array([0]), *raw)
        torch.testing.assert_close(
            agent.encoder.belief(actor.state).features[0], steps.after[mine][t]
        )
    arrays = (task.observations, task.actions, task.next_observations, task.rewards)
    episodes = [
        Trajectories.one(*(array[row : row + 20] for array in arrays))
        for row in (int(rows[0]), int(rows[20]))
    ]
    adapted = agent.adapt(episodes, config.evaluation, None)
    torch.testing.assert_close(adapted.actor.state, actor.state)
    prior = agent.encoder.belief(agent.encoder.start(1))
    torch.testing.assert_close(adapted.kl, agent.encoder.belief(actor.state).divergence(prior))
    first = agent.standardizer(torch.from_numpy(task.next_observations[:1]))
    before = agent.standardizer(torch.from_numpy(task.observations[:1]))
    expected = agent.decoder(
        agent.encoder.belief(actor.state).mean, first, torch.from_numpy(task.actions[:1]), before
    )
    some = Trajectories.one(*(array[:20] for array in arrays))
    torch.testing.assert_close(adapted.expected_rewards(some)[0, 0], expected[0, 0])


def test_early_ends_leave_no_trace_in_the_belief():
    torch.manual_seed(0)
    agent = BeliefAgent(2, 1, SMALL)
    data = trajectories(3, 4)
    parts = (data.observations, data.actions, data.next_observations, data.rewards)
    short, long = (Trajectories.one(*(a[rows] for a in parts)) for rows in data.trajectories)
    missing = torch.zeros(1, 2, dtype=torch.bool)
    padded = Trajectories(
        *(torch.cat([part, torch.full_like(part[:, :2], 9)], 1) for part in short[:5]),
        torch.cat([short.success, missing], 1),
        torch.cat([short.present, missing], 1),
    )
    expected = agent.replay([short, long])
    torch.testing.assert_close(agent.replay([padded, long]), expected)
    torch.testing.assert_close(agent.replay([long, padded]), agent.replay([long, short]))
    assert not torch.allclose(agent.replay([long, short]), expected)  # order tells
    nothing = padded._replace(present=torch.zeros(1, 5, dtype=torch.bool))
    assert torch.equal(agent.replay([nothing]), agent.encoder.start(1))


def test_exploration_episodes_share_a_belief(config, dataset, pool, tmp_path):
    run = make(config, dataset, tmp_path / "run")
    tasks = load_tasks(config.tasks.test)[:3]
    explore = run.agent.explorer(3, config.evaluation, None)
    generator = torch.Generator().manual_seed(0)
    episodes = [rollout(pool, explore(), tasks, horizon=20, generator=generator) for _ in range(2)]
    torch.testing.assert_close(explore().state, run.agent.replay(episodes))
    assert not torch.equal(episodes[0].actions[:, 0], episodes[1].actions[:, 0])
    assert torch.equal(explore().state, explore().state)
    other = run.agent.explorer(3, config.evaluation, None)()
    assert not other.state.any()


def test_recalls_whole_trajectories_of_the_history(config):
    agent = BeliefAgent(2, 1, SMALL)
    settings = config.evaluation.model_copy(update={"exploration_episodes": 3})
    data = trajectories(3, 6, 2, 4, seed=5)
    task = replace(trajectories(7), context=replace(data, cut=(True, True)))
    generator = torch.Generator().manual_seed(0)
    found = agent.recall([task, task], settings, 5, generator)
    assert len(found) == 3
    assert all(part.shape[:2] == (2, 5) for episode in found for part in episode)
    # two are whole, so one of them comes again; the one of 6 steps is shortened to the horizon
    for number in range(2):
        lengths = [int(episode.present[number].sum()) for episode in found]
        assert sorted(set(lengths)) == [2, 5] and lengths[0] == lengths[2]
        for episode, length in zip(found, lengths, strict=True):
            start = {5: 3, 2: 9}[length]
            rewards = data.rewards[start : start + length]
            np.testing.assert_array_equal(episode.rewards[number, :length], rewards)
    cut = replace(trajectories(3), cut=(True, False))
    (again, *_) = agent.recall([cut], settings, 5, generator)
    assert again.present.sum() == 3  # better than none


# ----------------------------------------------------------------------------------------- SAC
class Critic(nn.Module):
    """Q_1 = bias + a + s+'s last, Q_2 = Q_1 + 1."""

    def __init__(self, bias: float):
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, observations, actions, z, *, frozen=False):
        assert z.shape[-1] == 0
        bias = self.bias.detach() if frozen else self.bias
        first = bias + actions[..., 0] + observations[..., -1]
        return torch.stack([first, first + 1])


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(0.1))

    def forward(self, observations, z):
        mean = self.mean.expand(*observations.shape[:-1], 1)
        return PolicyDistribution(mean, torch.full_like(mean, math.log(2.0)))


def test_sac_by_hand(config):
    """Entropy in both losses, the belief before the step in s+ and after it in its successor."""
    settings = override_config(config, ["borel.entropy_coefficient=0.5", "updates.reward_scale=3"])
    learner = BOReL(settings, BeliefAgent(2, 1, settings.borel), torch.Generator())
    learner.critic, learner.target_critic = Critic(3.0), Critic(10.0)
    learner.agent.policy = Policy()
    u = 0.1 + 2.0 * 0.5
    density = -0.5 * 0.25 - math.log(2.0) - 0.5 * math.log(2 * math.pi)
    density -= math.log(1 - math.tanh(u) ** 2)
    batch = Batch(
        observations=torch.tensor([[[0.0, 0.25]]]),
        actions=torch.tensor([[[0.5]]]),
        rewards=torch.tensor([[1.0]]),
        next_observations=torch.tensor([[[0.0, 0.75]]]),
        terminals=torch.tensor([[0.0]]),
    )
    noise = torch.full((1, 1, 1), 0.5)
    sample = learner_sample(batch, noise)
    loss, info = learner.offline_loss(sample)
    target = 3 * 1 + 0.9 * (10 + math.tanh(u) + 0.75 - 0.5 * density)
    q = 3 + 0.5 + 0.25
    critic = (q - target) ** 2 + (q + 1 - target) ** 2
    actor = 0.5 * density - (3 + math.tanh(u) + 0.25)
    assert info["critic_loss"].item() == pytest.approx(critic, rel=1e-5)
    assert info["pearl_actor_loss"].item() == pytest.approx(actor, rel=1e-5)
    assert loss.item() == pytest.approx(critic + actor, rel=1e-5)
    loss.backward()
    assert learner.critic.bias.grad.item() == pytest.approx(2 * (2 * (q - target) + 1), rel=1e-5)
    ended = learner_sample(batch._replace(terminals=torch.ones(1, 1)), noise)
    assert learner.offline_loss(ended)[1]["q_target"].item() == pytest.approx(3.0)


def learner_sample(batch: Batch, noise: torch.Tensor):
    from smac_core.algorithms.borel import Noise, Sample

    return Sample(batch, Noise(noise, noise))


def test_sac_draws_steps_with_their_beliefs(config, dataset, tmp_path):
    run = make(config, dataset, tmp_path / "run")
    learner = run.learner
    learner.begin_stage("offline")
    steps, latent = learner.augmented, 2 * config.borel.latent_dim
    assert steps.before.shape == (20 * 2400, latent)
    sample = learner.offline_draw(run.replay, run.generator)
    assert sample.batch.observations.shape == (8, 32, 2 + latent)
    rows = learner.rollouts.rows
    known = torch.cat([rows[steps.places, :2], steps.before, rows[steps.places, 2:5]], -1)
    following = torch.cat([rows[steps.places, 5:7], steps.after], -1)
    batch = sample.batch
    drawn = torch.cat([batch.observations, batch.actions, batch.rewards.unsqueeze(-1)], -1)
    tasks = set()
    for number in range(8):
        (places,) = (known == drawn[number, 0]).all(-1).nonzero(as_tuple=True)
        assert (following[places] == batch.next_observations[number, 0]).all(-1).any()
        tasks |= set((places // 2400).tolist())
        own = known[places[0] // 2400 * 2400 :][:2400, None]
        assert (own == drawn[number]).all(-1).any(0).all()
    assert len(tasks) == 8


# ------------------------------------------------------------------------------ reward relabelling
def rewards(observations, actions, next_observations, task):
    """What the point mass pays: its positions after the step are all that counts."""
    goal = np.array([math.cos(task["angle"]), math.sin(task["angle"])])
    return -np.linalg.norm(next_observations - goal, axis=-1)


def test_relabelled_openings_are_other_tasks_paid_as_this_one(config, dataset, tmp_path):
    found = relabelled(dataset.train, "test_borel:rewards")
    for own, opening in zip(dataset.train, found, strict=True):
        assert len(opening.trajectories) == len(own.trajectories)
        # the noise of another's last position is nobody else's
        others = [task for task in dataset.train if task is not own]
        others = {rows.tobytes() for task in others for rows in task.observations[19::20]}
        assert {x.tobytes() for x in opening.observations[19::20]} <= others
        expected = rewards(*(None, None), opening.next_observations, own.task)
        np.testing.assert_allclose(opening.rewards, expected, rtol=1e-5)
    changes = ["borel.reward_function=test_borel:rewards"]
    learner = make(config, dataset, tmp_path / "run", *changes).learner
    own = 20 * 20
    drawn = learner.rollouts.draw(torch.tensor([4]), 50, torch.Generator().manual_seed(0))
    for chosen in (drawn, learner.rollouts.orders(4, 2)):
        assert ((chosen[:, 0] >= own + 80) & (chosen[:, 0] < own + 100)).all()
        assert ((chosen[:, 1] >= 80) & (chosen[:, 1] < 100)).all()


def wrong_rewards(observations, actions, next_observations, task):
    return np.zeros(len(observations))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_borel:wrong_rewards", "borel.reward_function: rewards: found 0 in row .*data"),
        ("test_borel:none", "expected module:function"),
        ("no_such_module:rewards", "expected module:function"),
        ("rewards", "expected module:function"),
    ],
)
def test_a_reward_function_that_is_none_or_another_is_refused(dataset, name, message):
    with pytest.raises(InputError, match=message):
        relabelled(dataset.train, name)
    with pytest.raises(InputError, match="at least 2"):
        relabelled(dataset.train[:1], "test_borel:rewards")


# ---------------------------------------------------------------------------------- whole runs
def test_the_stages_share_the_steps(config, dataset, tmp_path):
    run = make(config, dataset, tmp_path / "run", "borel.belief_steps=7")
    for total, stages in ((7, (7, 0)), (5, (5, 0)), (1300, (7, 1293))):
        run.learner.config = override_config(config, [f"offline.steps={total}"])
        assert tuple(run.learner.offline_stages.values()) == stages


def test_presets(config):
    own = configured(config, "borel")
    assert own.offline.steps == config.borel.belief_steps + config.borel.steps
    assert own.borel == config.borel
    matched = configured(config, "borel", "matched").borel
    assert matched.hidden == config.networks.policy_hidden
    assert matched.decoder_hidden == config.networks.decoder_hidden
    assert matched.latent_dim == config.networks.latent_dim
    assert matched.learning_rate == matched.belief_learning_rate == config.updates.learning_rate
    assert (matched.meta_batch, matched.rl_batch) == (4, 64)
    assert matched.kl_weight == config.borel.kl_weight


def state_of(run: Run) -> dict[str, torch.Tensor]:
    state = {}
    for name, module in run.learner.networks.items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in run.learner.optimizers.items():
        for index, values in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
    return state | {"generator": run.generator.get_state()}


SHORT = ["borel.belief_steps=9", "offline.checkpoint_every=7", "offline.log_every=5"]


def test_resume_is_bit_for_bit_in_either_stage(config, dataset, tmp_path):
    def create(name, steps):
        return make(config, dataset, tmp_path / name, *SHORT, f"offline.steps={steps}", seed=3)

    whole = create("whole", 21)
    assert train_offline(whole, quiet=True)
    train_offline(create("parts", 4), quiet=True)  # in the belief's stage
    for steps in (9, 15, 21):  # at its end, in SAC's, at the end
        change = [f"offline.steps={steps}"]
        part = Run.resume(tmp_path / "parts", "offline", device="cpu", overrides=change)
        assert train_offline(part, quiet=True)
    expected, found = state_of(whole), state_of(part)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("stage", ["belief", "offline"])
def test_seeds_at_once_are_seeds_alone(config, dataset, tmp_path, stage):
    alone, together = (
        [make(config, dataset, tmp_path / f"{kind}{seed}", seed=seed) for seed in range(2)]
        for kind in ("alone", "together")
    )
    for run in (*alone, *together):
        run.learner.begin_stage(stage)
    stacked = Updates([(run.learner, run.replay) for run in together], stage)
    single = [Updates([(run.learner, run.replay)], stage) for run in alone]
    for _ in range(4):
        _, info = stacked.take(1)
        infos = [updates.take(1)[1] for updates in single]
    for name, values in info.items():
        expected = torch.stack([i[name] for i in infos])
        torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-4, msg=name)
    for one, other in zip(alone, together, strict=True):
        for key, value in one.agent.state_dict().items():
            torch.testing.assert_close(other.agent.state_dict()[key], value, rtol=1e-3, atol=1e-4)


def test_seeds_at_once_whose_longest_trajectories_differ(config, dataset, tmp_path):
    """Each seed has data of its own, and robots fall at different times."""
    runs = [make(config, dataset, tmp_path / f"{seed}", seed=seed) for seed in range(2)]
    shorter = []
    for task in dataset.train:
        rows = np.concatenate([np.arange(s.start, s.stop - 5) for s in task.trajectories])
        names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
        arrays = {name: getattr(task, name)[rows] for name in names}
        arrays["timeouts"] = np.append(np.diff(rows) != 1, True)
        shorter.append(replace(task, **arrays))
    runs[1].learner.prepare(replace(dataset, train=shorter))
    updates = Updates([(run.learner, run.replay) for run in runs], "belief")
    _, info = updates.take(1)
    assert info["reward_error"].shape == (2,) and info["reward_error"].isfinite().all()


def test_bfloat16_trains(config, dataset, tmp_path):
    changes = ("offline.steps=12", "execution.precision=bfloat16")
    run = make(config, dataset, tmp_path / "run", *SHORT, *changes)
    assert train_offline(run, quiet=True)
    assert all(p.dtype == torch.float32 for p in run.agent.parameters())


@pytest.mark.slow
def test_learns_to_adapt_to_the_point_masses(config, dataset, pool, tmp_path):
    """Better than the data from either context, and than its own belief before any transition."""
    run = make(config, dataset, tmp_path / "run")
    assert train_offline(run, quiet=True)
    tasks, horizon = load_tasks(config.tasks.test), config.environment.horizon
    arguments = {"horizon": horizon, "generator": torch.Generator().manual_seed(0)}
    data = float(np.mean([task.returns.mean() for task in dataset.test]))

    def adapted(context: str):
        more = {"context": context, "offline": dataset.test}
        return meta_test(pool, run.agent, tasks, config.evaluation, **arguments, **more)

    unadapted = adapted("none").returns.mean().item()
    for context in ("online", "offline"):
        result = adapted(context)
        found = float(result.returns.mean())
        assert found > data + 5, (context, found, data, unadapted)
        assert found > unadapted + 3, (context, found, data, unadapted)
        assert np.isfinite(result.kl).all() and result.kl.mean() > 1
        assert result.decoder_error.mean() < 0.1


def test_the_whole_way_by_commands(smac_here, domain, dataset, tmp_path):
    out = tmp_path / "run"
    train = ["train", dataset.path, "--domain", domain, "--scale", "paper", "--out", out, "-q"]
    train += ["--threads", 1, "--device", "cpu"]
    changes = ["borel.belief_steps=6", "offline.checkpoint_every=5", "offline.steps=4"]
    settings = [part for change in changes for part in ("--set", change)]
    smac_here(*train, "--algorithm", "borel", "--preset", "matched", *settings)
    smac_here(*train, "--resume", "--set", "offline.steps=11")  # into the second stage
    smac_here(*train, "--resume", "--set", "offline.steps=16")
    own = ["--workers", 0, "--set", "evaluation.exploration_episodes=1"]  # BOReL's own protocol
    done = smac_here("evaluate", out, "--context", "all", "--json", "-q", *own)
    result = json.loads(done.stdout)
    assert (result["algorithm"], result["step"]) == ("borel", 16)
    for context in ("online", "offline"):
        assert -40 < result[context]["return"]["mean"] < 0
        assert result[context]["kl"] > 0 and result[context]["decoder_error"] > 0
    assert result["none"]["adaptation"] == "the belief before any transition, held"
    assert result["none"]["kl"] is None and -40 < result["none"]["return"]["mean"] < 0
