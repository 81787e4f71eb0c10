"""What another algorithm than SMAC changes in a domain's configuration before it begins.

``own``: the domain's sections ``macaw`` and ``borel``, at scale ``paper`` the authors'
hyperparameters. ``matched``: SMAC's network sizes, learning rate and batch sizes in their place,
the rest as in ``own``. The paper ran both and reports the better (appendix C.3).
"""

from typing import Any

from smac_core.config import Config, override_config

PRESETS = ("own", "matched")
HAVE_PRESETS = ("macaw", "borel")


def configured(config: Config, algorithm: str, preset: str = "own") -> Config:
    """The configuration that an algorithm's run begins with."""
    if algorithm not in HAVE_PRESETS:
        return config
    changes = {"macaw": _macaw, "borel": _borel}[algorithm](config, preset == "matched")
    return override_config(config, [f"{key}={value}" for key, value in changes.items()])


def _macaw(config: Config, matched: bool) -> dict[str, Any]:
    changes: dict[str, Any] = {"offline.steps": config.macaw.steps}
    if config.execution.precision == "bfloat16":
        changes["execution.precision"] = "float32"  # it refuses the other
    if matched:
        updates = config.updates
        changes |= {
            "macaw.hidden": config.networks.policy_hidden,
            "macaw.policy_learning_rate": updates.learning_rate,
            "macaw.value_learning_rate": updates.learning_rate,
            "macaw.meta_batch": updates.meta_batch,
            "macaw.inner_batch": updates.rl_batch,
            "macaw.outer_batch": updates.rl_batch,
        }
    return changes


def _borel(config: Config, matched: bool) -> dict[str, Any]:
    changes: dict[str, Any] = {"offline.steps": config.borel.belief_steps + config.borel.steps}
    if matched:
        updates, networks = config.updates, config.networks
        changes |= {
            "borel.hidden": networks.policy_hidden,
            "borel.latent_dim": networks.latent_dim,
            "borel.decoder_hidden": networks.decoder_hidden,
            "borel.belief_learning_rate": updates.learning_rate,
            "borel.learning_rate": updates.learning_rate,
            "borel.meta_batch": updates.meta_batch,
            "borel.rl_batch": updates.rl_batch,
        }
    return changes
