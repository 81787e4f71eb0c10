"""Simulated robots as Gymnasium environments, registered under ``smac/``.

Importing this package registers them and imports no simulator: Gymnasium loads an environment's
module when it is made, so ``gymnasium.make("sim:smac/Sawyer-v0")`` is all a user needs.
"""

import gymnasium

ENVIRONMENTS = {
    "smac/Sawyer-v0": {
        "entry_point": "sim.sawyer.environment:SawyerEnv",
        "max_episode_steps": 50,  # Pong et al., table 2; data collection asks for 75 itself
    },
}

for _name, _spec in ENVIRONMENTS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(id=_name, **_spec)
