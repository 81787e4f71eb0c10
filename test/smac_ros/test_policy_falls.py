"""A robot that ends its episode itself, in either order of its messages; no topics involved."""

import pytest

pytest.importorskip("rclpy")

from policy_robot import CONTRACT, FIRST, PERIOD, contract_text, make_agent, observations  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from smac_ros.contract import Contract  # noqa: E402
from smac_ros.messages import Begin, End, set_stamp, stamp_ns  # noqa: E402
from smac_ros.policy import FALLEN, Policy  # noqa: E402
from smac_ros.policy_episode import PolicyEpisode  # noqa: E402
from smac_ros.weights import Weights  # noqa: E402

LATENTS = {"explore": "step", "adapt": "step", "exploit": "sample"}
CLOCKS = pytest.mark.parametrize("lockstep", [True, False], ids=["lockstep", "real_time"])
MODES = pytest.mark.parametrize("mode", LATENTS)


class Stage:
    """A policy, and everything it talks to; ticks are numbered from the episode's first."""

    open, waiting, faults, foreign, unheard = True, False, (), "", ""

    def __init__(self, lockstep: bool, text: str = CONTRACT):
        self.now, self.present = FIRST, Weights(make_agent(), 1, "")
        self.commands: list[tuple[int, bool]] = []  # stamp, and whether it moves the robot
        self.ends: list[End] = []
        self.counts: dict[str, str] = {}
        self.policy = Policy(
            Contract.from_text(contract_text(text), "bench"),
            lockstep=lockstep,
            commands=self,
            classes={"sensor_msgs/msg/JointState": JointState},
            receiver=self,
            diagnostics=self,
            announce=self.ends.append,
            show=lambda posterior: None,
            now=lambda: self.now,
        )

    def publish(self, messages):
        (message,) = messages
        self.commands.append((stamp_ns(message.header.stamp), any(message.velocity)))

    def count(self, what, message="", by=1):
        self.counts[what] = message

    def clear(self, what): ...

    def begin(self, mode="explore", steps=5, start=0, id=0, endless=False):
        begin = Begin(
            session=7,
            id=id,
            start=0 if endless else FIRST + start * PERIOD,
            steps=steps,
            purpose="exploration",
            mode=mode,
            group=0,
            seed=3,
            latent=LATENTS[mode],
        )
        self.policy.begin(PolicyEpisode(begin, endless=endless))

    def observe(self, tick):
        self.now = stamp = FIRST + tick * PERIOD
        values = observations(1)[0].astype(float)
        for index, (names, part) in enumerate(((["a", "b"], values[:2]), (["c"], values[2:]))):
            message = JointState(name=names, position=part)
            set_stamp(message.header.stamp, stamp)
            self.policy.observe(index, stamp, message)

    def pay(self, tick):
        message = JointState(name=["reward"], position=[float(tick)])
        self.policy.reward(FIRST + tick * PERIOD, message)

    def play(self, ticks):
        for tick in range(ticks):
            if tick:
                self.pay(tick)
            self.observe(tick)

    def fall(self, tick):
        self.policy.terminated(FIRST + tick * PERIOD)

    @property
    def stands(self) -> bool:
        """Whether the last command was the safe one."""
        return not self.commands[-1][1]


@CLOCKS
@MODES
@pytest.mark.parametrize("observed_first", [False, True])
def test_a_fall_ends_the_episode_there(lockstep, mode, observed_first):
    stage = Stage(lockstep)
    stage.begin(mode)
    stage.play(3)
    for act in (stage.observe, stage.fall) if observed_first else (stage.fall, stage.observe):
        act(3)
    given = 3 + observed_first  # the last one is no step
    assert len([moves for _, moves in stage.commands if moves]) == given
    assert stage.stands == (not lockstep), "also while the last reward is awaited"
    if mode == "adapt":
        assert not stage.ends
        stage.observe(3)  # in lockstep the robot says it again, and is not answered any more
        assert stage.policy.repeated == 0
        stage.pay(3)
        assert len(stage.policy.context) == 1
        (rows,) = stage.policy.context._rows.values()
        assert rows[2].tolist() == [1, 2, 3]
    assert stage.ends == [End(7, 0, 3, FIRST + 3 * PERIOD, "complete", True)]
    assert len([moves for _, moves in stage.commands if moves]) == given and not stage.counts


@CLOCKS
def test_a_fall_at_the_last_step_keeps_its_mark(lockstep):
    """Adapting awaits the last reward; otherwise the episode is over, and the labeler marks it."""
    stage = Stage(lockstep)
    stage.begin("adapt", steps=3)
    stage.play(3)
    stage.observe(3)
    stage.fall(3)
    stage.pay(3)
    assert stage.ends == [End(7, 0, 3, FIRST + 3 * PERIOD, "complete", True)]


@MODES
@pytest.mark.parametrize("begun_first", [False, True])
def test_a_fall_before_the_first_command(mode, begun_first):
    """It is said once, and a robot that lies there is no beginning."""
    stage = Stage(lockstep=False)
    acts = [lambda: stage.begin(mode), lambda: stage.fall(1)]
    for act in acts if begun_first else acts[::-1]:
        act()
    stage.observe(2)
    assert stage.ends == [End(7, 0, 0, FIRST, f"stopped: {FALLEN}")] and not stage.commands
    stage.begin(mode, start=3, id=1)  # after a reset
    stage.observe(3)
    assert stage.commands == [(FIRST + 3 * PERIOD, True)] and len(stage.ends) == 1


@MODES
def test_all_commands_are_taken_back(mode):
    stage = Stage(lockstep=False)
    stage.begin(mode)
    stage.observe(1)
    episode = stage.policy.episode
    stage.fall(1)
    assert stage.ends == [End(7, 0, 0, FIRST + PERIOD, f"stopped: {FALLEN}", True)]
    assert stage.commands[0][1] and stage.stands
    rows, missing = episode.rows(stage.policy._reader)
    assert [len(part) for part in rows] == [0, 0, 0] and missing == 0


@pytest.mark.parametrize(
    ("lockstep", "time", "stamp", "last"),
    [
        (False, "header", 0, "now"),  # a robot that does not stamp it
        (False, "receive", 1, "now"),  # one whose own clock is behind
        (False, "header", FIRST - 1, "ignored"),
        (True, "header", 0, "ignored"),
    ],
)
def test_stamps_of_another_clock(lockstep, time, stamp, last):
    stage = Stage(lockstep, CONTRACT.replace("time: header", f"time: {time}"))
    stage.begin()
    stage.play(3)
    stage.now += 1000
    stage.policy.terminated(stamp)
    if last == "now":
        assert stage.ends == [End(7, 0, 3, stage.now, "complete", True)] and not stage.counts
    else:
        said = f"terminated: found stamp {stamp}, expected after {FIRST}"
        assert stage.counts == {"ends by the robot ignored": said} and not stage.ends


@CLOCKS
def test_without_a_manager_it_is_counted(lockstep):
    stage = Stage(lockstep)
    stage.begin("adapt", endless=True)
    stage.play(3)
    stage.pay(3)
    stage.fall(3)
    assert stage.policy.episode is None and stage.stands == (not lockstep)
    assert list(stage.counts) == ["episodes ended by the robot"] and not stage.ends
    (rows,) = stage.policy.context._rows.values()
    assert rows[2].tolist() == [1, 2, 3], "the last step counts"
