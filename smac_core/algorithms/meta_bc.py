"""Meta behaviour cloning (section 6): SMAC with its actor update replaced by log pi(a | s, z)."""

from smac_core.algorithms.learner import Learner, step
from smac_core.data.replay import Replay
from smac_core.losses import Info, cloning_actor_loss


class MetaBC(Learner):
    """Infers the task as SMAC does, and imitates the data; no critic, no self-supervised phase."""

    def offline_update(self, replay: Replay) -> Info:
        context, batch = self.sample(replay)
        z, info = self.update_inference(context, batch)
        loss, actor_info = cloning_actor_loss(
            self.agent.policy, batch, z, action_clamp=self.settings.action_clamp
        )
        step(self.policy_optimizer, loss)
        return info | actor_info
