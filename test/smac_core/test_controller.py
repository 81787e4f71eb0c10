"""The controller against what it stands for: Agent.act and rollout, number for number."""


import numpy as np
import point_mass
import pytest
import torch

from smac_core.agents.context import Agent, LatentActor, choose
from smac_core.config import Networks
from smac_core.controller import Controller
from smac_core.training.environment_pool import EnvironmentPool
from smac_core.training.rollout import rollout

TASK = {"angle": 1.0}


def networks(**changes) -> Networks:
    sizes = {
        "latent_dim": 5,
        "policy_hidden": [300, 300, 300],
        "critic_hidden": [8],
        "encoder_hidden": [32, 32],
        "decoder_hidden": [8],
    }
    return Networks(
        **sizes | changes,
        encoder_scale="variance",
        encoder_prior_factor=False,
        standardize="deviation",
    )


def make_agent(ds: int, da: int, seed: int = 0, **changes) -> Agent:
    torch.manual_seed(seed)
    agent = Agent(ds, da, networks(**changes)).eval()
    rng = np.random.default_rng(seed)
    agent.standardizer.fit([rng.normal(1, 2, (50, ds)).astype(np.float32)], "deviation")
    return agent


def random_context(ds: int, da: int, seed: int, n: int = 20) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    shapes = ((n, ds), (n, da), (n,))
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


@pytest.fixture(scope="module")
def pool():
    with EnvironmentPool(
        "point_mass:smac_test/PointMass-v0", 1, workers=0, horizon=point_mass.HORIZON
    ) as pool:
        yield pool


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(
    ("mode", "latent"),
    [
        ("explore", "step"),
        ("explore", "trajectory"),
        ("adapt", "step"),
        ("exploit", "sample"),
        ("exploit", "mean"),
    ],
)
def test_acts_as_a_rollout_does(pool, mode, latent, deterministic):
    """As practise() and meta_test() draw: z, the environment's seed, then the steps."""
    agent = make_agent(2, 2, policy_hidden=[32, 32])
    controller = Controller(agent)
    controller.add(*random_context(2, 2, seed=3))
    generator = torch.Generator().manual_seed(11)
    z = None
    if latent == "trajectory":
        z = agent.prior(1).sample(generator)
    elif mode == "exploit":
        z = choose(controller.posterior, latent, generator)
    expected = rollout(
        pool,
        LatentActor(agent, z, deterministic=deterministic, generator=generator),
        [TASK],
        horizon=point_mass.HORIZON,
        generator=generator,
    )
    for _ in range(2):  # a second episode with the seed is the same: nothing is left of the first
        controller.begin(mode, seed=11, deterministic=deterministic, latent=latent)
        actions = [controller.act(observation) for observation in expected.observations[0].numpy()]
        np.testing.assert_array_equal(actions, expected.actions[0].numpy())


def test_the_environment_seed_is_the_one_that_rollout_draws():
    controller = Controller(make_agent(2, 2))
    controller.begin("explore", seed=5, deterministic=True, latent="step")
    generator = torch.Generator().manual_seed(5)
    assert controller.environment_seed == int(torch.randint(2**31 - 1, (1,), generator=generator))


@pytest.mark.parametrize(("ds", "da", "dz"), [(13, 4, 5), (27, 8, 5), (376, 17, 20)])
def test_is_the_agent_bit_for_bit(ds, da, dz):
    """Vectorised and scalar kernels round differently; sizes on both sides of their borders."""
    agent = make_agent(ds, da, latent_dim=dz)
    with torch.no_grad():
        agent.policy.body[-1].weight.mul_(30)  # reach both ends of the range of log_std
    controller = Controller(agent)
    rng = np.random.default_rng(0)
    observations = rng.normal(0, 8, (50, ds)).astype(np.float32)  # some beyond the standardiser
    for deterministic in (False, True):
        controller.begin("explore", seed=1, deterministic=deterministic, latent="step")
        generator = torch.Generator().manual_seed(1)
        torch.randint(2**31 - 1, (1,), generator=generator)
        for observation in observations:
            z = agent.prior(1).sample(generator)
            expected = agent.act(
                torch.from_numpy(observation)[None],
                z,
                deterministic=deterministic,
                generator=generator,
            )
            found = controller.act(observation)
            np.testing.assert_array_equal(found, expected[0].numpy())
            np.testing.assert_array_equal(controller.z, z[0].numpy())
            assert found.dtype == np.float32


