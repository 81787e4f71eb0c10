"""The MuJoCo domains: Gymnasium's interface, and definitions against numbers by hand."""

import copy

import gymnasium
import numpy as np
import pytest

pytest.importorskip("mujoco")

import mujoco
from gymnasium.utils.env_checker import check_env

import sim
from sim.mujoco.base import ASSETS, States
from sim.mujoco.cheetah_velocity import rewards as cheetah_rewards
from sim.mujoco.random_physics import ELEMENTS
from sim.mujoco.tasks import DOMAINS, make_domain

IDS = {
    "cheetah_velocity": "smac/CheetahVel-v0",
    "ant_direction": "smac/AntDir-v0",
    "humanoid_direction": "smac/HumanoidDir-v0",
    "walker_params": "smac/WalkerParam-v0",
    "hopper_params": "smac/HopperParam-v0",
}
SIZES = {  # observation, action
    "cheetah_velocity": (20, 6),
    "ant_direction": (27, 8),
    "humanoid_direction": (376, 17),
    "walker_params": (17, 6),
    "hopper_params": (11, 3),
}


def make(name, **options):
    return gymnasium.make(IDS[name], **options).unwrapped


def states(domain, qpos=(), qvel=(), derived=()):
    """One row: the model's own pose at rest, but for the first entries given."""
    row = States(
        domain.model.qpos0[None].copy(),
        np.zeros((1, domain.model.nv)),
        np.zeros((1, domain.derived_size)),
    )
    for array, values in zip(row, (qpos, qvel, derived), strict=True):
        array[0, : len(values)] = values
    return row


def reward(domain, task, before, after, action):
    control = domain.control(np.array([action]))
    return domain.reward(before, after, control, np.array([domain.goal(task)])).tolist()


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.filterwarnings("ignore:.*Box observation space:UserWarning")  # no bounds are known
def test_gymnasium_checker(name):
    check_env(make(name), skip_render_check=True)


def test_no_opengl_is_told_with_what_to_set(monkeypatch):
    """It was MuJoCo's traceback, which names no remedy."""

    def renderer(*_):
        raise mujoco.FatalError("no context")

    monkeypatch.setattr(mujoco, "Renderer", renderer)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    env = gymnasium.make(f"sim:{IDS['hopper_params']}", render_mode="rgb_array")
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.Error, match="no context .MUJOCO_GL: egl.; expected a disp"):
        env.render()


@pytest.mark.parametrize("name", DOMAINS)
def test_registered_with_the_paper_s_horizon(name):
    assert sim.ENVIRONMENTS[IDS[name]]["max_episode_steps"] == 200
    env = gymnasium.make(f"sim:{IDS[name]}", max_episode_steps=3)
    env.reset(seed=0)
    steps = [env.step(np.zeros(SIZES[name][1]))[2:] for _ in range(3)]
    assert [truncated for _, truncated, _ in steps] == [False, False, True]
    assert not any(info.get("success") for _, _, info in steps)


@pytest.mark.parametrize("name", DOMAINS)
def test_sizes_names_and_units(name):
    env = make(name)
    domain, (observations, actions) = env.domain, SIZES[name]
    assert env.observation_space.shape == (observations,)
    assert env.action_space.shape == (actions,) == domain.model.actuator_gear[:, 0].shape
    for names, units, size in (
        (domain.observation_names, domain.observation_units, observations),
        (domain.action_names, domain.action_units, actions),
    ):
        assert len(names) == len(set(names)) == len(units) == size
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    torques = domain.control_limit * domain.model.actuator_gear[:, 0]
    assert list(domain.action_units) == [f"{torque:g} N m" for torque in torques]


def test_control_periods():
    periods = {name: make_domain(name).dt for name in DOMAINS}
    hundredths = {"cheetah_velocity": 0.05, "ant_direction": 0.05, "humanoid_direction": 0.015}
    assert periods == pytest.approx(hundredths | {"walker_params": 0.008, "hopper_params": 0.008})
    assert make("walker_params", frame_skip=5).dt == pytest.approx(0.01)
    with pytest.raises(ValueError, match="frame_skip: found 0"):
        make("walker_params", frame_skip=0)


