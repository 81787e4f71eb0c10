"""Everything on the table, in one PyBullet world that serves every task.

All bodies are always in the world: those that a task lacks are parked, without mass, far away.
A task starts from one saved state (everything parked, nothing touching) by placing its bodies,
so that it starts the same to the last bit whatever happened before, and a prepared task costs
no more memory than the rest poses of its two loose bodies.

Contacts of resting bodies would take a third of the time. So a loose body stays parked too, read
and drawn at its rest pose, until the hand comes near or its drawer slides; and again once the
hand has gone without moving it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations

from .arm import ASSETS, WORKSPACE_HIGH, WORKSPACE_LOW, Arm
from .behaviors import (
    BUTTON,
    DRAWER_TRAVEL,
    HAND,
    HANDLE_REACH,
    LEGO,
    OBJECT,
    PRESSED,
    STACK_X,
    STACK_Y,
    TABLE_Z,
    button_z,
)
from .engine import pybullet
from .tasks import SHAPES

SUBSTEPS = 10  # of 1/240 s: control at 24 Hz
TIME_STEP = 1 / 240  # s
CONTROL_PERIOD = SUBSTEPS * TIME_STEP  # s
# Half the time of 150 with furniture, and grasps as well; 20 does not. What would be faster does
# harm: Bullet's exact solver (Dantzig) takes a fifth off a step and, pushing against furniture,
# throws the arm across the room once in some thousand steps; a looser residual lets the arm sink.
SOLVER_ITERATIONS = 50

TABLE = (0.75, -0.2, TABLE_Z - 0.025)  # m, middle of its top's slab
LOWER_DRAWER_Z, UPPER_DRAWER_Z = -0.34, -0.22  # m, of a drawer's origin
LEGO_REST = (0.59, STACK_Y, -0.34)  # m, y times side, with its drawer closed
# of each shape's centre of mass (PyBullet's base position) above what it stands on, m
REST_HEIGHT = {"teapot": 0.0235, "soap": 0.0205, "mug": 0.026, "car": 0.019, "vase": 0.02}
BRAKE = 3.0  # N, holds the drawers and the button where they are left
SLIDE_SPEED = 0.3  # m/s of the button-operated drawer
SLIDE_FORCE = 20.0  # N
SETTLING = 120  # substeps that loose bodies get when a task is first prepared
# Bullet forgets at least one of the pairs that no longer overlap in each pass. Left over, they
# would decide the order in which the next episode's contacts are solved, and so its last bits.
FORGETTING = 40
MARGIN = 0.05  # m beyond the workspace at which a loose body counts as lost
FALL = 0.02  # m that a body brought back falls
# How near the hand frees a waiting body, m: the largest body, the hand, whatever it pushes and
# 0.033 m of motion fit in
NEAR_SIDEWAYS, NEAR_ABOVE = 0.17, 0.14
UNMOVED = 1e-4  # of a position, m, and of a quaternion; resting bodies creep by a third of it

_UPRIGHT = (0.0, 0.0, 0.0, 1.0)
_TURNED = {1: (0.0, 0.0, -(0.5**0.5), 0.5**0.5), -1: (0.0, 0.0, 0.5**0.5, 0.5**0.5)}


def _lost(x: float, y: float, z: float) -> bool:
    """Whether a loose body there, m, is out of the hand's reach."""
    return not (
        WORKSPACE_LOW[0] - MARGIN < x < WORKSPACE_HIGH[0] + MARGIN
        and WORKSPACE_LOW[1] - MARGIN < y < WORKSPACE_HIGH[1] + MARGIN
        and TABLE_Z - MARGIN < z < WORKSPACE_HIGH[2] + 2 * MARGIN
    )


