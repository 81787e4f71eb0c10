"""One file per system: what trains (an algorithm), apart from what is deployed (the agent)."""

from smac_core.algorithms.learner import Learner
from smac_core.algorithms.meta_bc import MetaBC
from smac_core.algorithms.pearl import PEARL
from smac_core.algorithms.smac import SMAC

OFFLINE: dict[str, type[Learner]] = {"smac": SMAC, "meta_bc": MetaBC}  # learn from a dataset
ALGORITHMS = OFFLINE | {"pearl": PEARL}
