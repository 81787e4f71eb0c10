"""One file per system: what trains (an algorithm), apart from what is deployed (the agent)."""

from smac_core.algorithms.borel import BOReL
from smac_core.algorithms.learner import Learner
from smac_core.algorithms.macaw import MACAW
from smac_core.algorithms.meta_bc import MetaBC
from smac_core.algorithms.pearl import PEARL
from smac_core.algorithms.smac import SMAC

OFFLINE: dict[str, type[Learner]] = {  # learn from a dataset
    "smac": SMAC,
    "meta_bc": MetaBC,
    "macaw": MACAW,
    "borel": BOReL,
}
ALGORITHMS = OFFLINE | {"pearl": PEARL}
