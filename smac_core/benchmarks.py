"""``smac bench``: speed here, each figure beside a reference measured in the same run."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from smac_core.agent import Agent
from smac_core.algorithms import SMAC
from smac_core.config import Config, load_config
from smac_core.data.replay import Layout, Replay
from smac_core.tasks import load_tasks
from smac_core.training.environment_pool import EnvironmentPool, make_environment

ROUNDS = 5  # measurements of which the median counts
OBSERVATION_DIM, ACTION_DIM = 20, 8  # the sizes that the authors' code was measured at
TASKS, TRANSITIONS = 50, 2000


def bench_update(scale: str, *, seconds: float, device: str) -> dict[str, Any]:
    """Updates a second of both phases at a scale's sizes, on random data, and the reference's."""
    config = load_config("sawyer", scale)
    generator = torch.Generator(device).manual_seed(0)
    torch.manual_seed(0)
    agent = Agent(OBSERVATION_DIM, ACTION_DIM, config.networks).to(device)
    learner = SMAC(config, agent, generator)
    layout = Layout(OBSERVATION_DIM, ACTION_DIM)
    rows = torch.randn(TASKS, TRANSITIONS, layout.width)
    rows[..., OBSERVATION_DIM : OBSERVATION_DIM + ACTION_DIM].tanh_()
    rows[..., -1] = 0
    replay = Replay(layout, list(rows), 1000, device)
    for task in range(TASKS):
        replay.append(task, rows[task, :1000].to(device), exploration=True)
    reference = TextbookUpdate(config, rows.to(device))
    measured = alternate(
        {
            "reference (offline)": reference.update,
            "offline": lambda: learner.offline_update(replay),
            "self-supervised": lambda: learner.self_supervised_update(replay),
        },
        seconds,
        device,
    )
    return report("update", "updates/s", measured, "reference (offline)") | {
        "scale": scale,
        "sizes": config.updates.model_dump(mode="json") | config.networks.model_dump(mode="json"),
    }


def bench_env(domain: str, *, seconds: float) -> dict[str, Any]:
    """Steps a second of one environment and of pools, and resets, against plain engine stepping."""
    config = load_config(domain, "paper")
    environment, tasks = config.environment, load_tasks(config.tasks.train)
    env = make_environment(environment.id, environment.kwargs, 10**9)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (512, env.action_space.shape[0])).astype(np.float32)
    counter = iter(range(10**12))
    for task in tasks:
        env.reset(options={"task": task})

    def step() -> None:
        number = next(counter)
        if number % environment.horizon == 0:
            env.reset(options={"task": tasks[number // environment.horizon % len(tasks)]})
        env.step(actions[number % 512])

    def reset() -> None:
        env.reset(options={"task": tasks[next(counter) % len(tasks)]})

    measured = alternate({"one environment, steps": step, "resets": reset}, seconds, "cpu")
    env.close()
    for workers in (1, 2):
        size = 20
        with EnvironmentPool(
            environment.id, size, workers=workers, horizon=10**9, kwargs=environment.kwargs
        ) as pool:
            pool.reset(range(size), tasks[:size])
            everyone = np.arange(size)
            work = {
                f"pool of {workers} worker(s), steps": lambda p=pool, e=everyone: p.step(
                    e, actions[e]
                )
            }
            rates = alternate(work, seconds, "cpu")
        measured |= {name: [size * r for r in found] for name, found in rates.items()}
    return report("env", "1/s", measured, "one environment, steps") | {"domain": domain}


def alternate(
    work: dict[str, Callable[[], Any]], seconds: float, device: str
) -> dict[str, list[float]]:
    """Calls a second of each piece of work: ``ROUNDS`` rounds, taking turns, so that a change in
    the machine's load meets them all."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    rates: dict[str, list[float]] = {name: [] for name in work}
    for call in work.values():
        call()
    for _ in range(ROUNDS):
        for name, call in work.items():
            calls, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds / ROUNDS:
                call()
                calls += 1
            wait()
            rates[name].append(calls / (time.perf_counter() - began))
    return rates


