"""The phases of a run by name: the offline one, and those that start from its last checkpoint.

``self_supervised`` (algorithm 1), ``control`` (as many further updates, no new data),
``true_rewards`` (the environment's rewards instead of the decoder's), ``test_scenes`` (practice in
held-out scenes) and ``test_scenes_true_rewards`` (both: figure 8's oracle).
"""

ONLINE = "online"  # the one phase of PEARL, which learns from its own practice with true rewards
PHASES = (
    "offline",
    "self_supervised",
    "control",
    "true_rewards",
    "test_scenes",
    "test_scenes_true_rewards",
)


def in_test_scenes(phase: str) -> bool:
    """Whether a phase practises in the held-out tasks' scenes."""
    return phase.startswith("test_scenes")


def has_true_rewards(phase: str) -> bool:
    """Whether a phase's practice is labelled by the environment."""
    return phase.endswith("true_rewards")


def trains_on_test_tasks(phase: str) -> bool:
    """Whether the held-out tasks have buffers of their own: their true rewards fit no other's."""
    return in_test_scenes(phase) and has_true_rewards(phase)
