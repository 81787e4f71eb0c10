"""What goes wrong on a robot, with real nodes: survived or refused, said aloud, and never unsafe.

Where a node is killed it is a process, the others live in this one. Every test ends with a look at
all commands that were given (``system_processes.Bench``).
"""

import json
import random
import shutil

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")

from std_msgs.msg import String, UInt8MultiArray
from system_processes import HORIZON, PRACTICE, SHIPPED

from smac_core.agents.context import Agent
from smac_core.training.run import load_agent
from smac_ros.base_node import latched, reliable
from smac_ros.contract import message_class
from smac_ros.learner_node import LearnerNode
from smac_ros.messages import SECOND, Begin, pack_weights
from smac_ros.policy_node import PolicyNode
from smac_ros.reward_labeler_node import RewardLabelerNode

pytest_plugins = ["system_processes"]

LOCKSTEP = {"checkpoint": "shipped", "clock": "lockstep"}
AN_ITERATION = PRACTICE["exploration_trajectories"] + PRACTICE["adapted_trajectories"]


def policy(bench, **parameters):
    return bench.start(PolicyNode, **LOCKSTEP | {"settle": 0.0} | parameters)


def learner(bench, **parameters):
    """In this process; steps few enough to be quick."""
    changes = [f"self_supervised.{key}={value}" for key, value in PRACTICE.items()]
    settings = {"run": str(bench.folder / "run"), "device": "cpu", "patience": 1.0}
    settings["set"] = [*changes, f"environment.horizon={HORIZON}"]
    return bench.start(LearnerNode, **settings | parameters)


class Link:
    """Between a robot and its policy: passes observations and commands on, but not all of them.

    Attributes:
        loss: share of messages that are lost.
        lost, passed: how many were.
    """

    def __init__(self, bench):
        self.node = bench.ros.node("link", namespace=bench.namespace)
        self.loss, self.lost, self.passed = 0.0, 0, 0
        self._random = random.Random(0)
        contract, self.remappings = bench.contract, []
        for stream in contract.observations:
            self._pass(stream.type, stream.topic, f"far/{stream.topic}")
            self.remappings.append((stream.topic, f"far/{stream.topic}"))
        for command in contract.actions:
            self._pass(command.type, f"far/{command.topic}", command.topic)
            self.remappings.append((command.topic, f"far/{command.topic}"))

    def _pass(self, kind: str, here: str, there: str):
        publisher = self.node.create_publisher(message_class(kind), there, reliable(10))

        def take(message):
            if self._random.random() < self.loss:
                self.lost += 1
            else:
                self.passed += 1
                publisher.publish(message)

        self.node.create_subscription(message_class(kind), here, take, reliable(10))


def test_a_lossy_link_costs_time_only(bench):
    """Each message may be lost with 3 %; observations and commands, in lockstep."""
    link = Link(bench)
    robot = bench.robot(resend=0.04)
    far = policy(bench, remappings=tuple(link.remappings))
    returns = []
    for loss in (0.0, 0.03):
        link.loss = loss
        folder = bench.folder / f"loss_{loss}"
        manager = bench.manager(meta_test="before", meta_test_tasks=2, results=str(folder))
        bench.finish(manager)
        assert not manager.diagnostics.counts
        bench.leave(manager)
        report = json.loads((folder / "meta_test_before.json").read_text())
        assert report["complete"]
        returns.append([report["returns"], report["exploration_returns"]])
    assert link.lost > 8
    assert returns[0] == returns[1]
    heard = bench.recorder
    bench.until(lambda: int(heard.shown("sawyer_sim", "resends") or 0) > 3, "resends")
    bench.until(lambda: int(heard.shown("policy", "repeated_answers") or 0) > 0, "answers again")
    assert not robot.diagnostics.faults and not far.diagnostics.faults
    half = len(heard.begins) // 2
    ends = heard.episode_ends(heard.begins)
    episodes = list(zip(heard.begins, ends, strict=True))
    for clean, lossy in zip(episodes[:half], episodes[half:], strict=True):
        np.testing.assert_array_equal(heard.actions(*clean), heard.actions(*lossy))


