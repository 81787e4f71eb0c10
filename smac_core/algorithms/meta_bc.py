"""Meta behaviour cloning (section 6): SMAC with its actor update replaced by log pi(a | s, z)."""

from torch import Tensor

from smac_core.algorithms.context_learner import ContextLearner, Sample
from smac_core.losses import Info, cloning_actor_loss


class MetaBC(ContextLearner):
    """Infers the task as SMAC does, and imitates the data; no critic, no self-supervised phase."""

    def offline_loss(self, sample: Sample) -> tuple[Tensor, Info]:
        z, inference_error, info = self.infer(sample)
        batch = sample.batch
        actor_error, actor_info = cloning_actor_loss(
            self.agent.policy(batch.observations, z),
            batch.actions,
            action_clamp=self.settings.action_clamp,
        )
        return inference_error + actor_error, info | actor_info
