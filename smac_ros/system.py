"""Which nodes with which parameters make which system: once, for launch files and ``smac up``.

Wrong arguments are refused here, before anything starts. Imports neither ROS nor PyTorch.
"""

import difflib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smac_core.config import config_directory, domains, load_config
from smac_core.errors import InputError

SHIPPED = "shipped"


class Argument(NamedTuple):
    """``name:=value`` of a system.

    ``kind``: text, integer, number, boolean, name (of ROS), the path of a file that exists, or run:
    that of a folder that exists, or "shipped". ``low`` is the least number. An empty text or path
    stands for what the description says.
    """

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()
    kind: str = "text"
    low: float = -math.inf

    def parse(self, text: str) -> Any:
        """The value.

        Raises:
            InputError: not of the kind, not among the choices.
        """
        expected = f"one of {', '.join(self.choices)}" if self.choices else self.kind
        try:
            value = _PARSE[self.kind](text)
        except (ValueError, KeyError):
            raise InputError("argument", self.name, repr(text), expected) from None
        if self.choices and text not in self.choices:
            raise InputError("argument", self.name, repr(text), expected)
        if self.kind in ("integer", "number") and not self.low <= value < math.inf:
            raise InputError("argument", self.name, text, f"at least {self.low:g}")
        if self.kind == "file" and text and not Path(text).is_file():
            raise InputError("argument", self.name, f"no file {text}", "one that exists")
        if self.kind == "run" and text not in ("", SHIPPED) and not Path(text).is_dir():
            raise InputError("argument", self.name, f"no folder {text}", "one that exists")
        return value


def _name(text: str) -> str:
    stripped = text.strip("/")
    if stripped and not all(part.isidentifier() for part in stripped.split("/")):
        raise ValueError
    return stripped


_PARSE: dict[str, Callable[[str], Any]] = {
    "text": str,
    "run": str,
    "file": str,
    "name": _name,
    "integer": int,
    "number": float,
    "boolean": lambda text: {"true": True, "false": False}[text.lower()],
}


class NodeSpec(NamedTuple):
    """One process of a system.

    Attributes:
        executable: its file in lib/<package>, and its module in the package.
        main: the system ends when it ends, with its exit code.
        required: the system cannot do without it.
    """

    executable: str
    name: str
    parameters: dict[str, Any] = {}
    remappings: Sequence[tuple[str, str]] = ()
    main: bool = False
    namespace: str = ""
    package: str = "smac_ros"
    arguments: Sequence[str] = ()
    required: bool = True


class System(NamedTuple):
    """What can be started by one name."""

    description: str
    arguments: tuple[Argument, ...]
    nodes: Callable[[dict[str, Any]], list[NodeSpec]]  # given an argument's value by its name

    def build(self, arguments: Mapping[str, str]) -> list[NodeSpec]:
        """The system's nodes; arguments that are not given have their defaults.

        Raises:
            InputError: an unknown argument, or a value that cannot be used.
        """
        known = [argument.name for argument in self.arguments]
        for name in arguments:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise InputError("argument", name, "unknown", f"one of {', '.join(known)}{hint}")
        texts = {a.name: arguments.get(a.name, a.default) for a in self.arguments}
        if texts.get("scale") == "smoke":  # ros2 launch gives every argument: a default is no wish
            defaults = {a.name: a.default for a in self.arguments}
            texts |= {n: t for n, t in SMOKE.items() if texts.get(n) == defaults.get(n, ...)}
        values = {a.name: a.parse(texts[a.name]) for a in self.arguments}
        nodes = self.nodes(values)
        if values.get("clock") == "real_time" and values["factor"] != 1:
            nodes = [_on_simulated_time(node) for node in nodes]
        return [node._replace(namespace=values.get("namespace", "")) for node in nodes]