def test_every_node_speaks_once_a_second(bench):
    """On /diagnostics, also when nothing happens."""
    bench.robot()
    policy(bench)
    bench.start(RewardLabelerNode, **LOCKSTEP)
    learner(bench)
    bench.manager(start=False)
    heard = bench.recorder
    names = {"sawyer_sim", "policy", "reward_labeler", "learner", "episode_manager"}
    bench.until(lambda: names <= heard.statuses.keys())
    before = {name: len(heard.statuses[name]) for name in names}
    bench.until(lambda: all(len(heard.statuses[n]) >= before[n] + 2 for n in names), f"{before}")


def test_late_nodes_are_waited_for(bench):
    """The manager first; then one node after the other, when it has been missed."""
    bench.robot()
    manager = bench.manager(iterations=1)
    heard = bench.recorder
    for name, start in (
        ("a policy", policy),
        ("a reward labeler", lambda bench: bench.start(RewardLabelerNode, **LOCKSTEP)),
        ("a learner", learner),
    ):
        bench.until(lambda name=name: name in (heard.shown("episode_manager", "phase") or ""), name)
        assert not heard.begins
        start(bench)
    bench.finish(manager)
    bench.until(lambda: len(heard.labelled) == AN_ITERATION and 1 in heard.versions)
    assert len(heard.begins) == AN_ITERATION and not manager.diagnostics.counts
    heard.episode_ends(heard.begins)


@pytest.mark.slow
@pytest.mark.parametrize(("job", "episode"), [("meta_test", 2), ("practice", 3)])
def test_a_policy_killed_in_an_episode(bench, job, episode):
    """Its context dies with it: the manager plays all episodes in that task again."""
    bench.robot()
    first = bench.policy()
    settings = {"meta_test": "before"}
    if job == "practice":
        bench.start(RewardLabelerNode, **LOCKSTEP)
        learner(bench)
        settings = {"iterations": 1}
    manager = bench.manager(timeout=12.0, **settings)
    heard = bench.recorder

    def kill(command: int):
        if command == 4 and len(heard.begins) == episode:
            heard.on_command = lambda command: None
            first.kill()

    heard.on_command = kill
    bench.until(lambda: first.popen.poll() is not None, "the end of the policy")
    second = bench.policy()
    bench.finish(manager)
    assert second.end() == 0, second.text

    def complete() -> set[int]:
        return {end.id for end in heard.ends if end.reason == "complete"}

    bench.until(lambda: heard.begins[-1].id in complete(), "the last end")
    played = [begin for begin in heard.begins if begin.id in complete()]
    explores = "adapt" if job == "meta_test" else "explore"
    assert [begin.mode for begin in played] == [*[explores] * 4, "exploit"]
    assert len({begin.group for begin in played[:2]}) == len({b.group for b in played[2:]}) == 1
    assert [played[i].seed for i in (0, 2)] == [heard.begins[0].seed] * 2, "the very same again"
    assert manager.diagnostics.counts["episodes given up"] >= 1
    heard.diagnosed("episode_manager", "the policy did not end it within")
    assert "its context is made anew" in heard.log("episode_manager")


