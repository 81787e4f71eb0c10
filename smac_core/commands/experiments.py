"""What the paper compares: which methods there are, and which of them a figure shows.

A method is a phase of a run in a seed's folder. Several methods share a run (all that start from
SMAC's offline phase), so that a figure's runs serve the next one.
"""

from dataclasses import dataclass

from smac_core.config import Config, override_config
from smac_core.errors import InputError
from smac_core.figures import COLORS
from smac_core.phases import ONLINE
from smac_core.presets import configured

DATA_ROW = "data"  # the row of the offline data, which no method made


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    label: str
    run: str  # folder
    phase: str
    color: str
    algorithm: str = "smac"
    preset: str = "own"  # smac_core.presets
    actor: str = "awac"  # updates.actor
    evaluation: tuple[str, ...] = ()  # what its evaluation changes in the configuration

    def config(self, config: Config) -> Config:
        """The domain's configuration with what the method changes in it.

        SAC's entropy is that of the configuration; where it has none, PEARL's own, as large beside
        the rewards.
        """
        changes = [f"updates.actor={self.actor}"] if self.actor != "awac" else []
        if self.actor == "sac" and config.updates.entropy_coefficient == 0:
            changes.append(f"updates.entropy_coefficient={_entropy_of_pearl(config)}")
        return configured(override_config(config, changes), self.algorithm, self.preset)


def _entropy_of_pearl(config: Config) -> float:
    online, scale = config.online, config.updates.reward_scale
    return online.entropy_coefficient * scale / (online.reward_scale or scale) if online else 1.0


# BOReL's own protocol: a belief lives for two episodes, and the second one is scored
TWO_EPISODES = ("evaluation.exploration_episodes=1",)

METHODS = {
    "meta_bc": Method("meta-BC", "meta_bc", "offline", "#55a868", algorithm="meta_bc"),
    "offline": Method("SMAC, offline phase", "smac", "offline", COLORS["offline"]),
    "control": Method("control: no new data", "smac", "control", COLORS["control"]),
    "smac": Method(
        "SMAC, self-supervised", "smac", "self_supervised", COLORS["self_supervised"]
    ),
    "actor_ablation": Method(
        "SMAC (actor ablation)", "smac_actor_ablation", "self_supervised", "#4c72b0", actor="pearl"
    ),
    "sac_ablation": Method(
        "SMAC (SAC ablation)", "smac_sac_ablation", "self_supervised", "#8172b3", actor="sac"
    ),
    "true_rewards": Method(
        "SMAC, true rewards", "smac", "true_rewards", COLORS["true_rewards"]
    ),
    "macaw": Method("MACAW", "macaw", "offline", "#bc8f5f", algorithm="macaw"),
    "macaw_matched": Method(
        "MACAW, matched to SMAC",
        "macaw_matched",
        "offline",
        "#8c613c",
        algorithm="macaw",
        preset="matched",
    ),
    "borel": Method("BOReL", "borel", "offline", "#da8bc3", algorithm="borel"),
    "borel_matched": Method(
        "BOReL, matched to SMAC",
        "borel_matched",
        "offline",
        "#a05195",
        algorithm="borel",
        preset="matched",
    ),
    "borel_two_episodes": Method(
        "BOReL, its own protocol",
        "borel",
        "offline",
        "#e8b5dc",
        algorithm="borel",
        evaluation=TWO_EPISODES,
    ),
    "borel_matched_two_episodes": Method(
        "BOReL, matched, its own protocol",
        "borel_matched",
        "offline",
        "#c38dbb",
        algorithm="borel",
        preset="matched",
        evaluation=TWO_EPISODES,
    ),
    "test_scenes": Method(
        "SMAC, in the test scenes", "smac", "test_scenes", COLORS["test_scenes"]
    ),
    "test_scenes_true_rewards": Method(
        "true rewards, test scenes",
        "smac",
        "test_scenes_true_rewards",
        COLORS["test_scenes_true_rewards"],
    ),
    "oracle": Method("online oracle (PEARL)", "pearl", ONLINE, COLORS[ONLINE], algorithm="pearl"),
    # PEARL practises with one z a trajectory; all others, and the row above, as configured
    "oracle_trajectory": Method(
        "oracle, one z a trajectory",
        "pearl",
        ONLINE,
        "#7f7f7f",
        algorithm="pearl",
        evaluation=("evaluation.exploration_latent=trajectory",),
    ),
}
ORACLES = tuple(name for name, method in METHODS.items() if method.phase == ONLINE)
ONLINE_ONLY = (*ORACLES, *(n for n, m in METHODS.items() if m.evaluation == TWO_EPISODES))

# what is gained over what, task by task
PAIRS = [
    ("smac", "control"),
    ("smac", "offline"),
    ("smac", "actor_ablation"),
    ("smac", "sac_ablation"),
    ("smac", "test_scenes"),
    ("test_scenes", "control"),
    ("control", "offline"),
    ("true_rewards", "smac"),
    ("test_scenes_true_rewards", "test_scenes"),
    ("oracle", "smac"),
    ("oracle_trajectory", "smac"),
    ("offline", "meta_bc"),
    ("smac", "macaw"),
    ("smac", "macaw_matched"),
    ("smac", "borel"),
    ("smac", "borel_matched"),
]


@dataclass(frozen=True)
class Figure:
    """One of the paper's figures."""

    domain: str  # the paper's
    methods: tuple[str, ...]
    compares_contexts: bool = False  # also on training tasks, and from sampled exploration


FIGURES = {
    "fig2": Figure("ant_direction", ("offline", "smac"), compares_contexts=True),
    "fig5": Figure(
        "sawyer",
        (
            "meta_bc",
            "offline",
            "control",
            "smac",
            "actor_ablation",
            "sac_ablation",
            "true_rewards",
            "macaw",
            "macaw_matched",
            "borel",
            "borel_matched",
            "borel_two_episodes",
            "borel_matched_two_episodes",
            "oracle",
            "oracle_trajectory",
        ),
    ),
    "fig6": Figure("ant_direction", ("offline", "smac")),
    "fig7": Figure("ant_direction", ("offline", "smac")),
    "fig8": Figure("sawyer_eight", ("offline", "smac", "test_scenes", "test_scenes_true_rewards")),
}


def choose_methods(figure: str, names: str, config: Config) -> tuple[str, ...]:
    """The methods of a figure, or those ``names`` ("smac,meta_bc"), that a domain can have.

    Raises:
        InputError: a name that is none of the figure's; another actor than the methods' own, under
            whose names its results would go.
    """
    if config.updates.actor != "awac":
        expected = "awac: actor_ablation and sac_ablation are methods of their own"
        raise InputError("--set or --domain", "updates.actor", config.updates.actor, expected)
    possible = FIGURES[figure].methods
    chosen = [name.strip() for name in names.split(",")] if names else list(possible)
    for name in chosen:
        if name not in possible:
            raise InputError("--methods", "name", name, f"some of {','.join(possible)}")
    oracles = [name for name in chosen if name in ORACLES]
    if config.online is None and oracles:
        if names:
            expected = "a section online in the domain's configuration: PEARL's schedule"
            raise InputError("--methods", oracles[0], f"none in {config.domain}", expected)
        chosen = [name for name in chosen if name not in ORACLES]
    return tuple(name for name in possible if name in chosen)
