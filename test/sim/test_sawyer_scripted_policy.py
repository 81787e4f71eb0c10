"""The scripted policy succeeds when forced, and its mixed data has the paper's make-up."""

import numpy as np
import pytest

from sim.sawyer.behaviors import EIGHT, possible, success
from sim.sawyer.scripted_policy import ScriptedPolicy
from sim.sawyer.tasks import sample_task, task_set

STEPS = 75  # of an offline trajectory


def episode(env, task, seed, **kwargs):
    """Rewards (75,) and actions (75, 4) of one scripted trajectory."""
    observation, _ = env.reset(options={"task": task})
    policy = ScriptedPolicy(env, seed, **kwargs)
    policy.reset()
    rewards, actions = [], []
    for _ in range(STEPS):
        actions.append(policy.act(observation))
        observation, reward, _, _, _ = env.step(actions[-1])
        rewards.append(reward)
    return np.array(rewards), np.array(actions)


def forced_success(env, behavior, episodes):
    """Share of episodes in fresh tasks in which `behavior` succeeds at some step."""
    rng = np.random.default_rng(1)
    done = []
    while len(done) < episodes:
        task = sample_task(rng, EIGHT)
        if behavior in possible(task):
            task["behavior"] = behavior
            rewards, _ = episode(env, task, seed=len(done), behavior=behavior)
            done.append((rewards == 0).any())
    return np.mean(done)


@pytest.mark.parametrize("behavior", EIGHT)
def test_forced_behavior_succeeds(sawyer, behavior):
    assert forced_success(sawyer, behavior, 12) >= 10 / 12


@pytest.mark.slow
@pytest.mark.parametrize("behavior", EIGHT)
def test_forced_behavior_succeeds_in_sixty_episodes(sawyer, behavior):
    carried = ("move_lego", "move_object", "object_in_tray")
    assert forced_success(sawyer, behavior, 60) >= (0.85 if behavior in carried else 0.95)


def test_mixed_data_succeeds_about_half_the_time(sawyer):
    """Pong et al., section 6: 46 %. A policy that did nothing, or only the task, would show."""
    rewards = [episode(sawyer, task, seed)[0] for seed, task in enumerate(task_set())]
    assert 0.35 < np.mean(np.array(rewards) == 0) < 0.6


def test_same_seed_same_actions_and_noise_of_the_stated_size(sawyer, full_task):
    _, one = episode(sawyer, full_task(), seed=7)
    _, two = episode(sawyer, full_task(), seed=7)
    assert np.array_equal(one, two) and one.dtype == np.float32 and np.abs(one).max() <= 1
    assert not np.array_equal(one, episode(sawyer, full_task(), seed=8)[1])
    sawyer.reset(options={"task": full_task()})
    observation = np.array(sawyer.scene.observe())
    observation[:3] = (0.675, 0.0, -0.11)  # at the goal, where the noiseless action is small
    drawn = []
    for seed in range(200):
        policy = ScriptedPolicy(sawyer, seed, behavior="move_hand")
        drawn.append(policy.act(observation)[:3])
    assert np.std(drawn) == pytest.approx(0.1, rel=0.15)


def test_mixed_policy_does_what_is_possible_and_not_done(sawyer, full_task):
    """With everything on the table it does each of the three, in some order, in some episode."""
    seen = set()
    for seed in range(6):
        sawyer.reset(options={"task": full_task()})
        policy = ScriptedPolicy(sawyer, seed)
        observation = sawyer.scene.observe()
        for _ in range(STEPS):
            observation = sawyer.step(policy.act(observation))[0]
        final = sawyer.scene.observe()
        seen |= {name for name in EIGHT if success(name, full_task(), final)}
    assert {"open_handle_drawer", "open_button_drawer"} <= seen


def test_unknown_behavior_is_refused(sawyer):
    with pytest.raises(ValueError, match="'dance'.*move_hand"):
        ScriptedPolicy(sawyer, 0, behavior="dance")