def find_system(name: str) -> System:
    """Raises InputError: there is none of that name."""
    if name not in SYSTEMS:
        close = difflib.get_close_matches(name, SYSTEMS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError("system", "name", repr(name), f"one of {', '.join(SYSTEMS)}{hint}")
    return SYSTEMS[name]


# Arguments

_CLOCK = Argument(
    "clock",
    "lockstep",
    "lockstep: as fast as the machine allows, reproducible; real_time: as a robot does.",
    ("lockstep", "real_time"),
)
_FACTOR = Argument(
    "factor", "1.0", "How much faster than a robot the clock real_time is.", kind="number", low=0.5
)
_SCALE = Argument(
    "scale", "full", "full: as the other arguments say; smoke: all of it, briefly.",
    ("full", "smoke"),
)  # fmt: skip
SMOKE = {
    "iterations": "1",
    "tasks_per_iteration": "2",
    "exploration_trajectories": "2",
    "adapted_trajectories": "2",
    "meta_test_tasks": "3",
}
_NAMESPACE = Argument("namespace", "", "Of all nodes: one robot has one.", kind="name")
_RVIZ = Argument("rviz", "false", "Open RViz.", ("true", "false"), "boolean")
_SEED = Argument("seed", "0", "Of everything random.", kind="integer", low=0)
_CHECKPOINT = Argument("checkpoint", "", "Run folder; empty: the shipped one.", kind="run")
_CONTRACT = Argument("contract", "sawyer_sim", "A name in config/contracts, or a .yaml file.")
_META_TEST = (
    Argument(
        "meta_test_tasks",
        "0",
        "How many held-out tasks, of all behaviours; 0: all.",
        kind="integer",
        low=0,
    ),
    Argument("meta_test_repeats", "1", "Of each; 0: as the run has it.", kind="integer", low=0),
    Argument("horizon", "0", "Steps an episode; 0: as the run has it.", kind="integer", low=0),
)
_PRACTICE = (
    _SCALE,
    Argument("iterations", "15", "Of practice; 0: none.", kind="integer", low=0),
    Argument(
        "episodes",
        "0",
        "Of practice, in all; 0: as iterations, tasks and trajectories say.",
        kind="integer",
        low=0,
    ),
    Argument(
        "meta_test",
        "both",
        "Held-out tasks before or after practice.",
        ("none", "before", "after", "both"),
    ),
    *_META_TEST,
    Argument("tasks_per_iteration", "0", "0: as the run has it.", kind="integer", low=0),
    Argument(
        "exploration_trajectories",
        "0",
        "A task and iteration, before adapting; 0: as the run has it.",
        kind="integer",
        low=0,
    ),
    Argument(
        "adapted_trajectories",
        "-1",
        "A task and iteration, after adapting; -1: as the run has it.",
        kind="integer",
        low=-1,
    ),
    _SEED,
    Argument(
        "run",
        "",
        "Folder the learner writes, resumed if there; empty: runs/<system>_<date>_<time>.",
    ),
    Argument("results", "", "Folder for the meta-test's JSON; empty: in the run's."),
    Argument("dataset", "", "Offline data, if not where the run has them.", kind="file"),
    Argument("device", "auto", "Of the learner: auto, cpu, cuda or cuda:N."),
    Argument("threads", "1", "CPU threads of the learner; 0: all.", kind="integer", low=0),
    _CLOCK,
    _FACTOR,
    _NAMESPACE,
    Argument("start", "true", "Begin at once; else ~/start begins.", ("true", "false"), "boolean"),
)
_SAWYER = (_CHECKPOINT, *_PRACTICE, _CONTRACT, _RVIZ)
_SAWYER_TEST = (
    _CHECKPOINT,
    _SCALE,
    Argument("phase", "", "Of the run; empty: the furthest."),
    *_META_TEST,
    _SEED,
    Argument("results", "", "Folder for the meta-test's JSON; empty: none."),
    _CLOCK,
    _FACTOR,
    _CONTRACT,
    _NAMESPACE,
    _RVIZ,
)
_MUJOCO = (
    Argument("domain", "", "One of the MuJoCo domains, such as cheetah_velocity; empty: no tasks."),
    Argument("environment", "HalfCheetah-v5", "One of Gymnasium's, where no domain is given."),
    Argument(
        "contract",
        "",
        "A name in config/contracts, or a .yaml file; empty: the domain's, without one "
        "half_cheetah.",
    ),
    Argument(
        "checkpoint",
        "",
        "Run folder: to practise with in the domain, without one for a policy; empty: the robot "
        "alone. None is shipped.",
        kind="run",
    ),
    *_PRACTICE,
)
_ALONE = ("seed", "clock", "factor", "namespace")  # of _PRACTICE, what a robot alone has, too


# Systems


def _sawyer_sim(values: dict[str, Any]) -> list[NodeSpec]:
    return _practice(values, _robot(values)) + _rviz(values)


def _practice(values: dict[str, Any], robot: NodeSpec) -> list[NodeSpec]:
    """The robot, and what practises with it and tests it."""
    _check_run(values["checkpoint"])
    values = values | _iterations(values)
    run = values["run"] or time.strftime(f"runs/{robot.name}_%Y%m%d_%H%M%S")
    clock, contract, seed = (values[name] for name in ("clock", "contract", "seed"))
    checkpoint = values["checkpoint"]
    common = {"contract": contract, "checkpoint": checkpoint}
    numbers = ("tasks_per_iteration", "exploration_trajectories", "adapted_trajectories", "horizon")
    labeler = common | {
        "phase": "offline",
        "dataset": values["dataset"],
        "clock": clock,
        "seed": seed,
    }
    learner = common | {
        "run": run,
        "dataset": values["dataset"],
        "device": values["device"],
        "threads": values["threads"],
        "seed": seed,
        "set": _changes(values),
    }
    manager = common | {
        "clock": clock,
        "seed": seed,
        "robot": robot.name,
        "results": values["results"] or f"{run}/meta_test",
        "start": values["start"],
        **{name: values[name] for name in (*numbers, "iterations", "meta_test")},
        **{name: values[name] for name in ("meta_test_tasks", "meta_test_repeats")},
    }
    nodes = [robot, _policy(values, "offline")]
    if values["iterations"]:
        nodes += [
            NodeSpec("reward_labeler_node", "reward_labeler", labeler),
            NodeSpec("learner_node", "learner", learner),
        ]
    elif not values["results"]:
        manager["results"] = ""  # without practice there is no run to put them into
    nodes.append(NodeSpec("episode_manager_node", "episode_manager", manager, main=True))
    return nodes


def _meta_test(values: dict[str, Any]) -> list[NodeSpec]:
    names = ("contract", "checkpoint", "clock", "seed", "horizon", "results")
    manager = {name: values[name] for name in names} | {
        "robot": "sawyer_sim",
        "iterations": 0,
        "meta_test": "before",
        "meta_test_tasks": values["meta_test_tasks"],
        "meta_test_repeats": values["meta_test_repeats"],
    }
    main = NodeSpec("episode_manager_node", "episode_manager", manager, main=True)
    return [_robot(values), _policy(values, values["phase"]), main, *_rviz(values)]


def _mujoco_sim(values: dict[str, Any]) -> list[NodeSpec]:
    domain, checkpoint = values["domain"], values["checkpoint"]
    contract = values["contract"] or domain or "half_cheetah"
    _refuse_unused(values)
    values = values | {"contract": contract}
    parameters = {name: values[name] for name in ("contract", "clock", "factor", "seed")}
    world = {"environment": values["environment"]}
    if domain:
        world = _world(domain, checkpoint)
    _check_contract(contract)
    robot = NodeSpec("mujoco_sim_node", "mujoco_sim", parameters | world)
    if not checkpoint:
        return [robot]
    if domain:
        return _practice(values, robot)
    _check_run(checkpoint)
    return [robot, _policy(values, "")]


def _refuse_unused(values: dict[str, Any]) -> None:
    """Raise InputError for what a MuJoCo robot's other arguments leave without effect."""
    domain, checkpoint = values["domain"], values["checkpoint"]
    if checkpoint == SHIPPED:
        expected = f"a run's folder: none is shipped for {domain or 'a MuJoCo robot'}"
        raise InputError("argument", "checkpoint", checkpoint, expected)
    unused = {}
    if not (domain and checkpoint):
        expected = "its default, as nothing practises without a domain and a checkpoint"
        unused = {argument.name: expected for argument in _PRACTICE if argument.name not in _ALONE}
    if domain:
        unused["environment"] = f"its default, as {domain} has its own"
    for argument in _MUJOCO:
        name = argument.name
        if name in unused and values[name] != argument.parse(argument.default):
            raise InputError("argument", name, values[name], unused[name])


def _world(domain: str, checkpoint: str) -> dict[str, str]:
    """A domain's environment, as the run has it that is to act there."""
    contracts = config_directory() / "contracts"
    known = [name for name in domains() if (contracts / f"{name}.yaml").is_file()]
    if domain not in known:
        close = difflib.get_close_matches(domain, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError("argument", "domain", repr(domain), f"one of {', '.join(known)}{hint}")
    environment = load_config(domain, "paper").environment.model_dump()
    if checkpoint:
        _check_run(checkpoint)
        config = _configuration(checkpoint)
        if config["domain"] != domain:
            raise InputError(_run_folder(checkpoint), "domain", repr(config["domain"]), domain)
        environment = config["environment"]
    options = environment.get("kwargs")
    return {"environment": environment["id"], "options": json.dumps(options) if options else ""}


def _robot(values: dict[str, Any]) -> NodeSpec:
    _check_contract(values["contract"])
    _check_run(values["checkpoint"])
    parameters = {name: values[name] for name in ("contract", "clock", "factor")}
    return NodeSpec("sawyer_sim_node", "sawyer_sim", parameters)


def _on_simulated_time(node: NodeSpec) -> NodeSpec:
    """A robot whose seconds are not the clock's publishes its own, and the others go by it."""
    clock = "publish_clock" if node.executable.endswith("sim_node") else "use_sim_time"
    return node._replace(parameters=node.parameters | {clock: True})


def _policy(values: dict[str, Any], phase: str) -> NodeSpec:
    parameters = {
        "contract": values["contract"],
        "clock": values["clock"],
        "checkpoint": values["checkpoint"] or "shipped",
        "phase": phase,
    }
    return NodeSpec("policy_node", "policy", parameters)


def _rviz(values: dict[str, Any]) -> list[NodeSpec]:
    if not values["rviz"]:
        return []
    view = _rviz_view()
    if not view.is_file():
        raise InputError(view, "file", "nothing", "what RViz is to show, or rviz:=false")
    own_frames = (("/tf", "tf"), ("/tf_static", "tf_static"))  # of the robot in the namespace
    return [
        NodeSpec(
            "rviz2",
            "rviz2",
            package="rviz2",
            arguments=("-d", str(view)),
            remappings=own_frames,
            required=False,
        )
    ]


def _rviz_view() -> Path:
    return config_directory() / "rviz" / "sawyer.rviz"


def _check_contract(name: str) -> None:
    from smac_ros.contract import load_contract

    load_contract(name)


def _run_folder(checkpoint: str) -> Path:
    shipped = config_directory().parent / "pretrained" / "sawyer"
    return shipped if checkpoint in ("", SHIPPED) else Path(checkpoint)


def _check_run(checkpoint: str) -> None:
    folder = _run_folder(checkpoint)
    if not (folder / "run.json").is_file():
        raise InputError(
            folder, "run.json", "no such file", "a run's folder, as smac train makes it"
        )


def _configuration(checkpoint: str) -> dict[str, Any]:
    """What a run was configured with."""
    return json.loads((_run_folder(checkpoint) / "run.json").read_text())["config"]


def _iterations(values: dict[str, Any]) -> dict[str, int]:
    """What ``episodes`` of practice are in iterations and, for less than one, in tasks."""
    episodes = values["episodes"]
    if not episodes:
        return {}
    practice = _configuration(values["checkpoint"])["self_supervised"]
    tasks = values["tasks_per_iteration"] or practice["tasks_per_iteration"]
    explored = values["exploration_trajectories"] or practice["exploration_trajectories"]
    adapted = values["adapted_trajectories"]
    each = explored + (practice["adapted_trajectories"] if adapted < 0 else adapted)
    tasks = min(tasks, math.ceil(episodes / each))
    return {"iterations": math.ceil(episodes / (tasks * each)), "tasks_per_iteration": tasks}


def _changes(values: dict[str, Any]) -> list[str]:
    """What practice has otherwise than the run's configuration, as the learner is told."""
    sections = {
        "self_supervised": ("tasks_per_iteration", "exploration_trajectories"),
        "environment": ("horizon",),
    }
    changes = [
        f"{section}.{name}={values[name]}"
        for section, names in sections.items()
        for name in names
        if values[name]
    ]
    if values["adapted_trajectories"] >= 0:
        changes.append(f"self_supervised.adapted_trajectories={values['adapted_trajectories']}")
    return changes or [""]  # ROS does not know the type of an empty list


SYSTEMS = {
    "sawyer_sim": System(
        "The whole idea on a simulated Sawyer: held-out tasks before and after practice without "
        "rewards. Ends with a table.",
        _SAWYER,
        _sawyer_sim,
    ),
    "meta_test": System(
        "Held-out tasks on a simulated Sawyer, without practice. Ends with a table.",
        _SAWYER_TEST,
        _meta_test,
    ),
    "mujoco_sim": System(
        "A MuJoCo robot. With a domain and a checkpoint as sawyer_sim: held-out tasks before and "
        "after practice; with a checkpoint alone its policy, until it falls or Ctrl-C.",
        _MUJOCO,
        _mujoco_sim,
    ),
}
