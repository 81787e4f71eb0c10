"""Labels from factors that were kept are those of a history encoded afresh."""

import pytest
import torch

from smac_core.agents.context import Agent
from smac_core.config import load_config
from smac_core.data.replay import Layout, Replay
from smac_core.data.trajectories import Trajectories
from smac_core.training.labelling import label

LAYOUT = Layout(3, 2)
SIZES = (40, 7, 25)  # offline transitions a task


@pytest.fixture
def agent() -> Agent:
    torch.manual_seed(0)
    return Agent(*LAYOUT, load_config("sawyer", "smoke").networks)


@pytest.fixture
def replay() -> Replay:
    rows = [torch.randn(size, LAYOUT.width) for size in SIZES]
    return Replay(LAYOUT, rows, online_capacity=20)


def trajectories(count: int) -> Trajectories:
    observations, actions = torch.randn(count, 6, 3), torch.randn(count, 6, 2).tanh()
    zeros, present = torch.zeros(count, 6), torch.ones(count, 6, dtype=torch.bool)
    present[0, 4:] = False
    return Trajectories(observations, actions, zeros, observations, zeros, ~present, present)


def afresh(agent, replay, practised, tasks, context, generator) -> torch.Tensor:
    """Equation (4) as it is written: draw histories, encode them, decode."""
    offline = torch.zeros(len(tasks), dtype=torch.bool)
    history = replay.context.sample(tasks, context, generator, from_online=offline)
    z = agent.encoder(history).sample(generator)
    with torch.no_grad():
        return agent.label(practised.observations, practised.actions, z) * practised.present


def same(agent: Agent, replay: Replay) -> bool:
    """Whether both ways label alike and draw the same random numbers."""
    practised, tasks = trajectories(4), torch.tensor([2, 0, 1, 0])
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    kept, fresh = (
        way(agent, replay, practised, tasks, 16, generator)
        for way, generator in zip((label, afresh), generators, strict=True)
    )
    assert not kept[0, 4:].any() and kept[1:].abs().min() > 0
    assert torch.equal(*(generator.get_state() for generator in generators))
    return torch.allclose(kept, fresh, atol=1e-6)


def test_labels_are_those_of_a_history_encoded_afresh(agent, replay):
    assert same(agent, replay)


def test_new_weights_are_noticed_however_they_came(agent, replay):
    assert same(agent, replay)
    last = list(agent.encoder.parameters())[-1]
    with torch.no_grad():
        last.add_(0.5)
    assert same(agent, replay)
    last.data.mul_(-1)  # leaves the tensor's version as it was
    assert same(agent, replay)
    agent.load_state_dict(Agent(*LAYOUT, load_config("sawyer", "smoke").networks).state_dict())
    assert same(agent, replay)


def test_practice_changes_no_history_that_labels(agent, replay):
    def labels() -> torch.Tensor:
        torch.manual_seed(2)
        return label(agent, replay, trajectories(1), torch.tensor([1]), 16)

    before = labels()
    for task in range(len(SIZES)):
        replay.append(task, torch.full((20, LAYOUT.width), 5.0), exploration=True)
    assert torch.equal(before, labels())
    assert same(agent, replay)


def test_each_replay_keeps_its_own_factors(agent, replay):
    other = Replay(LAYOUT, [torch.randn(30, LAYOUT.width) for _ in SIZES], online_capacity=20)
    assert same(agent, replay) and same(agent, other) and same(agent, replay)
