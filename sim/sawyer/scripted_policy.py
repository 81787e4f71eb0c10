"""The scripted policy behind the offline data (Pong et al., section 6 and appendix C.2).

It does not know which behavior is rewarded: it picks one that the scene allows, carries it out,
and picks another. It reads the environment's state, not only the observation. Each behavior is a
generator of waypoints that reads like a recipe; noise is added to every action.
"""

from collections.abc import Iterator, Sequence
from math import hypot

import gymnasium
import numpy as np

from .arm import HOME, STEP, WORKSPACE_LOW
from .behaviors import (
    BUTTON,
    CARRY_GOAL,
    EIGHT,
    GRIPPER,
    HAND,
    LEGO,
    OBJECT,
    STACK_X,
    STACK_Y,
    THREE,
    possible,
    success,
    tray_goal,
)

GAIN = 10.0  # of an action on the position error, 1/m: 0.3 of the error per step
TRAVEL_Z = -0.104  # m, clears the button on two drawers
HIGH_ENOUGH = -0.118  # m, sideways motion may begin
ALIGNED = 0.014  # m, tolerance above something to be gripped
NEAR = 0.04  # m, tolerance of free motion
OPEN, SHUT = -1.0, 1.0
AJAR = -0.55  # gripper wide enough for the lego block, narrow enough for its drawer
ROUND_HANDLE = 0.0  # gripper narrow enough to pass between handle and drawer
GRIPPING = 5  # steps for the fingers to close
PRESSING = 30  # steps at most to go down to the button and hold it
HOLD, HOLD_FORCED = 20, 75  # steps to carry something and hold it there
# what stays achieved when the hand lets go
LASTING = set(EIGHT) - {"move_hand", "move_object", "move_lego"}
LINGER = 10  # steps to stay where the hand was to go
RETURNING = 0.5  # probability that the hand then goes home before the next behavior

# m from an object's centre of mass up to where the fingers hold it
GRIP_HEIGHT = {"teapot": 0.006, "soap": 0.004, "mug": 0.03, "car": 0.014, "vase": 0.032}
LEGO_GRIP_HEIGHT = 0.008

Waypoint = tuple[tuple[float, float, float], float]  # target in m, gripper in [-1, 1]


