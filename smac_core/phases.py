"""The phases of a run by name: the offline one, and those that start from its last checkpoint.

``self_supervised`` (algorithm 1), ``control`` (as many further updates, no new data),
``true_rewards`` (the environment's rewards instead of the decoder's) and ``test_scenes`` (practice
in held-out scenes).
"""

PHASES = ("offline", "self_supervised", "control", "true_rewards", "test_scenes")
