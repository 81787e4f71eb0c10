"""Labelled transitions a second."""

from typing import Any

import torch

from smac_core.agents.context import Agent
from smac_core.benchmarks.measurement import alternate, report
from smac_core.benchmarks.update import prepare
from smac_core.config import load_config
from smac_core.data.replay import Replay
from smac_core.data.trajectories import Trajectories
from smac_core.training.labelling import label

REFERENCE = "reference (one by one)"


def bench_label(
    scale: str, *, trajectories: int, steps: int, seconds: float, device: str
) -> dict[str, Any]:
    """A batch of trajectories at a scale's sizes, on random data, against a plain loop."""
    config = load_config("sawyer", scale)
    learner, replay = prepare(config, device)
    agent, context = learner.agent, config.self_supervised.labelling_context
    practised = _random_trajectories(agent, trajectories, steps)
    tasks = torch.arange(trajectories, device=device) % replay.tasks

    measured = alternate(
        {
            REFERENCE: lambda: label_one_by_one(agent, replay, practised, tasks, context),
            "in a batch": lambda: label(agent, replay, practised, tasks, context),
        },
        seconds,
        device,
    )
    each = trajectories * steps
    measured = {name: [each * rate for rate in rates] for name, rates in measured.items()}
    return report("label", "transitions/s", measured, REFERENCE) | {
        "scale": scale,
        "trajectories": trajectories,
        "steps": steps,
        "labelling_context": context,
        "observation_dim": agent.observation_dim,
        "action_dim": agent.action_dim,
    }


@torch.no_grad()
def label_one_by_one(
    agent: Agent,
    replay: Replay,
    trajectories: Trajectories,
    tasks: torch.Tensor,
    context: int,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Equation (4) as it is written: for each trajectory, draw a history and encode it; [E, H]."""
    rewards = []
    for number in range(len(tasks)):
        task = tasks[number : number + 1]
        history = replay.context.sample(task, context, generator, torch.zeros_like(task).bool())
        z = agent.encoder(history).sample(generator)
        one = [part[number : number + 1] for part in trajectories]
        one = Trajectories(*one)
        rewards.append(agent.label(one.observations, one.actions, z) * one.present)
    return torch.cat(rewards)


def _random_trajectories(agent: Agent, count: int, steps: int) -> Trajectories:
    """Whole episodes of random observations and actions."""
    device, shape = agent.device, (count, steps)
    observations = torch.randn(*shape, agent.observation_dim, device=device)
    actions = torch.rand(*shape, agent.action_dim, device=device) * 2 - 1
    zeros, present = torch.zeros(shape, device=device), torch.ones(shape, device=device).bool()
    following = observations.roll(-1, 1)
    return Trajectories(observations, actions, zeros, following, zeros, ~present, present)