def test_without_its_policy_a_robot_stands_still(bench):
    """In real time, within the robot's own command_timeout."""
    bench.robot(clock="real_time", command_timeout=0.3)
    process = bench.policy(clock="real_time")
    heard = bench.recorder
    episodes = heard.node.create_publisher(String, "episode", reliable(100))
    bench.until(lambda: heard.node.count_publishers("hand_command"), "the policy")
    bench.until(lambda: episodes.get_subscription_count() > 1, "the policy listens")
    stamp = max(heard.observations)
    begin = Begin(1, 1, stamp, 10**6, "exploration", "explore", 1, seed=3, latent="trajectory")
    episodes.publish(String(data=begin.to_json()))
    bench.until(lambda: len(heard.commands) > 10, "commands")
    process.kill()
    killed = max(heard.observations)

    def hand(after: float) -> np.ndarray:
        """Observation so many seconds after the kill; the arm needs a moment to settle."""
        wanted = killed + int(after * SECOND)
        bench.until(lambda: max(heard.observations) > wanted + SECOND // 10)
        return heard.observation(min(s for s in heard.observations if s >= wanted))[:3]

    assert any(np.abs(values).max() > 0.1 for _, index, values in heard.commands if index == 0)
    stopped = hand(0.3 + 0.3)
    np.testing.assert_allclose(hand(1.2), stopped, atol=1e-3)
    assert heard.shown("sawyer_sim", "state") == "active"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["practice", "updates"])
def test_a_learner_killed_in_an_iteration(bench, moment):
    """It goes on from its last version, the policy with the ones that follow."""
    bench.robot()
    run = bench.folder / "run"
    slow = {"gradient_steps_per_transition": 4.0 if moment == "updates" else 0.06}
    first = bench.learner(run, **slow)
    labeler = bench.start(RewardLabelerNode, **LOCKSTEP)
    acts = policy(bench)
    manager = bench.manager(iterations=3, timeout=15.0)
    heard = bench.recorder
    if moment == "practice":
        bench.until(lambda: len(heard.labelled) > AN_ITERATION, "the second iteration")
    else:
        bench.until(lambda: len(heard.labelled) == 2 * AN_ITERATION, "its practice")
        bench.until(lambda: int(manager._conductor.progress["updates_owed"]) > 0, "updates")
    first.kill()
    assert heard.versions[-1] == 1
    second = bench.learner(run)
    bench.finish(manager)
    assert f"{run} resumed at iteration 1" in second.text
    bench.until(lambda: max(heard.versions) >= 2, "new weights")
    assert heard.versions == sorted(heard.versions)
    bench.until(lambda: acts._receiver.present.version == max(heard.versions), "its weights")
    assert labeler.diagnostics.counts.keys() <= {"weights of another run", "refused weights"}
    assert second.end() == 0, second.text
    assert "Traceback" not in second.text
    heard.told("episode_manager", "the learner was started again")


@pytest.mark.slow
def test_a_labeler_killed_in_practice(bench):
    """The manager plays again what was not labelled; the learner goes on."""
    bench.robot()
    learns = learner(bench)
    settings = LOCKSTEP | {"seed": 1}
    first = bench.process("reward_labeler", **settings)
    policy(bench)
    manager = bench.manager(iterations=1, timeout=12.0)
    heard = bench.recorder
    bench.until(lambda: heard.labelled, "the first label")
    first.kill()
    second = bench.process("reward_labeler", **settings)
    bench.finish(manager)
    assert second.end() == 0 and "Traceback" not in second.text
    bench.until(lambda: max(heard.versions) >= 1, "new weights")
    assert {t.sequence for t in heard.labelled[1:]} >= {0}
    assert manager.diagnostics.counts["labels missing"] >= 1
    heard.told("episode_manager", "episodes were not labelled")
    assert not learns.diagnostics.faults