class Scene:
    """One physics client with arm, table, drawers, button, tray and loose bodies."""

    def __init__(self, gui: bool = False) -> None:
        self.client = pybullet.connect(pybullet.GUI if gui else pybullet.DIRECT)
        if self.client < 0:
            raise RuntimeError("PyBullet could not open a window or another physics client")
        self._gui = gui
        c = self.client
        pybullet.setGravity(0, 0, -10, physicsClientId=c)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=TIME_STEP,
            numSolverIterations=SOLVER_ITERATIONS,
            deterministicOverlappingPairs=1,
            physicsClientId=c,
        )
        self.arm = Arm(c)
        self.table = self._load("table", TABLE)
        furniture = ("bottom_drawer", "handle_drawer", "button", "tray")
        self.bodies = {name: self._load(name, self._parking(name)) for name in furniture}
        self._filter_furniture()
        self._mass: dict[str, float] = {}
        self._inertia: dict[str, tuple[float, float, float]] = {}
        for name in ("lego", *SHAPES):
            self.bodies[name] = self._load(name, self._parking(name), fixed=False)
            info = pybullet.getDynamicsInfo(self.bodies[name], -1, physicsClientId=c)
            self._mass[name], self._inertia[name] = info[0], info[2]
            self._set_mass(name, 0.0)
        self._loose: list[str] = []  # loose bodies of the task
        self._waiting: list[str] = []  # those of them that are still parked
        self._start: dict[str, tuple] = {}  # their rest poses
        self._prepared: dict[tuple, dict[str, tuple]] = {}
        self._blank = pybullet.saveState(physicsClientId=c)

    def close(self) -> None:
        """Free the physics client."""
        if self.client >= 0:
            pybullet.disconnect(physicsClientId=self.client)
            self.client = -1

    # Building

    def _load(self, name: str, position: tuple, fixed: bool = True) -> int:
        return pybullet.loadURDF(
            str(ASSETS / f"{name}.urdf"), position, useFixedBase=fixed, physicsClientId=self.client
        )

    @staticmethod
    def _parking(name: str) -> tuple[float, float, float]:
        """A spot of its own for each body, out of reach and out of every picture."""
        furniture = ("bottom_drawer", "handle_drawer", "button", "tray", "lego", *SHAPES)
        return (-20.0, float(furniture.index(name)), -5.0)

    def _filter_furniture(self) -> None:
        """Let furniture and table pass through each other: they stand in permanent contact.

        The links of one body never touch either, but without a filter they count as candidates.
        """
        furniture = (self.table, *self.bodies.values())
        selves = ((body, body) for body in (self.arm.body, *furniture))
        for one, other in (*combinations(furniture, 2), *selves):
            for i in range(-1, pybullet.getNumJoints(one, physicsClientId=self.client)):
                for j in range(-1, pybullet.getNumJoints(other, physicsClientId=self.client)):
                    pybullet.setCollisionFilterPair(one, other, i, j, 0, self.client)

    def _set_mass(self, name: str, mass: float) -> None:
        pybullet.changeDynamics(
            self.bodies[name],
            -1,
            mass=mass,
            localInertiaDiagonal=self._inertia[name],
            physicsClientId=self.client,
        )

    # Starting a task

    def reset(self, task: dict) -> None:
        """Start `task`, which must be valid, with the arm at home and loose bodies at rest."""
        key = (
            task["side"],
            bool(task["bottom_drawer"] and task["bottom_drawer"]["open"]),
            task["bottom_drawer"] is None,
            task["handle_drawer"] is None,
            task["tray"] and tuple(task["tray"]),
            task["object"] and (task["object"]["shape"], *task["object"]["position"]),
        )
        rest = self._prepared.get(key)
        if rest is None:
            self._place(task, self._first_poses(task))
            for name in self._loose:
                self._free(name)
            for _ in range(SETTLING):
                pybullet.stepSimulation(physicsClientId=self.client)
            rest = self._prepared[key] = {name: self.pose(name) for name in self._loose}
        self._place(task, rest)

    def _first_poses(self, task: dict) -> dict[str, tuple]:
        """Where loose bodies come to rest, before physics has had its say."""
        poses = {}
        if task["bottom_drawer"] is not None:
            slid = DRAWER_TRAVEL if task["bottom_drawer"]["open"] else 0.0
            poses["lego"] = (
                (LEGO_REST[0] + slid, LEGO_REST[1] * task["side"], LEGO_REST[2]),
                _UPRIGHT,
            )
        if task["object"] is not None:
            shape, (x, y) = task["object"]["shape"], task["object"]["position"]
            poses[shape] = ((x, y, TABLE_Z + REST_HEIGHT[shape] + 0.001), _UPRIGHT)
        return poses

    def _place(self, task: dict, loose: dict[str, tuple]) -> None:
        c, side = self.client, task["side"]
        for name in self._loose:
            if name not in self._waiting:
                self._set_mass(name, 0.0)
        pybullet.restoreState(self._blank, physicsClientId=c)
        for _ in range(FORGETTING):
            pybullet.performCollisionDetection(physicsClientId=c)
        self.arm.reset(side)
        bottom, handle = task["bottom_drawer"], task["handle_drawer"]
        y = STACK_Y * side
        if bottom is not None:
            self._set_pose("bottom_drawer", (STACK_X, y, LOWER_DRAWER_Z), _UPRIGHT)
            self._set_joint("bottom_drawer", DRAWER_TRAVEL if bottom["open"] else 0.0)
        if handle is not None:
            z = LOWER_DRAWER_Z if bottom is None else UPPER_DRAWER_Z
            self._set_pose("handle_drawer", (STACK_X, y, z), _TURNED[side])
            self._set_joint("handle_drawer", handle["opening"])
        self._button_z = button_z(task)
        if task["button"]:
            self._set_pose("button", (STACK_X, y, self._button_z), _UPRIGHT)
            self._set_joint("button", 0.0)
        if task["tray"] is not None:
            self._set_pose("tray", (*task["tray"], TABLE_Z), _UPRIGHT)
        self._task, self._start = task, loose
        self._loose, self._waiting = list(loose), list(loose)
        self.graspable = None if task["object"] is None else task["object"]["shape"]
        self._sliding = False
        if self._gui:  # a window draws bodies where they are
            for name in loose:
                self._free(name)

    def _set_pose(self, name: str, position: tuple, orientation: tuple) -> None:
        pybullet.resetBasePositionAndOrientation(
            self.bodies[name], position, orientation, physicsClientId=self.client
        )

    def _set_joint(self, name: str, value: float) -> None:
        """Put a drawer or the button at `value` metres, held by its brake."""
        body = self.bodies[name]
        pybullet.resetJointState(body, 0, value, physicsClientId=self.client)
        pybullet.setJointMotorControl2(
            body, 0, pybullet.VELOCITY_CONTROL, targetVelocity=0, force=BRAKE,
            physicsClientId=self.client,
        )  # fmt: skip

    # Running

    def step(self, action: list[float]) -> list[float]:
        """One control period of physics, then what the button and lost bodies call for.

        Takes four numbers in [-1, 1] and gives the observation, as `observe`.
        """
        hand = self.arm.command(action)
        if self._waiting:
            self._free_near(hand)
        self.advance()
        seen = self.observe()
        task = self._task
        operable = task["button"] and task["bottom_drawer"] is not None and not self._sliding
        if operable and seen[BUTTON] < self._button_z - PRESSED:
            self._slide_open()
        free = [name for name in self._loose if name not in self._waiting]
        lost = [name for name in free if _lost(*seen[LEGO if name == "lego" else OBJECT])]
        for name in lost:
            self._bring_back(name)
        if lost:
            return self.observe()
        for name in free:
            if not self._near(seen[HAND], name) and self._unmoved(name):
                self._park(name)
        return seen

    def advance(self) -> None:
        """One control period of physics."""
        for _ in range(SUBSTEPS):
            pybullet.stepSimulation(physicsClientId=self.client)

    def _free_near(self, hand: Sequence[float]) -> None:
        for name in list(self._waiting):
            if self._near(hand, name):
                self._free(name)

    def _near(self, hand: Sequence[float], name: str) -> bool:
        """Whether the hand could soon touch a loose body where it started."""
        (x, y, z), _ = self._start[name]
        return (
            abs(hand[0] - x) < NEAR_SIDEWAYS
            and abs(hand[1] - y) < NEAR_SIDEWAYS
            and hand[2] - z < NEAR_ABOVE
        )

    def _unmoved(self, name: str) -> bool:
        """Whether a free body lies where it started and nothing is about to carry it along."""
        if self._gui or (name == "lego" and self._sliding):
            return False
        moved = (
            abs(now - then) >= UNMOVED
            for here, start in zip(self.pose(name), self._start[name], strict=True)
            for now, then in zip(here, start, strict=True)
        )
        return not any(moved)

    def _park(self, name: str) -> None:
        """Let a body that the hand came near but did not move wait again."""
        self._set_mass(name, 0.0)
        self._set_pose(name, self._parking(name), _UPRIGHT)
        pybullet.resetBaseVelocity(
            self.bodies[name], (0, 0, 0), (0, 0, 0), physicsClientId=self.client
        )
        self._waiting.append(name)

    def _free(self, name: str) -> None:
        self._waiting.remove(name)
        self._set_pose(name, *self._start[name])
        self._set_mass(name, self._mass[name])

    def _slide_open(self) -> None:
        """The bottom drawer's motor takes over; a drawer already open stays as it is."""
        self._sliding = True
        if "lego" in self._waiting:
            self._free("lego")
        pybullet.setJointMotorControl2(
            self.bodies["bottom_drawer"], 0, pybullet.POSITION_CONTROL,
            targetPosition=DRAWER_TRAVEL, positionGain=0.1, velocityGain=1.0,
            maxVelocity=SLIDE_SPEED, force=SLIDE_FORCE, physicsClientId=self.client,
        )  # fmt: skip

    def _bring_back(self, name: str) -> None:
        """Drop a lost body where it started (the lego block: in its drawer) and home the arm."""
        (x, y, z), orientation = self._start[name]
        if name == "lego":
            x = LEGO_REST[0] + self.joint("bottom_drawer")
        self._set_pose(name, (x, y, z + FALL), orientation)
        pybullet.resetBaseVelocity(
            self.bodies[name], (0, 0, 0), (0, 0, 0), physicsClientId=self.client
        )
        self.arm.reset(self._task["side"])

    @contextmanager
    def all_in_place(self) -> Iterator[None]:
        """Show waiting bodies where they lie, for a picture, and leave physics as it was."""
        for name in self._waiting:
            self._set_pose(name, *self._start[name])
        yield
        for name in self._waiting:
            self._set_pose(name, self._parking(name), _UPRIGHT)

    # Reading

    def pose(self, name: str) -> tuple[tuple[float, float, float], tuple[float, ...]]:
        """Position, m, and orientation (x, y, z, w); of a loose body: of its centre of mass."""
        if name in self._waiting:
            return self._start[name]
        return pybullet.getBasePositionAndOrientation(
            self.bodies[name], physicsClientId=self.client
        )

    def joint(self, name: str) -> float:
        """How far a drawer is open, or the button up (0 at rest, negative pressed), m."""
        return pybullet.getJointState(self.bodies[name], 0, physicsClientId=self.client)[0]

    def present(self) -> list[str]:
        """Names of the bodies on the table in the present task."""
        furniture = ("bottom_drawer", "handle_drawer", "button", "tray")
        return [name for name in furniture if self._task[name]] + self._loose

    def frames(self, name: str) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """World poses of a body's base and links, as (xyz, xyzw); in the frames of its URDF."""
        c = self.client
        if name == "table":
            body, pose = self.table, (TABLE, _UPRIGHT)
        else:
            body, pose = self.bodies[name], self.pose(name)
        inertial = pybullet.getDynamicsInfo(body, -1, physicsClientId=c)[3:5]
        base = pybullet.multiplyTransforms(*pose, *pybullet.invertTransform(*inertial))
        links = range(pybullet.getNumJoints(body, physicsClientId=c))
        states = [pybullet.getLinkState(body, link, physicsClientId=c) for link in links]
        return [base, *((state[4], state[5]) for state in states)]

    def visuals(self, name: str) -> list[tuple]:
        """A body's drawn primitives: link (-1: base), kind, size, xyz and xyzw in it, rgba.

        Kind and size are PyBullet's: a box and its edges, a cylinder with its length and radius,
        a sphere and its radius, m.
        """
        body = self.table if name == "table" else self.bodies[name]
        shapes = pybullet.getVisualShapeData(body, physicsClientId=self.client)
        return [(link, kind, size, xyz, xyzw, rgba)
                for _, link, kind, size, _, xyz, xyzw, rgba in shapes]  # fmt: skip

    def observe(self) -> list[float]:
        """The 13 numbers of the observation, SI units, world frame; absent objects read 0."""
        task = self._task
        nowhere = (0.0, 0.0, 0.0)
        bottom = button = handle = 0.0
        lego = nowhere
        if task["bottom_drawer"] is not None:
            lego = self.pose("lego")[0]
            bottom = STACK_X + self.joint("bottom_drawer")
        if task["handle_drawer"] is not None:
            opening = self.joint("handle_drawer")
            handle = task["side"] * (STACK_Y - HANDLE_REACH - opening)
        if task["button"]:
            button = self._button_z + self.joint("button")
        graspable = self.pose(self.graspable)[0] if self.graspable else nowhere
        return [
            *self.arm.position(), self.arm.opening(), *graspable, *lego, bottom, handle, button
        ]  # fmt: skip