# ---------------------------------------------------------------------------------------- rewards
def test_cheetah_reward_and_observation():
    domain = make_domain("cheetah_velocity")
    before, after = states(domain, qpos=[1.0]), states(domain, qpos=[1.1, -0.2, 0.3], qvel=[4, 5])
    # 0.1 m in 0.05 s is 2 m/s, 0.5 too slow; 0.05 * (1 + 0.25)
    result = reward(domain, {"velocity": 2.5}, before, after, [1, -0.5, 0, 0, 0, 0])
    assert result == pytest.approx([-0.5 - 0.0625])
    shown = dict(zip(domain.observation_names, domain.observe(after)[0], strict=True))
    expected = {"height": -0.2, "pitch": 0.3, "velocity_x": 4, "velocity_z": 5}
    expected |= {"torso_x": 1.1, "torso_y": 0, "torso_z": 0.5}
    assert shown == pytest.approx(dict.fromkeys(shown, 0.0) | expected)
    assert not domain.terminated(states(domain, qpos=[0, -5, 9])).any()


def test_cheetah_rewards_of_any_task_from_float32_observations():
    """What reward relabelling does: another task's steps, paid as this one."""
    env, tasks = make("cheetah_velocity"), [{"velocity": 1.7}, {"velocity": 0.4}]
    paid, steps = [], []
    for task in tasks:  # the same motion, paid by either
        before, _ = env.reset(seed=1, options={"task": task})
        rng = np.random.default_rng(2)
        for _ in range(20):
            action = rng.uniform(-1.5, 1.5, 6)  # clipped by the robot
            after, reward_, *_ = env.step(action)
            steps.append((before, action, after))
            paid.append(reward_)
            before = after
    before, actions, after = (np.array(column[:20]) for column in zip(*steps, strict=True))
    along_x = np.eye(20)[17]
    for start in (0.0, 30.0):  # m; far out float32 is coarser
        moved = (before + start * along_x, actions, after + start * along_x)
        shown = [array.astype(np.float32) for array in moved]
        for task, expected in zip(tasks, (paid[:20], paid[20:]), strict=True):
            np.testing.assert_allclose(cheetah_rewards(*shown, task), expected, atol=1e-4)


def test_cheetah_s_torso_is_mujoco_s():
    env = make("cheetah_velocity")
    env.reset(seed=0)
    for _ in range(5):
        observation = env.step(env.action_space.sample())[0]
    mujoco.mj_kinematics(env.model, env.data)
    assert observation[17:] == pytest.approx(env.data.body("torso").xpos, abs=1e-6)


def test_ant_reward_and_end():
    domain = make_domain("ant_direction")
    before = states(domain)
    after = states(domain, qpos=[0.05, 0.1], derived=[2.0, -0.5])
    # (1, 2) m/s; towards y 2, + 1, - 0.5 * (1 + 0.25), - 0.5e-3 * (1 + 0.25)
    action = [1, 0, 0, -0.5, 0, 0, 0, 0]
    result = reward(domain, {"direction": 90.0}, before, after, action)
    assert result == pytest.approx([2 + 1 - 0.625 - 0.000625])
    backwards = reward(domain, {"direction": 180.0}, before, after, [0] * 8)
    assert backwards == pytest.approx([-1 + 1 - 0.000625])
    ends = [domain.terminated(states(domain, [0, 0, z]))[0] for z in (0.19, 0.2, 1.0, 1.01)]
    assert ends == [True, False, False, True]


def test_ant_s_observations():
    qpos, qvel = np.arange(15.0), 100 + np.arange(14.0)
    both = {}
    for kind in ("code", "paper"):
        domain = make_domain("ant_direction", observation=kind)
        both[kind] = domain.observe(states(domain, qpos, qvel))[0].tolist()
        assert len(domain.observation_names) == len(domain.observation_units) == len(both[kind])
    assert both["code"] == [*qpos[2:], *qvel]
    assert both["paper"] == [*qpos[3:], *qvel[6:]]  # quaternion, angles, their velocities: 20
    assert make("ant_direction", observation="paper").observation_space.shape == (20,)
    with pytest.raises(ValueError, match="observation: found 'both'"):
        make_domain("ant_direction", observation="both")