def test_the_posterior_is_of_all_rows():
    agent = make_agent(3, 2)
    controller = Controller(agent)
    parts = [random_context(3, 2, seed, n) for seed, n in ((1, 4), (2, 7))]
    for part in parts:
        controller.add(*part)
    rows = [torch.from_numpy(np.concatenate(columns))[None] for columns in zip(*parts, strict=True)]
    for found, wanted in zip(controller.posterior, agent.infer(*rows), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert controller.context_trajectories == 2
    controller.forget()
    assert controller.context_trajectories == 0
    assert controller.posterior.mean.eq(0).all() and controller.posterior.variance.eq(1).all()


def test_exploiting_an_empty_context_is_exploring_with_one_z():
    controller = Controller(make_agent(3, 2))
    observation = np.ones(3, np.float32)
    actions = []
    for mode, latent in (("exploit", "sample"), ("explore", "trajectory")):
        controller.begin(mode, seed=2, deterministic=False, latent=latent)
        actions.append([controller.act(observation) for _ in range(3)])
    np.testing.assert_array_equal(*actions)


def test_newer_weights_keep_the_episode_and_the_context():
    old, new = make_agent(3, 2, seed=0), make_agent(3, 2, seed=1)
    controller = Controller(old)
    context = random_context(3, 2, seed=4)
    controller.add(*context)
    controller.begin("exploit", seed=0, deterministic=True, latent="sample")
    observation = np.ones(3, np.float32)
    controller.act(observation)
    z = controller.z
    controller.swap(new)
    np.testing.assert_array_equal(controller.z, z)
    expected = new.act(
        torch.from_numpy(observation)[None], torch.from_numpy(z)[None], deterministic=True
    )
    np.testing.assert_array_equal(controller.act(observation), expected[0].numpy())
    posterior = new.infer(*(torch.from_numpy(part)[None] for part in context))
    torch.testing.assert_close(controller.posterior.mean, posterior.mean, rtol=0, atol=0)


@pytest.mark.parametrize("changes", [{"policy_hidden": [300, 300]}, {"latent_dim": 4}])
def test_networks_of_other_sizes_are_refused(changes):
    controller = Controller(make_agent(3, 2))
    agent = controller.agent
    with pytest.raises(ValueError, match="found .*; expected"):
        controller.swap(make_agent(3, 2, **changes))
    assert controller.agent is agent


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    """A bad observation takes no random numbers: what follows is as if it had not been there."""
    controller = Controller(make_agent(3, 2))
    observation = np.ones(3, np.float32)
    actions = []
    for spoiled in (False, True):
        controller.begin("explore", seed=0, deterministic=False, latent="step")
        if spoiled:
            with pytest.raises(FloatingPointError, match="observation"):
                controller.act(np.array([0, bad, 0], np.float32))
        actions.append(controller.act(observation))
    np.testing.assert_array_equal(*actions)
    rows = random_context(3, 2, seed=0)
    rows[2][3] = bad
    with pytest.raises(FloatingPointError, match="rewards"):
        controller.add(*rows)
    assert controller.context_trajectories == 0
    with torch.no_grad():
        controller.agent.policy.body[-1].bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match="action"):
        controller.act(observation)


def test_wrong_arguments_are_named():
    controller = Controller(make_agent(3, 2))
    with pytest.raises(ValueError, match="explore with latent mean; expected .*step or trajectory"):
        controller.begin("explore", seed=0, deterministic=True, latent="mean")
    with pytest.raises(ValueError, match=r"found shape \(1,\); expected \(3,\)"):
        controller.act(np.ones(1, np.float32))
    rows = random_context(3, 2, seed=0)
    with pytest.raises(ValueError, match="rewards: found shape"):
        controller.add(*rows[:2], rows[2][:-1])
    with pytest.raises(ValueError, match="n > 0"):
        controller.add(*(part[:0] for part in rows))


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_drawing_ahead_changes_no_action(exact, deterministic):
    """Random numbers that are drawn before the observation is there are those it would get."""
    agent, observations = make_agent(13, 4), np.random.default_rng(1).normal(size=(5, 13))
    found = []
    for ahead in (False, True):
        controller = Controller(agent, exact=exact)
        controller.begin("explore", seed=3, deterministic=deterministic, latent="step")
        actions = []
        for observation in observations.astype(np.float32):
            for _ in range(2 * ahead):  # twice is as good as once
                controller.prepare()
            actions.append(controller.act(observation))
        found.append(np.array(actions))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("mode", "latent"), [("explore", "step"), ("exploit", "sample")])
def test_numpy_acts_as_the_agent_up_to_rounding(mode, latent, deterministic):
    agent = make_agent(27, 8)
    observations = np.random.default_rng(1).normal(1, 2, size=(50, 27)).astype(np.float32)
    found = []
    for exact in (True, False):
        controller = Controller(agent, exact=exact)
        controller.add(*random_context(27, 8, seed=2))
        controller.begin(mode, seed=3, deterministic=deterministic, latent=latent)
        found.append(np.array([controller.act(observation) for observation in observations]))
    np.testing.assert_allclose(*found, rtol=0, atol=2e-6)
    assert np.ptp(found[0], axis=0).min() > 0.01  # actions that differ, not saturated ones
