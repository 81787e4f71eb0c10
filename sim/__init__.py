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
for _name, _module, _class in (
    ("CheetahVel", "cheetah_velocity", "CheetahVelocity"),
    ("AntDir", "ant_direction", "AntDirection"),
    ("HumanoidDir", "humanoid_direction", "HumanoidDirection"),
    ("WalkerParam", "walker_params", "WalkerParams"),
    ("HopperParam", "hopper_params", "HopperParams"),
):
    ENVIRONMENTS[f"smac/{_name}-v0"] = {
        "entry_point": f"sim.mujoco.{_module}:{_class}Env",
        "vector_entry_point": f"sim.mujoco.{_module}:{_class}VectorEnv",
        "max_episode_steps": 200,  # Pong et al., table 2
    }

for _name, _spec in ENVIRONMENTS.items():
    if _name not in gymnasium.registry:
        gymnasium.register(id=_name, **_spec)
