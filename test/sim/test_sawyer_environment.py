"""The Gymnasium interface, repeatability, and what the scene does by itself."""

import subprocess
import sys

import gymnasium
import numpy as np
import pybullet
import pytest
from gymnasium.utils.env_checker import check_env

from sim.sawyer.environment import SawyerEnv
from sim.sawyer.scripted_policy import ScriptedPolicy
from sim.sawyer.tasks import task_set


def rollout(env, task, actions):
    """Observations (T + 1, 13) of `actions` (T, 4) from a reset to `task`."""
    observations = [env.reset(options={"task": task})[0]]
    return np.array(observations + [env.step(action)[0] for action in actions])


def test_importing_sim_loads_no_simulator():
    code = (
        "import sys, importlib, sim; importlib.reload(sim); "
        "import gymnasium; assert 'smac/Sawyer-v0' in gymnasium.registry; "
        "assert 'pybullet' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True)


def test_made_by_name_with_time_limit():
    for steps, kwargs in ((50, {}), (75, {"max_episode_steps": 75})):
        env = gymnasium.make("sim:smac/Sawyer-v0", **kwargs)
        env.reset(seed=0)
        for step in range(1, steps + 1):
            _, reward, terminated, truncated, info = env.step(np.zeros(4, np.float32))
            assert not terminated and truncated == (step == steps)
            assert reward == (0.0 if info["success"] else -1.0)
        env.close()


def test_gymnasium_checker():
    env = SawyerEnv()
    check_env(env, skip_render_check=True)
    assert env.observation_space.shape == (13,) and env.observation_space.dtype == np.float32
    env.close()


def test_seed_decides_the_sampled_task():
    tasks = []
    for seed in (3, 3, 4):
        env = SawyerEnv()
        env.reset(seed=seed)
        tasks.append(env.task)
        env.close()
    assert tasks[0] == tasks[1] != tasks[2]


def test_reset_without_a_task_keeps_the_present_one(sawyer, full_task):
    first, _ = sawyer.reset(options={"task": full_task(-1)})
    sawyer.step([1, 0, 0, 0])
    again, _ = sawyer.reset()
    assert sawyer.task == full_task(-1) and np.array_equal(first, again)
    with pytest.raises(ValueError, match="speed"):
        sawyer.reset(options={"speed": 2})


def test_absent_objects_read_zero(sawyer, full_task, empty_task):
    observation, _ = sawyer.reset(options={"task": empty_task})
    assert (observation[4:] == 0).all()
    observation, _ = sawyer.reset(options={"task": full_task()})
    expected = [0.6, -0.15, -0.356, 0.59, 0.125, -0.34, 0.6, -0.0125, -0.14]
    assert observation[4:] == pytest.approx(expected, abs=2e-3)
    observation, _ = sawyer.reset(options={"task": full_task(bottom_drawer={"open": True})})
    assert observation[7] == pytest.approx(0.59 + 0.156, abs=2e-3)
    assert observation[10] == pytest.approx(0.756)


@pytest.mark.parametrize("action", [[0] * 3, [[0] * 4], [0, np.nan, 0, 0], [np.inf, 0, 0, 0]])
def test_bad_actions_are_refused_and_change_nothing(sawyer, full_task, action):
    sawyer.reset(options={"task": full_task()})
    before = sawyer.scene.observe()
    with pytest.raises(ValueError, match="action: found"):
        sawyer.step(action)
    assert sawyer.scene.observe() == before


def test_actions_beyond_one_are_clipped(sawyer, full_task):
    ones = rollout(sawyer, full_task(), [[1, 1, -1, 1]] * 3)
    assert np.array_equal(ones, rollout(sawyer, full_task(), [[3, 9, -2, 1.5]] * 3))


def test_same_task_and_actions_same_observations_whatever_came_before():
    """To the last bit, against a fresh environment: left-over contact pairs once broke this."""
    tasks = task_set("eight", "train")[:6]
    fresh = []
    for task in tasks:
        env = SawyerEnv()
        actions = []
        observation = env.reset(options={"task": task})[0]
        policy = ScriptedPolicy(env, seed=5)
        policy.reset()
        for _ in range(60):
            actions.append(policy.act(observation))
            observation = env.step(actions[-1])[0]
        fresh.append((actions, rollout(env, task, actions)))
        env.close()
    env = SawyerEnv()
    rng = np.random.default_rng(0)
    for index in rng.integers(len(tasks), size=12):
        rollout(env, tasks[rng.integers(len(tasks))], rng.uniform(-1, 1, (rng.integers(30), 4)))
        actions, expected = fresh[index]
        assert np.array_equal(rollout(env, tasks[index], actions), expected)
    env.close()


def test_two_environments_in_one_process_do_not_interfere(full_task, empty_task):
    one, other = SawyerEnv(), SawyerEnv()
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 4))
    expected = rollout(one, full_task(), actions)
    observations = [one.reset(options={"task": full_task()})[0]]
    other.reset(options={"task": empty_task})
    for action in actions:
        other.step(-action)
        observations.append(one.step(action)[0])
    other.close()
    assert np.array_equal(observations, expected)
    assert np.array_equal(rollout(one, full_task(), actions), expected)
    one.close()
    one.close()  # twice does no harm


def press(env):
    """Press the button of the present task, by a noiseless script; observations on the way."""
    policy = ScriptedPolicy(env, seed=0, behavior="press_button", noise=0.0)
    observation = env.scene.observe()
    out = []
    for _ in range(40):
        observation = env.step(policy.act(observation))[0]
        out.append(observation)
    return np.array(out)