class ScriptedPolicy:
    """Acts in a `SawyerEnv`, one behavior after the other or a single one all along."""

    def __init__(
        self,
        env: gymnasium.Env,
        seed: int,
        behavior: str | None = None,  # None: the mixed policy of the offline data
        noise: float = 0.1,  # standard deviation of the noise on every dimension of the action
        behaviors: Sequence[str] | None = None,  # to choose from; None: the task's own family
    ) -> None:
        self._env = env.unwrapped
        self._rng = np.random.default_rng(seed)
        if behavior is not None and behavior not in EIGHT:
            raise ValueError(f"behavior: found {behavior!r}, expected one of {', '.join(EIGHT)}")
        self._forced, self._noise, self._family = behavior, noise, behaviors
        self._hold = HOLD if behavior is None else HOLD_FORCED
        self._plan: Iterator[Waypoint] | None = None

    def reset(self) -> None:
        """Begin an episode; call it after the environment's reset."""
        self._plan = None

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Action (4,) float32 for `observation` (13,)."""
        self._observation = [float(value) for value in observation]
        if self._plan is None:
            self._task = self._env.task
            self._plan = self._episode()
        target, gripper = next(self._plan)
        hand = self._observation[HAND]
        action = [GAIN * (t - h) for t, h in zip(target, hand, strict=True)]
        action.append(gripper)
        action = np.clip(action, -1, 1) + self._rng.normal(0, self._noise, 4)
        return np.clip(action, -1, 1).astype(np.float32)

    # What to do next

    def _episode(self) -> Iterator[Waypoint]:
        while True:
            behavior = self._forced or self._choose()
            if self._forced in LASTING and success(behavior, self._task, self._observation):
                yield tuple(self._observation[HAND]), SHUT  # nothing left to do
            else:
                yield from getattr(self, f"_{behavior}")()
                leaves = self._forced is None and behavior == "move_hand"
                if leaves and self._rng.random() < RETURNING:
                    yield from self._return_home()

    def _choose(self) -> str:
        """Uniformly among what is possible and not yet done; "move hand" always is."""
        family = self._family
        if family is None:
            family = THREE if self._task["behavior"] in THREE else EIGHT
        choices = [
            name
            for name in possible(self._task, family)
            if name == "move_hand" or not success(name, self._task, self._observation)
        ]
        return choices[self._rng.integers(len(choices))]

    # Recipes. Each yields (target, gripper) and finds the new observation in place afterwards.

    def _move_hand(self) -> Iterator[Waypoint]:
        yield from self._rise(OPEN)
        yield from self._go(CARRY_GOAL, OPEN)
        for _ in range(LINGER):
            yield CARRY_GOAL, OPEN

    def _return_home(self) -> Iterator[Waypoint]:
        """After a move of the hand, so that the data reaches its goal and leaves it again."""
        yield from self._rise(OPEN)
        yield from self._go(HOME[self._task["side"]], OPEN)

    def _open_handle_drawer(self) -> Iterator[Waypoint]:
        task = self._task
        goal = task["handle_drawer"]["goal"]
        yield from self._slide_handle(min(goal, 0.15))

    def _close_handle_drawer(self) -> Iterator[Waypoint]:
        yield from self._slide_handle(0.0)

    def _press_button(self, until: str = "press_button") -> Iterator[Waypoint]:
        """Press, and hold until what the button is for has happened.

        Were the hand to rise as soon as the button is down, a centimetre would be all that tells
        states of pressing from states of rising.
        """
        x, y = STACK_X, STACK_Y * self._task["side"]
        yield from self._rise(SHUT)
        yield from self._go((x, y, TRAVEL_Z), SHUT, tolerance=ALIGNED)
        low = WORKSPACE_LOW[2]
        for _ in range(PRESSING):
            z = max(self._observation[BUTTON] - 0.03, low)
            down = self._env.scene.joint("button") < -0.0115
            if down and success(until, self._task, self._observation):
                break
            yield (x, y, z), SHUT
        yield from self._rise(SHUT)
        yield (x, y, TRAVEL_Z), SHUT

    def _open_button_drawer(self) -> Iterator[Waypoint]:
        yield from self._press_button(until="open_button_drawer")

    def _move_object(self) -> Iterator[Waypoint]:
        height = GRIP_HEIGHT[self._task["object"]["shape"]]
        yield from self._grasp(OBJECT, height, OPEN)
        yield from self._carry(OBJECT, CARRY_GOAL, self._hold)

    def _move_lego(self) -> Iterator[Waypoint]:
        yield from self._grasp(LEGO, LEGO_GRIP_HEIGHT, AJAR)
        yield from self._carry(LEGO, CARRY_GOAL, self._hold)

    def _object_in_tray(self) -> Iterator[Waypoint]:
        height = GRIP_HEIGHT[self._task["object"]["shape"]]
        x, y, _ = tray_goal(self._task)
        yield from self._grasp(OBJECT, height, OPEN)
        yield from self._carry(OBJECT, (x, y, TRAVEL_Z), steps=14)
        if hypot(self._observation[4] - x, self._observation[5] - y) < NEAR:
            yield from self._go((x, y, -0.24), SHUT, tolerance=0.02, steps=8)
        for _ in range(3):
            yield (x, y, -0.24), OPEN
        yield from self._rise(OPEN)

    # Moves they are made of

    def _far(self, target: tuple[float, float, float]) -> float:
        return max(abs(t - h) for t, h in zip(target, self._observation[HAND], strict=True))

    def _go(
        self,
        target: tuple[float, float, float],
        gripper: float,
        tolerance: float = NEAR,
        steps: int = 25,
    ) -> Iterator[Waypoint]:
        """Straight to `target` until every coordinate is within `tolerance` m."""
        for _ in range(steps):
            if self._far(target) < tolerance:
                return
            yield target, gripper

    def _rise(self, gripper: float) -> Iterator[Waypoint]:
        """Straight up to where nothing is in the way sideways."""
        for _ in range(12):
            x, y, z = self._observation[HAND]
            if z > HIGH_ENOUGH:
                return
            yield (x, y, TRAVEL_Z + 0.03), gripper

    def _slide_handle(self, opening: float) -> Iterator[Waypoint]:
        """Take the handle between the fingers and move it until its drawer is `opening` m open."""
        task, scene = self._task, self._env.scene
        height = -0.34 if task["bottom_drawer"] is None else -0.22
        handle = (STACK_X, self._observation[11], height)
        yield from self._rise(ROUND_HANDLE)
        yield from self._go((*handle[:2], TRAVEL_Z), ROUND_HANDLE, tolerance=0.008)
        yield from self._go(handle, ROUND_HANDLE, tolerance=0.02)
        for _ in range(2):
            yield handle, SHUT
        for _ in range(25):
            short = opening - scene.joint("handle_drawer")
            if abs(short) < 0.012:
                break
            # pull from where the handle is, so that a lost grip shows as no progress
            y = self._observation[11] - task["side"] * (short + (0.02 if short > 0 else -0.02))
            yield (STACK_X, y, height), SHUT
        for _ in range(2):
            yield (STACK_X, self._observation[11], height), ROUND_HANDLE
        yield from self._rise(ROUND_HANDLE)

    def _grasp(self, what: slice, height: float, gripper: float) -> Iterator[Waypoint]:
        """Go above a loose body, down on it and close; the fingers close along y."""
        yield from self._rise(gripper)
        for _ in range(20):
            x, y, _ = self._observation[what]
            if self._far((x, y, self._observation[2])) < ALIGNED:
                break
            yield (x, y, TRAVEL_Z), gripper
        for _ in range(14):
            x, y, z = self._observation[what]
            if self._observation[2] < z + height + 0.008:
                break
            yield (x, y, z + height - 0.004), gripper
        hold = tuple(self._observation[HAND])
        for _ in range(GRIPPING):
            yield hold, SHUT

    def _carry(
        self, what: slice, goal: tuple[float, float, float], steps: int
    ) -> Iterator[Waypoint]:
        """Lift, then move so that the body, not the hand, comes to `goal`; give up if it slips."""
        for _ in range(12):
            x, y, z = self._observation[HAND]
            if z > HIGH_ENOUGH - 0.04:
                break
            yield (x, y, z + STEP * 2), SHUT
        for _ in range(steps):
            hand, body = self._observation[HAND], self._observation[what]
            slipped = max(abs(h - b) for h, b in zip(hand, body, strict=True)) > 0.08
            if slipped or self._observation[GRIPPER] < 0.005:
                return
            x, y = (h + g - b for h, g, b in zip(hand[:2], goal[:2], body[:2], strict=True))
            if max(abs(hand[0] - x), abs(hand[1] - y)) < 0.015 and goal[2] == TRAVEL_Z:
                return
            yield (x, y, goal[2] + 0.01), SHUT
