"""What a Sawyer task can ask for: names, when each is possible, goals and success tests.

Every test is a function of the task and the 13-D observation alone, so a reward can be
recomputed from recorded data.

Appendix B of Pong et al. speaks of eight behaviors but its released list has nine names. Here the
button opens its drawer and never shuts it, so "open" and "close button drawer" share their one
goal, the open position: they are one behavior, `open_button_drawer`, and eight remain.
"""

from collections.abc import Sequence
from math import dist

THREE = ("move_hand", "open_handle_drawer", "open_button_drawer")
EIGHT = (
    "move_hand",
    "move_lego",
    "open_handle_drawer",
    "close_handle_drawer",
    "press_button",
    "open_button_drawer",
    "move_object",
    "object_in_tray",
)

# Places of the observation (the order is Pong et al.'s, with the lego block their text omits).
HAND = slice(0, 3)  # end-effector, m
GRIPPER = 3  # distance between the fingers, m
OBJECT = slice(4, 7)  # graspable object, m
LEGO = slice(7, 10)  # lego block, m
BOTTOM_DRAWER = 10  # x of the button-operated drawer's box, m
HANDLE = 11  # y of the other drawer's handle, m
BUTTON = 12  # z of the button's cap, m

# Geometry of the scene that goals depend on, m. `side` is +1 or -1.
TABLE_Z = -0.375
STACK_X = 0.6
STACK_Y = 0.125  # times side
DRAWER_TRAVEL = 0.156
HANDLE_REACH = 0.1375  # from the middle of the drawer's box to its handle
CARRY_GOAL = (0.675, 0.0, -0.11)  # of the hand, the object and the lego block
PRESSED = 0.01  # how far down a pressed button is
TRAY_GOAL_HEIGHT = 0.04  # of an object in the tray, above the table
CARRY_TOLERANCE, DRAWER_TOLERANCE, BUTTON_TOLERANCE = 0.08, 0.065, 0.008


def handle_y(side: int, opening: float) -> float:
    """The handle's y when its drawer is `opening` metres open; it opens across the table."""
    return side * (STACK_Y - HANDLE_REACH - opening)


def button_z(task: dict) -> float:
    """Height of the unpressed button: on the table, on one drawer or on two."""
    drawers = (task["bottom_drawer"] is not None) + (task["handle_drawer"] is not None)
    return (-0.34, -0.25, -0.14)[drawers]


def tray_goal(task: dict) -> tuple[float, float, float]:
    """Where an object in the tray should be, m."""
    return (*task["tray"], TABLE_Z + TRAY_GOAL_HEIGHT)


def possible(scene: dict, among: Sequence[str] = EIGHT) -> list[str]:
    """Those of `among` that the scene of a task allows and does not start in."""
    bottom, handle = scene["bottom_drawer"], scene["handle_drawer"]
    button, graspable = scene["button"], scene["object"] is not None
    allowed = {
        "move_hand": True,
        "move_lego": bottom is not None and bottom["open"],
        "open_handle_drawer": handle is not None
        and handle["goal"] - handle["opening"] > DRAWER_TOLERANCE,
        "close_handle_drawer": handle is not None and handle["opening"] > DRAWER_TOLERANCE,
        "press_button": button,
        "open_button_drawer": button and bottom is not None and not bottom["open"],
        "move_object": graspable,
        "object_in_tray": graspable and scene["tray"] is not None,
    }
    return [name for name in among if allowed[name]]


def success(behavior: str, task: dict, observation: Sequence[float]) -> bool:
    """Whether `observation`, 13 numbers in SI units, shows `behavior` achieved in `task`."""
    side = task["side"]
    match behavior:
        case "move_hand":
            return dist(observation[HAND], CARRY_GOAL) < CARRY_TOLERANCE
        case "move_object":
            return dist(observation[OBJECT], CARRY_GOAL) < CARRY_TOLERANCE
        case "move_lego":
            return dist(observation[LEGO], CARRY_GOAL) < CARRY_TOLERANCE
        case "object_in_tray":
            return dist(observation[OBJECT], tray_goal(task)) < CARRY_TOLERANCE
        case "open_handle_drawer":
            error = observation[HANDLE] - handle_y(side, task["handle_drawer"]["goal"])
            return bool(abs(error) < DRAWER_TOLERANCE)
        case "close_handle_drawer":
            return bool(abs(observation[HANDLE] - handle_y(side, 0.0)) < DRAWER_TOLERANCE)
        case "open_button_drawer":
            error = observation[BOTTOM_DRAWER] - (STACK_X + DRAWER_TRAVEL)
            return bool(abs(error) < DRAWER_TOLERANCE)
        case "press_button":
            error = observation[BUTTON] - (button_z(task) - PRESSED)
            return bool(abs(error) < BUTTON_TOLERANCE)
    raise ValueError(f"behavior: found {behavior!r}, expected one of {', '.join(EIGHT)}")
