"""Training phases, and the rollouts that feed them."""
