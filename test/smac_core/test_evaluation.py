from dataclasses import replace

import numpy as np
import pytest
import torch

from smac_core.agents.context import Agent, LatentActor, Standardizer
from smac_core.commands.evaluate import data_scores
from smac_core.data.dataset import TaskData
from smac_core.errors import InputError
from smac_core.evaluation import interval, meta_test
from smac_core.networks import Gaussian
from smac_core.tasks import load_tasks
from smac_core.training.rollout import rollout

HORIZON = 20


class Telepath(Agent):
    """Walks to the angle z; the prior's is 0, the posterior's is read off the true rewards."""

    def __init__(self, config):
        super().__init__(2, 2, config.networks)
        self.contexts = []

    def infer(self, observations, actions, rewards, present=None):
        self.contexts.append((observations, actions, rewards))
        grid = torch.linspace(0, np.pi, 200)
        goals = torch.stack([grid.cos(), grid.sin()], -1)
        # a reward is minus the distance after the step
        after = observations + 0.1 * actions.clamp(-1, 1)
        distance = (after[:, None] - goals[:, None]).norm(dim=-1)
        best = ((distance + rewards[:, None]) ** 2).mean(-1).argmin(-1)
        mean = grid[best].unsqueeze(-1).expand(-1, self.latent_dim)
        return Gaussian(mean, torch.full_like(mean, 1e-12))

    def prior(self, *shape):
        mean = torch.zeros(*shape, self.latent_dim)
        return Gaussian(mean, torch.full_like(mean, 1e-12))

    def act(self, observations, z, *, deterministic, generator=None):
        goal = torch.stack([z[:, 0].cos(), z[:, 0].sin()], -1)
        return ((goal - observations) / 0.1).clamp(-1, 1)


def test_protocol_explores_infers_and_scores_the_last_episode(config, pool):
    agent, tasks = Telepath(config), load_tasks(config.tasks.test)
    taken = []
    result = meta_test(
        pool,
        agent,
        tasks,
        config.evaluation,
        horizon=HORIZON,
        context="online",
        advance=taken.append,
    )
    repeats = config.evaluation.repeats
    assert sum(taken) == len(tasks) * repeats * 3 * HORIZON
    # exploration walks along x to (1, 0) and waits there: minus the distances to the goal
    x = np.minimum(0.1 * np.arange(1, HORIZON + 1), 1.0)
    for task, explored in zip(tasks, result.exploration_returns, strict=True):
        goal = np.array([np.cos(task["angle"]), np.sin(task["angle"])])
        expected = -np.hypot(x - goal[0], goal[1]).sum()
        np.testing.assert_allclose(explored, expected, rtol=1e-4)
    # the last episode walks to the goal: .9 + .8 + ... + .1 and a detour, since axes are clipped
    assert result.success.all()
    assert (result.returns > -7).all()
    observations, actions, rewards = agent.contexts[0]
    assert observations.shape == (len(tasks) * repeats, 2 * HORIZON, 2)
    torch.testing.assert_close(rewards[:, 0], rewards[:, HORIZON])  # two equal explorations
    assert result.returns.shape == (len(tasks), repeats)
    assert result.trajectories.observations.shape == (len(tasks) * repeats, HORIZON, 2)


@pytest.mark.parametrize("explores", [True, False])
def test_only_exploration_may_sample_actions(config, pool, explores):
    seen = []

    class Recording(Telepath):
        def act(self, observations, z, *, deterministic, generator=None):
            seen.append(deterministic)
            return super().act(observations, z, deterministic=deterministic)

    settings = config.evaluation.model_copy(update={"deterministic_exploration": explores})
    tasks = load_tasks(config.tasks.test)
    more = {"horizon": HORIZON, "context": "online"}
    result = meta_test(pool, Recording(config), tasks, settings, **more)
    assert seen == [explores] * 2 * HORIZON + [True] * HORIZON
    assert config.evaluation.deterministic_exploration
    explored = sum(episode.returns.view(len(tasks), -1) for episode in result.explorations)
    np.testing.assert_allclose(explored / 2, result.exploration_returns, rtol=1e-5)


def test_offline_context_has_as_many_transitions(config, pool, dataset):
    agent, tasks = Telepath(config), load_tasks(config.tasks.test)
    result = meta_test(
        pool,
        agent,
        tasks,
        config.evaluation,
        horizon=HORIZON,
        context="offline",
        offline=dataset.test,
    )
    assert agent.contexts[0][0].shape[1] == 2 * HORIZON
    assert result.success.all()
    with pytest.raises(ValueError, match="needs each task's offline data"):
        meta_test(pool, agent, tasks, config.evaluation, horizon=HORIZON, context="offline")


