"""Sawyer tasks as plain JSON: sampling, validation and the fixed sets.

A task is a dict:

    behavior       one of behaviors.EIGHT
    side           +1 or -1: which half of the table the stack stands on
    bottom_drawer  null, or {"open": bool}: the button-operated drawer and how it starts
    handle_drawer  null, or {"opening": m, "goal": m}: how far open it starts and should end
    button         bool
    tray           null, or [x, y] in m
    object         null, or {"shape": name, "position": [x, y] in m}

Rebuild or verify the sets with ``python -m sim.sawyer.tasks --write`` or ``--check``.
"""

import json
from collections.abc import Iterator, Sequence
from math import hypot, isfinite
from pathlib import Path

import numpy as np

from sim import task_sets

from .behaviors import DRAWER_TRAVEL, EIGHT, THREE, possible

SHAPES = ("teapot", "soap", "mug", "car", "vase")
PRESENCE = 0.75  # of each of the five items
HANDLE_GOAL = (0.05, 0.18)  # m in the opening direction, as in the authors' environment
# m that the handle drawer starts open, without and with the bottom drawer below it: there it
# reaches the hand's home, and these openings leave its handle free between the fingers
HANDLE_OPENING = ((0.1, 0.15), (0.116, 0.127))
SETS = Path(__file__).parent / "task_sets"
FAMILIES = {"three": THREE, "eight": EIGHT}
# The first from 20220717 on whose training sets ask for each of three behaviors ten times, and for
# each of eight three times: what training never asks for cannot be tested.
SEED = 20220719
SIZES = {"train": 50, "test": 10, "test60": 60}


def _places(side: int, scene: dict, near: float) -> list[list[float]]:
    """Free corners for the tray or the object, [x, y] in m; `near` is the x of the outer two."""
    bottom, handle = scene["bottom_drawer"], scene["handle_drawer"]
    stack = bottom is not None or handle is not None or scene["button"]
    taken = {
        (0.6, 0.15 * side): stack,  # inside the stack
        (near, 0.12 * side): bottom is not None,  # where the bottom drawer opens to
        # the handle drawer opens to here; standing high, on the bottom drawer, it leaves room
        # below, but out of the hand's reach while it is open
        (0.6, -0.15 * side): handle is not None and (bottom is None or handle["opening"] > 0),
        (near, -0.12 * side): False,
    }
    return [list(place) for place, used in taken.items() if not used]


def sample_task(rng: np.random.Generator, behaviors: Sequence[str] = THREE) -> dict:
    """Draw a scene, then a behavior uniformly over those of `behaviors` it allows.

    Pong et al., appendix C.2: presence of each item, positions, then the behavior. A handle goal
    already met at the start is drawn again. The handle drawer starts open with probability 1/2
    only where closing it is among the behaviors. No behavior is done at the start.
    """
    rng = np.random.default_rng(rng)
    side = int(rng.choice((-1, 1)))
    initially_open = bool(rng.random() < 0.5)
    bottom, handle, button, tray, graspable = rng.random(5) < PRESENCE
    scene = {
        "side": side,
        "bottom_drawer": {"open": initially_open} if bottom else None,
        "handle_drawer": None,
        "button": bool(button),
        "tray": None,
        "object": None,
    }
    if handle:
        goal = rng.uniform(*HANDLE_GOAL)
        while goal < 0.075:  # closed would nearly count as open
            goal = rng.uniform(*HANDLE_GOAL)
        opening = 0.0
        if "close_handle_drawer" in behaviors and rng.random() < 0.5:
            opening = rng.uniform(*HANDLE_OPENING[int(bottom)])
        scene["handle_drawer"] = {"opening": round(opening, 4), "goal": round(goal, 4)}
    if tray:
        places = _places(side, scene, near=0.79)
        scene["tray"] = places[rng.integers(len(places))]
    if graspable:
        places = _places(side, scene, near=0.78)
        if scene["tray"] is not None:
            x, y = scene["tray"]
            places = [p for p in places if hypot(p[0] - x, p[1] - y) > 0.15]
        if places:  # else the tray took the only free corner, and there is no object
            shape = SHAPES[rng.integers(len(SHAPES))]
            scene["object"] = {"shape": shape, "position": places[rng.integers(len(places))]}
    # The items decide which behaviors can be asked for. One that the drawn start rules out or
    # has done already gets the other start, else opening with the button would be rare.
    starts = {}
    if bottom:
        starts["open_button_drawer"] = {"bottom_drawer": {"open": False}}
        starts["move_lego"] = {"bottom_drawer": {"open": True}}
    if handle:
        opening = round(rng.uniform(*HANDLE_OPENING[int(bottom)]), 4)
        for name, value in (("open_handle_drawer", 0.0), ("close_handle_drawer", opening)):
            starts[name] = {"handle_drawer": scene["handle_drawer"] | {"opening": value}}
    choices = [name for name in behaviors if possible(scene | starts.get(name, {}), [name])]
    behavior = choices[rng.integers(len(choices))]
    return {"behavior": behavior, **scene, **starts.get(behavior, {})}