def report(
    name: str, unit: str, measured: dict[str, list[float]], reference: str
) -> dict[str, Any]:
    """Medians, spreads and ratios, with what they were measured on."""
    medians = {key: statistics.median(values) for key, values in measured.items()}
    return {
        "benchmark": name,
        "unit": unit,
        "results": {
            key: {
                "median": round(medians[key], 2),
                "lowest": round(min(values), 2),
                "highest": round(max(values), 2),
                "ratio": round(medians[key] / medians[reference], 3),
            }
            for key, values in measured.items()
        },
        "reference": reference,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "threads": torch.get_num_threads(),
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def show(content: dict[str, Any]) -> None:
    """A report as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", f"median {content['unit']}", "lowest", "highest", "ratio")
    for name, row in content["results"].items():
        table.add_row(
            name, *(f"{row[key]:,.2f}" for key in ("median", "lowest", "highest", "ratio"))
        )
    Console().print(table)
    machine = content["machine"]
    print(f"{machine['cores']} cores, {machine['threads']} torch threads, GPU: {machine['gpu']}")


class TextbookUpdate:
    """SMAC's offline update as a textbook writes it: every pass on its own, one network after the
    other, nothing shared or fused. What ``bench update`` compares with."""

    def __init__(self, config: Config, rows: torch.Tensor):
        self.config, self.rows = config, rows
        networks, device = config.networks, rows.device
        ds, da, dz = OBSERVATION_DIM, ACTION_DIM, networks.latent_dim

        def network(inputs: int, hidden: list[int], outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for width in hidden:
                layers += [nn.Linear(inputs, width), nn.ReLU()]
                inputs = width
            return nn.Sequential(*layers, nn.Linear(inputs, outputs)).to(device)

        self.encoder = network(ds + da + 1, networks.encoder_hidden, 2 * dz)
        self.decoder = network(ds + da + dz, networks.decoder_hidden, 1)
        self.policy = network(ds + dz, networks.policy_hidden, 2 * da)
        self.critics = [network(ds + da + dz, networks.critic_hidden, 1) for _ in range(2)]
        self.targets = deepcopy(self.critics)
        rate = config.updates.learning_rate
        self.inference_optimizer = torch.optim.Adam(
            [*self.encoder.parameters(), *self.decoder.parameters()], lr=rate
        )
        self.policy_optimizer = torch.optim.Adam(self.policy.parameters(), lr=rate)
        self.critic_optimizers = [torch.optim.Adam(c.parameters(), lr=rate) for c in self.critics]

    def update(self) -> None:
        u, ds, da = self.config.updates, OBSERVATION_DIM, ACTION_DIM
        tasks = torch.randperm(TASKS)[: u.meta_batch].tolist()
        context = torch.stack([self._draw(t, u.context_batch) for t in tasks])[..., : ds + da + 1]
        batch = torch.stack([self._draw(t, u.rl_batch) for t in tasks])
        s, a, r, s2 = batch.split([ds, da, 1, ds + 1], -1)
        s2, done = s2.split([ds, 1], -1)

        mean, raw = self.encoder(context).chunk(2, -1)
        variance = functional.softplus(raw).clamp_min(1e-7)
        total = 1 / (1 / variance).sum(1)
        mu = total * (mean / variance).sum(1)
        z = mu + total.sqrt() * torch.randn_like(mu)
        tiled = z.unsqueeze(1).expand(-1, u.rl_batch, -1)
        error = functional.mse_loss(self.decoder(torch.cat([s, a, tiled], -1)), r)
        kl = 0.5 * (total + mu**2 - 1 - total.log()).sum(-1).mean()
        self._step(self.inference_optimizer, error + u.kl_weight * kl)
        tiled = tiled.detach()

        with torch.no_grad():
            a2 = self._distribution(s2, tiled).rsample().tanh()
            inputs = torch.cat([s2, a2, tiled], -1)
            value = torch.minimum(*(target(inputs) for target in self.targets))
            goal = u.reward_scale * r + u.discount * (1 - done) * value
        for critic, optimizer in zip(self.critics, self.critic_optimizers, strict=True):
            self._step(optimizer, functional.mse_loss(critic(torch.cat([s, a, tiled], -1)), goal))

        distribution = self._distribution(s, tiled)
        with torch.no_grad():
            sampled = distribution.sample().tanh()
            now = torch.minimum(*(c(torch.cat([s, a, tiled], -1)) for c in self.critics))
            then = torch.minimum(*(c(torch.cat([s, sampled, tiled], -1)) for c in self.critics))
            weight = ((now - then) / u.awac_temperature).flatten().softmax(0) * now.numel()
        clamped = a.clamp(-u.action_clamp, u.action_clamp)
        log_prob = distribution.log_prob(clamped.atanh()) - (1 - clamped**2).log()
        self._step(self.policy_optimizer, -(log_prob.sum(-1).flatten() * weight).mean())

        for critic, target in zip(self.critics, self.targets, strict=True):
            for p, t in zip(critic.parameters(), target.parameters(), strict=True):
                t.data.copy_((1 - u.target_rate) * t.data + u.target_rate * p.data)

    def _draw(self, task: int, count: int) -> torch.Tensor:
        return self.rows[task][torch.randint(TRANSITIONS, (count,), device=self.rows.device)]

    def _distribution(self, s: torch.Tensor, z: torch.Tensor) -> torch.distributions.Normal:
        mean, log_std = self.policy(torch.cat([s, z], -1)).chunk(2, -1)
        return torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())

    @staticmethod
    def _step(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