def test_no_context_is_one_z_of_the_prior(config, pool):
    agent, tasks, taken = Telepath(config), load_tasks(config.tasks.test), []
    settings = config.evaluation.model_copy(update={"posterior_latent": "mean"})
    more = {"horizon": HORIZON, "context": "none", "advance": taken.append}
    result = meta_test(pool, agent, tasks, settings, **more)
    assert not agent.contexts and not result.explorations
    assert sum(taken) == len(tasks) * settings.repeats * HORIZON
    # z = 0 is an angle of 0: every episode walks along x to (1, 0) and waits there
    x = np.minimum(0.1 * np.arange(1, HORIZON + 1), 1.0)
    for task, found in zip(tasks, result.returns, strict=True):
        goal = np.array([np.cos(task["angle"]), np.sin(task["angle"])])
        np.testing.assert_allclose(found, -np.hypot(x - goal[0], goal[1]).sum(), rtol=1e-4)
    summary = result.summary()
    assert summary["exploration_return"] is None and summary["kl"] is None


def test_more_episodes_than_environments(config, pool):
    agent = Agent(2, 2, config.networks)
    tasks = load_tasks(config.tasks.test) * 5  # 50 episodes, 20 environments
    z = torch.zeros(50, agent.latent_dim)
    found = rollout(pool, LatentActor(agent, z, deterministic=True), tasks, horizon=HORIZON)
    assert found.present.all()
    np.testing.assert_allclose(found.rewards[:10], found.rewards[40:], rtol=1e-5)
    torch.testing.assert_close(found.observations[:, 1:], found.next_observations[:, :-1])


def test_intervals_by_hand():
    # Student's t at 97.5 %: 2.776 for 4 degrees of freedom, 2.262 for 9, 2.001 for 59
    for count, t in ((5, 2.776), (10, 2.262), (60, 2.001)):
        values = np.resize([1.0, 3.0], count)
        found = interval(values)
        assert found["mean"] == values.mean()
        expected = t * values.std(ddof=1) / np.sqrt(count)
        assert found["half_width_95"] == pytest.approx(expected, rel=0.01)
    assert interval(np.array([4.0])) == {"mean": 4.0, "half_width_95": None}


def test_data_scores_count_the_first_steps():
    def trajectory(rewards):
        count = len(rewards)
        timeouts = np.zeros(count, bool)
        timeouts[-1] = True
        zeros = np.zeros((count, 2), np.float32)
        return zeros, zeros, np.array(rewards, np.float32), zeros, ~timeouts & False, timeouts

    data = TaskData(*trajectory([-1, -1, 0, 0]), task={"behavior": "reach"}, split="test")
    assert data_scores([data], 3)["return"]["mean"] == -2
    assert data_scores([data], 3)["success"]["mean"] == 1
    assert data_scores([data], 2)["success"]["mean"] == 0
    assert data_scores([data], 2)["by_behavior"]["reach"]["tasks"] == 1
    two = [np.concatenate([part] * 2) for part in trajectory([-1, -1, 0, 0])]
    two[2][:2] = -9  # of the first trajectory, whose beginning is not there
    late = TaskData(*two, split="test", cut=(True, False))
    assert data_scores([late], 4)["return"]["mean"] == -2
    none = replace(data, cut=(False, True))
    assert data_scores([late, none], 4)["tasks"] == 1
    with pytest.raises(InputError, match="none that is whole"):
        data_scores([none], 4)


def test_standardizer_limits_what_it_has_not_seen():
    standardizer = Standardizer(2)
    raw = torch.tensor([[5.0, 1e9]])
    torch.testing.assert_close(standardizer(raw), raw)
    standardizer.fit([np.array([[0.0, 1.0], [2.0, 1.0]], np.float32)], "deviation")
    # mean (1, 1), deviation (1, floor .01)
    torch.testing.assert_close(
        standardizer(torch.tensor([[2.0, 1.05]])), torch.tensor([[1.0, 5.0]])
    )
    assert standardizer(raw)[0, 1] == 10


def test_standardizing_by_movement_magnifies_what_differs_between_scenes():
    standardizer = Standardizer(1)
    # two scenes 2 apart (deviation sqrt(1 + .01)); within each it moves by +-.1
    scenes = [np.array([[c - 0.1], [c + 0.1]], np.float32) for c in (0.0, 2.0)]
    standardizer.fit(scenes, "movement")
    assert standardizer.deviation.item() == pytest.approx((1.01**0.5 * 0.1) ** 0.5, rel=1e-5)
