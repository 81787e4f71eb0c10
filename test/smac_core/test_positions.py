"""Paths in the plane from observations."""

import gymnasium
import numpy as np
import pytest

from smac_core.config import load_config
from smac_core.positions import paths, shows_position


@pytest.fixture(scope="module")
def ant():
    return load_config("ant_direction", "paper").environment


def test_velocities_are_integrated_by_the_trapezoid_rule(ant):
    names = ant.observation_names
    observations, following = np.zeros((2, 1, 3, len(names)), np.float32)
    x, y = names.index("velocity_x"), names.index("velocity_y")
    observations[0, :, x], following[0, :, x] = [0, 2, 4], [2, 4, 99]
    observations[0, :, y] = following[0, :, y] = -1
    present = np.array([[True, True, False]])
    found = paths(ant, observations, following, present)
    dt = 1 / ant.rate  # .05 s
    expected = [[0, 0], [1 * dt, -dt], [(1 + 3) * dt, -2 * dt], [np.nan, np.nan]]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_positions_are_taken_as_they_are(config):
    observations = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    found = paths(config.environment, observations, observations + 2, np.ones((1, 2), bool))
    np.testing.assert_array_equal(found[0], [[1, 2], [3, 4], [5, 6]])


def test_a_domain_that_shows_no_position(ant):
    blind = ant.model_copy(update={"observation_names": ["height"]})
    assert shows_position(ant) and not shows_position(blind)
    with pytest.raises(ValueError, match="no position or velocity"):
        paths(blind, *np.zeros((2, 1, 1, 1)), np.ones((1, 1), bool))


def test_an_ants_path_is_the_simulators(ant):
    """Within 0.1 m of it; these random actions throw the ant about as no policy does."""
    env = gymnasium.make(ant.id, max_episode_steps=60)
    for seed in (1, 3):
        rng = np.random.default_rng(seed)
        observation, _ = env.reset(seed=seed, options={"task": {"direction": 30.0}})
        places, seen = [env.unwrapped.data.qpos[:2].copy()], [observation]
        over = False
        while not over:
            action = rng.uniform(-1, 1, 8).astype(np.float32)
            observation, _, terminated, truncated, _ = env.step(action)
            places.append(env.unwrapped.data.qpos[:2].copy())
            seen.append(observation)
            over = terminated or truncated
        before, after = np.stack(seen[:-1])[None], np.stack(seen[1:])[None]
        found = paths(ant, before, after, np.ones(before.shape[:2], bool))[0]
        walked = np.stack(places) - places[0]
        assert np.abs(walked).max() > 0.5
        np.testing.assert_allclose(found, walked, atol=0.1)
    env.close()
