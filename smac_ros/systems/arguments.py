"""Arguments that several systems have."""

from smac_ros.systems.specification import Argument

CLOCK = Argument(
    "clock",
    "lockstep",
    "lockstep: as fast as the machine allows, reproducible; real_time: as a robot does.",
    ("lockstep", "real_time"),
)
FACTOR = Argument(
    "factor", "1.0", "How much faster than a robot the clock real_time is.", kind="number", low=0.5
)
SCALE = Argument(
    "scale", "full", "full: as the other arguments say; smoke: all of it, briefly.",
    ("full", "smoke"),
)  # fmt: skip
NAMESPACE = Argument("namespace", "", "Of all nodes: one robot has one.", kind="name")
SEED = Argument("seed", "0", "Of everything random.", kind="integer", low=0)
CHECKPOINT = Argument(
    "checkpoint",
    "",
    "Run folder, or without practice an export's; empty: the shipped one.",
    kind="run",
)
CONTRACT = Argument("contract", "sawyer_sim", "A name in config/contracts, or a .yaml file.")
RECORD = Argument("record", "", "New folder for a recording of the robot; empty: none.")
META_TEST = (
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
PRACTICE = (
    SCALE,
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
    *META_TEST,
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
    SEED,
    Argument(
        "run",
        "",
        "Folder the learner writes, resumed if there; empty: runs/<system>_<date>_<time>.",
    ),
    Argument("results", "", "Folder for the meta-test's JSON; empty: in the run's."),
    Argument("dataset", "", "Offline data, if not where the run has them.", kind="file"),
    Argument("device", "auto", "Of the learner: auto, cpu, cuda or cuda:N."),
    Argument("threads", "1", "CPU threads of the learner; 0: all.", kind="integer", low=0),
    CLOCK,
    FACTOR,
    NAMESPACE,
    Argument("start", "true", "Begin at once; else ~/start begins.", ("true", "false"), "boolean"),
    RECORD,
)