@pytest.mark.parametrize("side", [1, -1])
def test_button_opens_its_drawer_gradually(sawyer, full_task, side):
    """Over the following steps, where the authors' version hides hundreds of substeps."""
    sawyer.reset(options={"task": full_task(side, behavior="open_button_drawer")})
    seen = press(sawyer)
    drawer, button = seen[:, 10], seen[:, 12]
    pressed = int(np.argmax(button < -0.15))
    assert pressed > 0 and np.abs(drawer[:pressed] - 0.6).max() < 1e-3
    assert np.abs(np.diff(drawer)).max() < 0.02
    assert drawer[-1] == pytest.approx(0.756, abs=2e-3)
    assert np.abs(seen[-1, 7] - 0.59) > 0.1  # the lego block rides along
    assert button[-1] < -0.15  # and the button stays down


def test_pressing_leaves_an_open_drawer_open(sawyer, full_task):
    """Pins a flaw of the authors' version, where pressing shuts a drawer that should be open."""
    sawyer.reset(options={"task": full_task(bottom_drawer={"open": True})})
    seen = press(sawyer)
    assert seen[-1, 12] < -0.15 and np.abs(seen[:, 10] - 0.756).max() < 2e-3


def test_drawers_stay_where_they_are_left(sawyer, full_task):
    sawyer.reset(options={"task": full_task()})
    scene = sawyer.scene
    pybullet.resetJointState(scene.bodies["handle_drawer"], 0, 0.07, physicsClientId=scene.client)
    for _ in range(20):
        observation = sawyer.step([0, 0, 1, -1])[0]
    assert observation[11] == pytest.approx(-0.0125 - 0.07, abs=1e-3)


@pytest.mark.parametrize("lost", [(0.6, 0.35, -0.3), (0.97, 0.0, -0.3), (0.7, 0.0, -0.6)])
def test_lost_object_is_dropped_back_and_the_arm_homed(sawyer, full_task, lost):
    start, _ = sawyer.reset(options={"task": full_task()})
    for _ in range(4):
        sawyer.step([0, 0, -1, -1])  # comes near, which frees the object
    scene = sawyer.scene
    pybullet.resetBasePositionAndOrientation(
        scene.bodies["car"], lost, (0, 0, 0, 1), physicsClientId=scene.client
    )
    back = sawyer.step([0, 0, 0, -1])[0]
    assert back[:3] == pytest.approx(start[:3], abs=1e-3)
    assert back[4:6] == pytest.approx(start[4:6], abs=1e-3)
    assert 0.005 < back[6] - start[6] < 0.05
    for _ in range(10):
        settled = sawyer.step([0, 0, 0, -1])[0]
    assert settled[4:7] == pytest.approx(start[4:7], abs=3e-3)


def test_body_that_was_not_moved_waits_again(sawyer, full_task):
    """Its contacts cost a third of the physics; nothing but the hand could move it."""
    start, _ = sawyer.reset(options={"task": full_task()})
    scene = sawyer.scene
    for _ in range(2):
        sawyer.step([0, 0, -1, -1])
    assert "car" not in scene._waiting
    for action in [[0, 0, 1, -1]] * 3 + [[1, 1, 1, -1]] * 6:
        away = sawyer.step(action)[0]
    assert "car" in scene._waiting and np.array_equal(away[4:7], start[4:7])


def test_body_that_was_moved_stays_free(sawyer, full_task):
    sawyer.reset(options={"task": full_task()})
    scene = sawyer.scene
    for _ in range(2):
        sawyer.step([0, 0, -1, -1])
    (x, y, z), orientation = scene.pose("car")
    pybullet.resetBasePositionAndOrientation(
        scene.bodies["car"], (x + 0.001, y, z), orientation, physicsClientId=scene.client
    )
    for action in [[0, 0, 1, -1]] * 3 + [[1, 1, 1, -1]] * 6:
        sawyer.step(action)
    assert "car" not in scene._waiting
    assert scene.pose("car")[0] == pytest.approx((x + 0.001, y, z), abs=5e-4)


def test_the_arm_is_never_thrown(sawyer):
    """Pins a failure of Bullet's Dantzig solver, faster, which throws it in these steps."""
    rng = np.random.default_rng(5)
    for number, task in enumerate(task_set("eight", "train")):
        actions = rng.uniform(-1, 1, (40, 4))
        if number % 2:
            actions[:, 2] -= 0.4  # down into things
        observations = rollout(sawyer, task, actions)
        x, y, z, opening = observations[:, :4].T
        assert (np.abs(x - 0.68) < 0.23).all() and (np.abs(y) < 0.26).all()
        assert (np.abs(z + 0.235) < 0.185).all() and (np.abs(opening - 0.035) < 0.05).all()


def test_task_may_change_after_reset_without_harm(sawyer, full_task):
    task = full_task()
    sawyer.reset(options={"task": task})
    task["side"] = -1
    assert sawyer.task["side"] == 1


def test_pictures(full_task):
    env = SawyerEnv(render_mode="rgb_array", width=160, height=120)
    actions = np.random.default_rng(0).uniform(-1, 1, (10, 4))
    expected = rollout(env, full_task(), actions)
    env.reset(options={"task": full_task()})
    observations = []
    for action in actions:
        image = env.render()
        observations.append(env.step(action)[0])
    assert image.shape == (120, 160, 3) and image.dtype == np.uint8
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 100
    assert not np.array_equal(image, env.render())
    assert np.array_equal(observations, expected[1:])  # looking changes nothing
    env.close()


def test_window_without_a_display_is_refused(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("displays are found otherwise here")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match="no display.*rgb_array"):
        SawyerEnv(render_mode="human")
    with pytest.raises(ValueError, match="render_mode"):
        SawyerEnv(render_mode="video")
