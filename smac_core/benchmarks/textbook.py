"""The reference of ``smac bench update``: SMAC's update without any of this library's care."""

from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional

from smac_core.config import Config

OBSERVATION_DIM, ACTION_DIM = 20, 8  # the sizes that the authors' code was measured at
TASKS, TRANSITIONS = 50, 2000


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