def test_humanoid_reward_and_end():
    domain = make_domain("humanoid_direction")
    before = states(domain, derived=[0.3, 0.1])  # centre of mass
    after = states(domain, derived=[0.3, 0.13])
    after.derived[0, -3:] = [1000, 2000, 0]
    # 2 m/s towards y; controls 0.4 and 0.2; 0.5e-6 * 5e6
    action = [1.0, 0.5] + [0] * 15
    result = reward(domain, {"direction": 90.0}, before, after, action)
    assert result == pytest.approx([1.25 * 2 + 5 - 0.1 * (0.16 + 0.04) - 2.5])
    after.derived[0, -1] = 1e6
    hit = reward(domain, {"direction": 0.0}, before, after, [0] * 17)
    assert hit == pytest.approx([5 - 10])  # at most 10
    ends = [domain.terminated(states(domain, [0, 0, z]))[0] for z in (0.99, 1.0, 2.0, 2.01)]
    assert ends == [True, False, False, True]


def test_humanoid_observes_what_mujoco_computes():
    env = make("humanoid_direction")
    observation, _ = env.reset(seed=0)
    for _ in range(8):
        observation = env.step(0.3 * env.action_space.sample())[0]
    model, data = env.model, env.data
    parts = (data.qpos[2:], data.qvel, data.cinert, data.cvel, data.qfrc_actuator, data.cfrc_ext)
    assert observation == pytest.approx(np.concatenate([p.ravel() for p in parts]), rel=1e-5)
    centre = model.body_mass @ data.xipos / model.body_mass.sum()
    assert env._states.derived[0, :2] == pytest.approx(centre[:2])
    named = dict(zip(env.domain.observation_names, observation, strict=True))
    assert named["inertia_torso_mass"] == pytest.approx(model.body_mass[1])
    assert named["contact_world_z"] == 0


@pytest.mark.parametrize("name", ["walker_params", "hopper_params"])
def test_runners_reward_and_clipped_velocities(name):
    domain = make_domain(name)
    before, after = states(domain), states(domain, qpos=[0.024, 1.1, 0.1], qvel=[-30, 4, 12])
    action = [1, -0.5] + [0] * (domain.model.nu - 2)
    # 0.024 m in 0.008 s
    assert reward(domain, {}, before, after, action) == pytest.approx([3 + 1 - 0.00125])
    shown = domain.observe(after)[0]
    assert shown[:2].tolist() == [1.1, 0.1]
    assert shown[domain.model.nq - 1 :][:3].tolist() == [-10, 4, 10]


def test_runners_ends():
    walker, hopper = make_domain("walker_params"), make_domain("hopper_params")

    def ends(domain, height, pitch, velocity=0.0):
        return bool(domain.terminated(states(domain, [0, height, pitch], [velocity]))[0])

    inside = [(0.81, 0.0), (1.99, 0.0), (1.2, 0.99), (1.2, -0.99)]
    outside = [(0.8, 0.0), (2.0, 0.0), (1.2, 1.0), (1.2, -1.0)]
    assert [ends(walker, *place) for place in inside + outside] == [False] * 4 + [True] * 4
    inside = [(0.71, 0.0), (9.0, 0.0), (1.2, 0.19), (1.2, 0.0, 99.0)]
    outside = [(0.7, 0.0), (1.2, 0.2), (1.2, -0.2), (1.2, 0.0, -100.0)]
    assert [ends(hopper, *place) for place in inside + outside] == [False] * 4 + [True] * 4