def _refuse(field: str, found: object, expected: str) -> None:
    raise ValueError(f"task field {field}: found {found!r}, expected {expected}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _check_keys(where: str, found: dict, expected: Sequence[str]) -> None:
    for key in found:
        if key not in expected:
            _refuse(f"{where}{key}", found[key], f"no such field (there are {', '.join(expected)})")
    for key in expected:
        if key not in found:
            _refuse(f"{where}{key}", None, "the field to be there")


def _check_place(field: str, place: object) -> None:
    ok = isinstance(place, (list, tuple)) and len(place) == 2 and all(map(_is_number, place))
    if not ok or not (0.5 <= place[0] <= 0.85 and -0.2 <= place[1] <= 0.2):
        _refuse(field, place, "[x, y] with x in 0.5..0.85 m and y in -0.2..0.2 m")


def validate(task: dict) -> None:
    """Raise a ValueError that names the field, what was found and what was expected."""
    if not isinstance(task, dict):
        raise ValueError(f"task: found {type(task).__name__}, expected a dict")
    fields = ("behavior", "side", "bottom_drawer", "handle_drawer", "button", "tray", "object")
    _check_keys("", task, fields)
    if task["behavior"] not in EIGHT:
        _refuse("behavior", task["behavior"], f"one of {', '.join(EIGHT)}")
    if task["side"] not in (-1, 1) or isinstance(task["side"], bool):
        _refuse("side", task["side"], "1 or -1")
    if not isinstance(task["button"], bool):
        _refuse("button", task["button"], "true or false")
    bottom, handle, graspable = task["bottom_drawer"], task["handle_drawer"], task["object"]
    if bottom is not None:
        if not isinstance(bottom, dict):
            _refuse("bottom_drawer", bottom, 'null or {"open": true or false}')
        _check_keys("bottom_drawer.", bottom, ("open",))
        if not isinstance(bottom["open"], bool):
            _refuse("bottom_drawer.open", bottom["open"], "true or false")
    if handle is not None:
        if not isinstance(handle, dict):
            _refuse("handle_drawer", handle, 'null or {"opening": m, "goal": m}')
        _check_keys("handle_drawer.", handle, ("opening", "goal"))
        for key, most in (("opening", DRAWER_TRAVEL), ("goal", HANDLE_GOAL[1])):
            if not _is_number(handle[key]) or not 0 <= handle[key] <= most:
                _refuse(f"handle_drawer.{key}", handle[key], f"a number of metres in 0..{most}")
    if task["tray"] is not None:
        _check_place("tray", task["tray"])
    if graspable is not None:
        if not isinstance(graspable, dict):
            _refuse("object", graspable, 'null or {"shape": name, "position": [x, y]}')
        _check_keys("object.", graspable, ("shape", "position"))
        if graspable["shape"] not in SHAPES:
            _refuse("object.shape", graspable["shape"], f"one of {', '.join(SHAPES)}")
        _check_place("object.position", graspable["position"])
    choices = possible(task)
    if task["behavior"] not in choices:
        _refuse("behavior", task["behavior"], f"one that this scene allows: {', '.join(choices)}")


def draw_set(family: str, name: str) -> list[dict]:
    """Draw the tasks of one set anew, all distinct and distinct from the family's other sets.

    "train" and "test" come from the plain sampling distribution (of a seed whose training set has
    something of every behavior, see ``SEED``); "test60" has the same number of tasks of every
    behavior (to within one), so that rare behaviors are measured too.
    """
    behaviors = FAMILIES[family]
    rng = np.random.default_rng([SEED, list(FAMILIES).index(family)])
    seen, tasks = set(), []
    for other, size in SIZES.items():
        tasks = []
        while len(tasks) < size:
            task = sample_task(rng, behaviors)
            if other == "test60" and task["behavior"] != behaviors[len(tasks) % len(behaviors)]:
                continue
            key = json.dumps(task, sort_keys=True)
            if key not in seen:
                seen.add(key)
                tasks.append(task)
        if other == name:
            return tasks
    raise ValueError(f"task set: found {name!r}, expected one of {', '.join(SIZES)}")


def _set_path(family: str, name: str) -> Path:
    if family not in FAMILIES or name not in SIZES:
        raise ValueError(
            f"task set: found {family!r}, {name!r}, expected one of {', '.join(FAMILIES)} and one "
            f"of {', '.join(SIZES)}"
        )
    return SETS / f"{family}_{name}.json"


def task_set(family: str = "three", name: str = "train") -> list[dict]:
    """Load a fixed set: family "three" or "eight", name "train", "test" or "test60"."""
    return json.loads(_set_path(family, name).read_text())


def _every_set() -> Iterator[tuple[Path, list[dict]]]:
    for family in FAMILIES:
        for name in SIZES:
            yield _set_path(family, name), draw_set(family, name)


def main(arguments: Sequence[str] | None = None) -> int:
    return task_sets.main("sim.sawyer.tasks", __doc__, _every_set(), arguments)


if __name__ == "__main__":
    raise SystemExit(main())
