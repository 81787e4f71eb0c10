"""The MuJoCo domains' tasks: checks, and the fixed sets."""

import json

import numpy as np
import pytest

pytest.importorskip("mujoco")

from sim.mujoco.tasks import DOMAINS, SETS, draw_set, main, make_domain, task_set

EVERY_SET = [(domain, name) for domain in DOMAINS for name in SETS[domain]]


@pytest.mark.parametrize("domain,name", EVERY_SET)
def test_sets_are_what_their_seed_draws(domain, name):
    tasks = task_set(domain, name)
    assert tasks == draw_set(domain, name) == json.loads(json.dumps(tasks))
    for task in tasks:
        make_domain(domain).validate(task)


def test_sizes():
    sizes = {(domain, name): len(task_set(domain, name)) for domain, name in EVERY_SET}
    assert sizes == {
        ("cheetah_velocity", "train"): 100,
        ("cheetah_velocity", "test"): 30,
        ("ant_direction", "train"): 100,
        ("ant_direction", "test"): 20,
        ("ant_direction", "train6"): 6,
        ("humanoid_direction", "train"): 100,
        ("humanoid_direction", "test"): 30,
        ("humanoid_direction", "train50"): 50,
        ("humanoid_direction", "train6"): 6,
        ("humanoid_direction", "test5"): 5,
        ("walker_params", "train"): 50,
        ("walker_params", "test"): 5,
        ("hopper_params", "train"): 50,
        ("hopper_params", "test"): 5,
    }


def test_the_cheetah_s_and_the_ant_s_are_the_authors():
    """Against numbers read from the task files in the authors' repository."""
    for domain, field, train, test, last in (
        (
            *("cheetah_velocity", "velocity"),
            [0.7860740250467451, 0.47605191646339684, 0.8343795584830792],
            [2.050959316523306, 0.08306914545160993],
            0.5583223214918457,
        ),
        (
            *("ant_direction", "direction"),
            [94.32888300560941, 57.12622997560762, 100.12554701796951],
            [246.1151179827967, 9.968297454193191],
            278.08612563830184,
        ),
    ):
        assert [task[field] for task in task_set(domain, "train")[:3]] == train
        tests = [task[field] for task in task_set(domain, "test")]
        assert tests[:2] == test and tests[-1] == last


@pytest.mark.parametrize("domain", ["ant_direction", "humanoid_direction"])
def test_six_directions_lie_all_around(domain):
    everywhere, six = (
        np.array([task["direction"] for task in task_set(domain, name)])
        for name in ("train", "train6")
    )

    def away(directions, angle):
        return abs((directions - angle + 180) % 360 - 180)

    for direction, angle in zip(six, range(0, 360, 60), strict=True):
        assert away(direction, angle) == away(everywhere, angle).min()


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_test_task_is_trained_on(domain):
    train, test = ({json.dumps(t) for t in task_set(domain, name)} for name in ("train", "test"))
    assert len(train) == len(task_set(domain, "train")) and not train & test


def test_check_command(capsys):
    assert main(["--check"]) == 0
    assert capsys.readouterr().err == ""


def test_a_set_with_the_paper_s_damping():
    """Another option, the same random numbers."""
    ours = task_set("hopper_params", "test")[0]
    paper = draw_set("hopper_params", "test", damping_base=1.5)[0]
    assert paper["geom_friction"] == ours["geom_friction"]
    power = np.log(paper["dof_damping"]) / np.log(ours["dof_damping"])
    assert power == pytest.approx(np.log(1.5) / np.log(1.3), abs=1e-3)


def test_unknown_sets_and_domains_are_refused():
    with pytest.raises(ValueError, match="'test60'"):
        task_set("ant_direction", "test60")
    with pytest.raises(ValueError, match="'swimmer'"):
        task_set("swimmer")
    with pytest.raises(ValueError, match="found 'swimmer', expected one of cheetah_velocity"):
        make_domain("swimmer")


MALFORMED = [
    ("cheetah_velocity", {}, "velocity: found None.*to be there"),
    ("cheetah_velocity", {"velocity": "fast"}, "velocity: found 'fast', expected a number of m/s"),
    ("cheetah_velocity", {"velocity": True}, "velocity: found True"),
    ("ant_direction", {"direction": float("nan")}, "direction: found nan.*degrees"),
    ("ant_direction", {"direction": 1, "gear": 2}, "gear: found 2, expected no such field"),
    ("humanoid_direction", {"direction": None}, "direction: found None"),
    ("humanoid_direction", [], "task: found list, expected a dict"),
    ("hopper_params", {"body_mass": [1, 1]}, r"body_mass: found 'shape \(2,\)'.*5 numbers above 0"),
    ("hopper_params", {"body_mass": [1, 1, 0, 1, 1]}, "body_mass: found 0.0, expected 5 numbers"),
    ("hopper_params", {"dof_damping": "low"}, "dof_damping: found 'low', expected 6 numbers"),
    ("walker_params", {"geom_friction": [[1, 1, 1]] * 7}, "geom_friction: .*expected 8 x 3"),
    ("walker_params", {"gravity": 1}, "gravity: found 1, expected no such field"),
]


@pytest.mark.parametrize("domain,task,message", MALFORMED)
def test_malformed_tasks_name_field_found_and_expected(domain, task, message):
    with pytest.raises(ValueError, match=message):
        make_domain(domain).validate(task)