# ---------------------------------------------------------------------------------------- physics
def arrays(model):
    """All of a model's numbers, by name."""
    fields = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    return {name: value.copy() for name, value in fields.items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("name", DOMAINS)
def test_models_are_gymnasium_s(name, tmp_path, monkeypatch):
    """To the last bit, though the Cheetah's total mass is set by other means."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a warning about those here
    domain = make_domain(name)
    model = mujoco.MjModel.from_xml_path(str(ASSETS / domain.MODEL))
    ours, theirs = arrays(domain.model), arrays(model)
    assert ours.keys() == theirs.keys() and len(ours) > 100
    assert [key for key in ours if ours[key].tobytes() != theirs[key].tobytes()] == []
    assert domain.model.stat.meaninertia == pytest.approx(model.stat.meaninertia)


@pytest.mark.parametrize(
    "name,theirs",
    [
        ("ant_direction", "Ant-v5"),
        ("humanoid_direction", "Humanoid-v5"),
        ("hopper_params", "Hopper-v5"),
    ],
)
def test_robots_move_as_gymnasium_s_do(name, theirs):
    """Though the solver starts every step without a guess."""
    one, other = make(name), gymnasium.make(theirs).unwrapped
    one.reset(seed=1, options={"task": {}} if name == "hopper_params" else None)
    other.reset(seed=1)
    other.set_state(one.data.qpos.copy(), one.data.qvel.copy())
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = rng.uniform(-1, 1, SIZES[name][1])
        one.step(action)
        other.step(action * one.domain.control_limit)
    assert one.data.qpos == pytest.approx(other.data.qpos, abs=1e-6)
    assert one.data.qvel == pytest.approx(other.data.qvel, abs=1e-4)


@pytest.mark.parametrize("name", ["ant_direction", "humanoid_direction"])
def test_contacts_carry_the_weight(name):
    """Without a sensor MuJoCo leaves these forces at 0, as they were for the authors."""
    env = make(name)
    env.reset(seed=0)
    for _ in range(100):
        env.step(np.zeros(env.action_space.shape))
    weight = env.model.body_mass.sum() * 9.81
    assert env.data.cfrc_ext[:, 5].sum() == pytest.approx(weight, rel=0.05)


def test_without_contact_forces_contacts_cost_nothing():
    rewards = []
    for contact_forces in (True, False):
        env = make("ant_direction", contact_forces=contact_forces)
        env.reset(seed=0, options={"task": {"direction": 0.0}})
        rewards.append([env.step(np.full(8, 0.1))[1] for _ in range(30)])
    difference = np.subtract(*rewards)
    assert (difference <= 1e-12).all() and -0.039 <= difference.min() < -1e-4  # 78 forces at most


def test_gear():
    assert (make("ant_direction").model.actuator_gear[:, 0] == 150).all()
    assert (make("ant_direction", gear=30.0).model.actuator_gear[:, 0] == 30).all()
    assert make_domain("ant_direction", gear=30.0).action_units[0] == "30 N m"


@pytest.mark.parametrize("name,count", [("walker_params", 65), ("hopper_params", 41)])
def test_factors_are_one_an_element_and_independent(name, count):
    domain = make_domain(name)
    rng = np.random.RandomState(0)
    tasks = [domain.sample_task(rng) for _ in range(300)]
    flat = {key: np.array([np.ravel(task[key]) for task in tasks]) for key in ELEMENTS}
    assert sum(array.shape[1] for array in flat.values()) == count
    for key, array in flat.items():
        base = 1.3 if key == "dof_damping" else 1.5
        exponents = np.log(array) / np.log(base)
        assert np.abs(exponents).max() <= 3 + 1e-4
        assert exponents.std() == pytest.approx(np.sqrt(3), rel=0.05)  # uniform over 6
    correlation = np.corrcoef(np.log(np.hstack(list(flat.values()))).T) - np.eye(count)
    assert np.abs(correlation).max() < 0.3  # 300 draws: 0.06 is one standard deviation
    wide = make_domain(name, damping_base=1.5).sample_task(np.random.RandomState(0))
    first = tasks[0]
    assert wide["body_mass"] == first["body_mass"]
    exponent = np.log(wide["dof_damping"]) / np.log(1.5)
    assert exponent == pytest.approx(np.log(first["dof_damping"]) / np.log(1.3), abs=1e-4)


@pytest.mark.parametrize("name", ["walker_params", "hopper_params"])
def test_a_task_multiplies_its_elements_and_the_next_restores_them(name):
    env = make(name)
    env.reset(options={"task": {}})
    nominal = arrays(env.model)
    task = env.domain.sample_task(np.random.default_rng(0))
    env.reset(options={"task": task})
    for key, value in arrays(env.model).items():
        expected = nominal[key] * np.array(task[key]) if key in ELEMENTS else nominal[key]
        assert np.array_equal(value, expected), key
    env.reset(options={"task": {"dof_damping": [2.0] * env.model.nv}})
    for key, value in arrays(env.model).items():
        factor = 2.0 if key == "dof_damping" else 1.0
        assert np.array_equal(value, factor * nominal[key]), key
    assert np.array_equal(make(name).model.body_mass, nominal["body_mass"])


# -------------------------------------------------------------------------------------- episodes
def rollout(env, task, seed, actions):
    observations = [env.reset(seed=seed, options={"task": task})[0]]
    return np.array(observations + [env.step(action)[0] for action in actions])


@pytest.mark.parametrize("name", DOMAINS)
def test_same_seed_task_and_actions_same_episode_whatever_came_before(name):
    env = make(name)
    rng = np.random.default_rng(1)
    tasks = [env.domain.sample_task(rng) for _ in range(2)]
    actions = rng.uniform(-1, 1, (20, SIZES[name][1]))
    first = rollout(env, tasks[0], 3, actions)
    other = rollout(env, tasks[1], 4, actions[::-1])
    assert np.array_equal(rollout(env, tasks[0], 3, actions), first)
    assert np.array_equal(rollout(make(name), tasks[0], 3, actions), first)
    assert not np.array_equal(other[0], first[0])


def test_reset_keeps_the_present_task_and_else_draws_one():
    env = make("ant_direction")
    env.reset(seed=5)
    drawn = copy.deepcopy(env.task)
    env.reset()
    assert env.task == drawn
    given = {"direction": 20}
    env.reset(options={"task": given})
    given["direction"] = 30
    assert env.task == {"direction": 20}
    with pytest.raises(ValueError, match="speed"):
        env.reset(options={"speed": 1})
    runner = make("hopper_params")
    runner.reset(options={"task": {}})  # the unmodified model
    runner.reset()
    assert runner.task == {}


def test_start_of_a_free_body_is_a_rotation():
    for name in ("ant_direction", "humanoid_direction"):
        observation, _ = make(name).reset(seed=2)
        assert np.linalg.norm(observation[1:5]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("action", [[0] * 3, [[0] * 6], [0, np.nan, 0, 0, 0, 0]])
def test_bad_actions_are_refused(action):
    env = make("cheetah_velocity")
    with pytest.raises(RuntimeError, match="reset"):
        env.step([0] * 6)
    env.reset(seed=0)
    before = env.data.qpos.copy()
    with pytest.raises(ValueError, match="action: found"):
        env.step(action)
    assert np.array_equal(env.data.qpos, before)


def test_actions_beyond_one_are_clipped():
    env, task = make("humanoid_direction"), {"direction": 0.0}
    large = rollout(env, task, 0, [[3.0, -9.0] + [0] * 15] * 3)
    assert np.array_equal(large, rollout(env, task, 0, [[1.0, -1.0] + [0] * 15] * 3))
    assert env.data.ctrl[:2].tolist() == [0.4, -0.4]


def test_a_simulation_that_diverges_ends_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning here
    env = make("cheetah_velocity")
    before, _ = env.reset(seed=0, options={"task": {"velocity": 1.0}})
    start = env.data.qpos.copy()
    env.data.qvel[3] = 1e12
    observation, value, terminated, *_ = env.step(np.zeros(6))
    assert terminated and value == -1.0 and np.array_equal(observation, before)
    assert np.array_equal(env.data.qpos, start)  # which a picture, or a robot's topics, show
    again, _ = env.reset(seed=0)
    assert np.array_equal(again, before) and not env.step(np.zeros(6))[2]


def test_forces_are_those_of_the_observation_where_a_simulation_diverges(tmp_path, monkeypatch):
    """A robot's topics show MuJoCo's data, which followed from the control before."""
    monkeypatch.chdir(tmp_path)
    env = make("humanoid_direction")
    env.reset(seed=0, options={"task": {"direction": 0.0}})
    before = env.step(np.full(17, 0.5))[0]
    env.data.qvel[3] = 1e12
    observation, _, terminated, *_ = env.step(np.full(17, -0.5))
    assert terminated and np.array_equal(observation, before)
    forces = np.concatenate([env.data.qfrc_actuator, env.data.cfrc_ext.ravel()])
    assert forces.any() and np.array_equal(np.float32(forces), observation[-len(forces) :])