def test_a_strangers_weights_change_nothing(bench):
    """Of another size, with NaN, for another contract, without any order: refused by name."""
    robot, acts = bench.robot(), policy(bench)
    heard = bench.recorder
    agent, config, _ = load_agent(SHIPPED, "offline")
    small = config.networks.model_copy(update={"policy_hidden": [8]})
    broken = Agent(13, 4, config.networks)
    with torch.no_grad():
        broken.policy.body[0].weight[0, 0] = float("nan")
    other = bench.contract.text.replace("rate: 24.0", "rate: 12.0")
    own = {
        "version": 5,
        "run": "stranger",
        "domain": "sawyer",
        "observation_dim": 13,
        "action_dim": 4,
        "networks": config.networks.model_dump(mode="json"),
        "contract": None,
    }
    cases = [
        (Agent(13, 4, small), own | {"networks": small.model_dump(mode="json")}, "found (8, 18)"),
        (broken, own, "policy.body.0.weight: found NaN or infinity"),
        (agent, own | {"contract": other}, "rate: found 12.0; expected 24.0"),
        (agent, own | {"version": "new"}, "version: found 'new'; expected int"),
    ]
    stranger = heard.node.create_publisher(UInt8MultiArray, "weights", latched())
    undisturbed = None
    for number, case in enumerate([None, *cases]):

        def interrupt(count: int, case=case):
            if case and count == 3 and heard.begins[-1].mode == "exploit":
                stranger.publish(pack_weights(case[0].state_dict(), case[1]))

        heard.on_command = interrupt
        manager = bench.manager(meta_test="before", seed=2)
        bench.finish(manager)
        bench.leave(manager)
        end = heard.episode_ends(heard.begins[-3:])[-1]
        actions = heard.actions(heard.begins[-1], end)
        undisturbed = actions if case is None else undisturbed
        np.testing.assert_array_equal(actions, undisturbed)
        if case:
            heard.diagnosed("policy", case[2])
            assert acts.diagnostics.counts == {"refused weights": number}
    heard.told("policy", cases[0][2])
    assert heard.shown("policy", "refused weights") == str(len(cases))
    assert heard.shown("policy", "weights") == "0"
    assert not robot.diagnostics.faults and not acts.diagnostics.faults


@pytest.mark.slow
def test_a_second_policy_waits_until_the_first_is_gone(bench):
    bench.robot()
    first = bench.policy()
    heard = bench.recorder
    bench.until(lambda: heard.node.count_publishers("hand_command") == 1, "the first one")
    second = bench.policy(name="second", settle=1.0)
    heard.diagnosed("second", f"another publisher on hand_command: /{bench.namespace}/policy")
    assert "another publisher on " in second.text
    bench.finish(manager := bench.manager(meta_test="before"))
    assert heard.node.count_publishers("hand_command") == 1
    heard.episode_ends(heard.begins)
    assert not manager.diagnostics.counts
    bench.leave(manager)
    given = len(heard.commands)
    first.kill()
    bench.until(lambda: "over: another publisher" in second.text, "the robot is free")
    bench.finish(bench.manager(meta_test="before"))
    bench.until(lambda: len(heard.commands) >= given + 2 * 3 * HORIZON, "commands")
    assert second.end() == 0


@pytest.mark.slow
def test_what_does_not_fit_ends_the_process(bench):
    """Exit code 1 and one line that names both sides, no traceback."""
    damaged = bench.folder / "damaged.h5"
    whole = (SHIPPED / "history.h5").read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    shutil.copy(SHIPPED / "history.h5", bench.folder / "whole.h5")
    given = {"checkpoint": str(SHIPPED)}
    run = {"run": str(bench.folder / "new"), "device": "cpu"}
    cheetah = {"contract": "half_cheetah"}
    both = ("pretrained/sawyer", "expected", "hand_x", "in contract half_cheetah")
    cases = [
        ("policy", given | cheetah, both),
        ("reward_labeler", given | cheetah, both),
        ("learner", given | run | cheetah, both),
        ("reward_labeler", given | {"dataset": str(damaged)}, (str(damaged),)),
        ("learner", given | run | {"dataset": str(damaged)}, (str(damaged),)),
    ]
    for two in (cases[:2], cases[2:4], cases[4:]):
        for process, (kind, _, words) in [(bench.process(k, **p), (k, p, w)) for k, p, w in two]:
            assert process.popen.wait(30) == 1, (kind, process.text)
            assert "Traceback" not in process.text, process.text
            lines = [line for line in process.text.splitlines() if all(w in line for w in words)]
            assert lines and "found" in lines[0], (kind, process.text)
    assert not (bench.folder / "new").exists()
