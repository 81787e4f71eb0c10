"""Tasks: sampling, validation, the fixed sets, and every behavior's success test."""

import json
from collections import Counter

import numpy as np
import pytest

from sim.sawyer.behaviors import EIGHT, THREE, possible, success
from sim.sawyer.tasks import FAMILIES, SIZES, draw_set, main, sample_task, task_set, validate

EVERY_SET = [(family, name) for family in FAMILIES for name in SIZES]


@pytest.mark.parametrize("family,name", EVERY_SET)
def test_sets_are_what_their_seed_draws(family, name):
    tasks = task_set(family, name)
    assert tasks == draw_set(family, name)
    assert len(tasks) == {"train": 50, "test": 10, "test60": 60}[name]
    for task in tasks:
        validate(task)


def test_check_command(capsys):
    assert main(["--check"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_sets_are_distinct_and_test60_is_stratified(family):
    texts = [json.dumps(task, sort_keys=True) for name in SIZES for task in task_set(family, name)]
    assert len(set(texts)) == len(texts) == 120
    counts = Counter(task["behavior"] for task in task_set(family, "test60"))
    assert set(counts) == set(FAMILIES[family])
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("family,name", EVERY_SET)
def test_no_task_is_solved_at_reset(sawyer, family, name):
    """Pins a flaw of the authors' version, whose tasks may start solved."""
    for task in task_set(family, name):
        observation, info = sawyer.reset(options={"task": task})
        assert not info["success"], task
        assert info["behavior"] == task["behavior"]


def test_unknown_set_is_refused():
    with pytest.raises(ValueError, match="test61"):
        task_set("three", "test61")


def test_sampling_follows_the_stated_distribution():
    rng = np.random.default_rng(0)
    tasks = [sample_task(rng, THREE) for _ in range(2000)]
    for task in tasks:
        validate(task)
        assert task == json.loads(json.dumps(task))
        assert task["behavior"] in possible(task, THREE)
        if task["handle_drawer"]:
            assert task["handle_drawer"]["opening"] == 0
    others = [t for t in tasks if t["bottom_drawer"] and t["behavior"] != "open_button_drawer"]
    shares = {
        "side": np.mean([t["side"] == 1 for t in tasks]),
        "open": np.mean([t["bottom_drawer"]["open"] for t in others]),
    }
    assert shares == pytest.approx({"side": 0.5, "open": 0.5}, abs=0.04)
    # items present with p = 3/4: hand alone 7/64, with handle 21/64, with button 9/64, all 27/64
    behaviors = Counter(task["behavior"] for task in tasks)
    expected = {
        "move_hand": (7 + 21 / 2 + 9 / 2 + 27 / 3) / 64,
        "open_handle_drawer": (21 / 2 + 27 / 3) / 64,
        "open_button_drawer": (9 / 2 + 27 / 3) / 64,
    }
    assert {k: v / 2000 for k, v in behaviors.items()} == pytest.approx(expected, abs=0.04)
    for item in ("bottom_drawer", "handle_drawer", "tray"):
        assert np.mean([t[item] is not None for t in tasks]) == pytest.approx(0.75, abs=0.04)
    eight = Counter(sample_task(rng, EIGHT)["behavior"] for _ in range(2000))
    assert set(eight) == set(EIGHT)


MALFORMED = [
    ({"behavior": "fly"}, "behavior.*'fly'.*move_hand"),
    ({"side": 2}, "side.*2.*1 or -1"),
    ({"button": 1}, "button.*1.*true or false"),
    ({"bottom_drawer": {"open": "yes"}}, "bottom_drawer.open.*'yes'.*true or false"),
    ({"bottom_drawer": True}, "bottom_drawer.*True.*null"),
    ({"handle_drawer": {"opening": 0.0}}, "handle_drawer.goal.*None.*to be there"),
    ({"handle_drawer": {"opening": float("nan"), "goal": 0.1}}, "opening.*nan.*number"),
    ({"handle_drawer": {"opening": 0.0, "goal": 0.4}}, "handle_drawer.goal.*0.4.*0..0.18"),
    ({"tray": [0.79]}, r"tray.*\[0.79\].*\[x, y\]"),
    ({"tray": [0.2, 0.0]}, "tray.*0.2.*0.5..0.85"),
    ({"object": {"shape": "sofa", "position": [0.6, -0.15]}}, "object.shape.*'sofa'.*teapot"),
    ({"object": {"shape": "mug", "position": "here"}}, "object.position.*'here'"),
    ({"colour": "red"}, "colour.*'red'.*no such field"),
    ({"button": False, "behavior": "press_button"}, "behavior.*press_button.*scene allows"),
    ({"bottom_drawer": {"open": True}, "behavior": "open_button_drawer"}, "scene allows"),
]


@pytest.mark.parametrize("fields,message", MALFORMED)
def test_malformed_tasks_name_field_found_and_expected(sawyer, full_task, fields, message):
    sawyer.reset(options={"task": full_task()})
    before = sawyer.scene.observe()
    with pytest.raises(ValueError, match=message):
        sawyer.reset(options={"task": full_task() | fields})
    assert sawyer.task == full_task() and sawyer.scene.observe() == before


def test_missing_field_and_no_dict_are_refused(full_task):
    task = full_task()
    del task["tray"]
    with pytest.raises(ValueError, match="tray"):
        validate(task)
    with pytest.raises(ValueError, match="found list, expected a dict"):
        validate([task])


# place in the observation, goal there, tolerance: worked out by hand for side +1
SUCCESS = {
    "move_hand": (slice(0, 3), (0.675, 0, -0.11), 0.08),
    "move_object": (slice(4, 7), (0.675, 0, -0.11), 0.08),
    "move_lego": (slice(7, 10), (0.675, 0, -0.11), 0.08),
    "object_in_tray": (slice(4, 7), (0.79, -0.12, -0.335), 0.08),
    "open_button_drawer": (slice(10, 11), (0.756,), 0.065),
    "open_handle_drawer": (slice(11, 12), (-0.0125 - 0.12,), 0.065),
    "close_handle_drawer": (slice(11, 12), (-0.0125,), 0.065),
    "press_button": (slice(12, 13), (-0.15,), 0.008),
}


@pytest.mark.parametrize("behavior", EIGHT)
def test_success_within_tolerance_of_the_goal_and_not_beyond(full_task, behavior):
    """Each behavior has its own test; the authors' version scored one with another's."""
    place, goal, tolerance = SUCCESS[behavior]
    observation = np.full(13, 5.0)
    assert not success(behavior, full_task(), observation)
    for offset in (0.0, 0.95, 1.05, -0.95, -1.05):
        observation[place] = goal
        observation[place.stop - 1] += offset * tolerance
        assert success(behavior, full_task(), observation) is (abs(offset) < 1)


def test_success_on_the_other_side(full_task):
    observation = np.zeros(13)
    observation[11] = 0.0125 + 0.12
    assert success("open_handle_drawer", full_task(-1), observation)
    assert not success("close_handle_drawer", full_task(-1), observation)


def test_possible_behaviors(full_task, empty_task):
    assert possible(empty_task) == ["move_hand"]
    assert possible(full_task(), THREE) == list(THREE)
    opened = full_task(
        bottom_drawer={"open": True}, handle_drawer={"opening": 0.12, "goal": 0.12}
    )
    assert set(EIGHT) - set(possible(opened)) == {"open_button_drawer", "open_handle_drawer"}
