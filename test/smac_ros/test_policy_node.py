"""The policy node over real topics; ``policy_robot.Robot`` plays all others."""

import array

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from policy_robot import (
    DS,
    FIRST,
    NETWORKS,
    PATIENT,
    PERIOD,
    WATCHED,
    Robot,
    contract_text,
    limited,
    make_agent,
    observations,
    random_rows,
)
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import String, UInt8MultiArray

from smac_core import checkpoint
from smac_core.agents.context import Agent
from smac_core.config import Networks, load_config
from smac_core.controller import Controller
from smac_ros.contract import load_contract
from smac_ros.messages import End, set_stamp, stamp_ns
from smac_ros.policy_node import FAREWELL, PolicyNode


@pytest.fixture
def contract(tmp_path):
    path = tmp_path / "bench.yaml"
    path.write_text(contract_text())
    return path


@pytest.fixture
def robot(ros, contract):
    """A lockstep robot with an active policy of random weights."""
    return Robot(ros, contract).start(make_agent())


@pytest.fixture
def live(ros, contract):
    """The same in real time, with patience."""
    contract.write_text(contract_text(**PATIENT))
    return Robot(ros, contract, clock="real_time").start(make_agent())


@pytest.fixture
def watched(ros, contract):
    """The same in real time; its silence is told after a second."""
    contract.write_text(contract_text(**WATCHED))
    return Robot(ros, contract, clock="real_time").start(make_agent())


# Episodes


def test_acts_as_the_controller_does_then_ends(robot):
    seen = observations(6)
    robot.begin()
    robot.play(seen)
    assert robot.end() == End(7, 0, 5, FIRST + 5 * PERIOD)
    controller = Controller(make_agent())
    controller.begin("explore", seed=3, deterministic=False, latent="step")
    expected = limited([controller.act(observation) for observation in seen[:5]])
    np.testing.assert_array_equal(robot.values(), expected)
    assert robot.stamps() == [FIRST + step * PERIOD for step in range(5)]
    assert robot.policy.policy.writer.limited == np.sum(np.abs(expected) == 0.4)


def test_rehearsals_leave_no_trace(robot):
    """Before the next observation is due, the control path runs for nothing."""
    seen = observations(6)
    robot.begin()
    for step, observation in enumerate(seen[:5]):
        robot.observe(observation, FIRST + step * PERIOD)
        robot.answer(step + 1)
        for _ in range(3):
            robot.policy._rehearsal.run(robot.policy._receiver.present)
    assert robot.policy._rehearsal.steps == 14  # and one to take the weights
    controller = Controller(make_agent())
    controller.begin("explore", seed=3, deterministic=False, latent="step")
    expected = limited([controller.act(observation) for observation in seen[:5]])
    np.testing.assert_array_equal(robot.values(), expected)
    assert robot.stamps() == [FIRST + step * PERIOD for step in range(5)]
    assert robot.policy.policy.writer.limited == np.sum(np.abs(expected) == 0.4)


def test_the_same_observation_gets_the_same_answer(robot):
    """A lost message must neither hang lockstep nor cost a random number."""
    seen = observations(3)
    robot.begin(steps=2)
    for count in (1, 2, 3):
        robot.observe(seen[0], FIRST)
        robot.answer(count)
    robot.observe(seen[1], FIRST + PERIOD)
    robot.answer(4)
    controller = Controller(make_agent())
    controller.begin("explore", seed=3, deterministic=False, latent="step")
    expected = limited([controller.act(observation) for observation in seen[:2]])
    np.testing.assert_array_equal(robot.values(), expected[[0, 0, 0, 1]])
    assert robot.policy.policy.repeated == 2


def test_the_observation_may_come_before_its_episode(robot):
    stamp = robot.observe(observations(1)[0], FIRST)
    robot.until(lambda: robot.policy.policy._tick == stamp)
    assert not robot.commands
    robot.begin()
    assert stamp_ns(robot.answer(1).header.stamp) == FIRST


def test_earlier_observations_are_not_the_episodes(robot):
    robot.begin(start=FIRST + PERIOD)
    for step in range(2):
        robot.observe(observations(2)[step], FIRST + step * PERIOD)
    robot.answer(1)
    assert robot.stamps() == [FIRST + PERIOD]


def test_a_new_episode_supersedes_the_running_one(robot):
    robot.begin()
    robot.play(observations(3))
    robot.begin(id=1, start=FIRST + 3 * PERIOD, steps=1)
    robot.play(observations(2), FIRST + 3 * PERIOD)
    robot.end(2)
    assert [(end.id, end.steps, end.reason) for end in robot.ends] == [
        (0, 3, "superseded by episode 1"),
        (1, 1, "complete"),
    ]


def test_an_episode_that_the_manager_gave_up_is_over(robot):
    begin = robot.begin()
    robot.play(observations(2)[:1])
    robot.observe(observations(1)[0], FIRST)
    robot.answer(1)
    robot.episodes.publish(String(data=End(begin.session, begin.id, 1, FIRST, "tired").to_json()))
    robot.until(lambda: robot.policy.policy.episode is None)
    robot.observe(observations(1)[0], FIRST + PERIOD)
    robot.begin(id=1, start=FIRST + 2 * PERIOD, steps=1)
    robot.play(observations(2), FIRST + 2 * PERIOD)
    robot.end(2)
    assert [end.reason for end in robot.ends] == ["tired", "complete"]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"latent": "mean"}, "latent: found mean"), ({"steps": -1}, "steps: found -1")],
)
def test_an_episode_that_cannot_be_played_is_refused(robot, change, named):
    robot.begin(**change)
    end = robot.end()
    assert end.reason.startswith("refused: ") and named in end.reason
    robot.episodes.publish(String(data='{"event": "begin", "id": 1.5}'))
    robot.until(lambda: robot.policy.diagnostics.counts.get("refused episodes") == 2)


# Context


def test_waits_for_its_context_and_weights(robot):
    robot.begin()
    robot.play(observations(6))
    robot.end()
    robot.commands.clear()
    begin = robot.begin(id=1, start=2 * FIRST, mode="exploit", latent="mean", context=2, weights=2)
    robot.until(lambda: robot.policy.policy.episode, "begin")
    robot.observe(observations(1)[0], begin.start)
    rows = {episode: random_rows(episode) for episode in (0, 5)}
    for episode, waits_for in (
        (5, "weights of version 2, has 1"),
        (0, "a context of 2 trajectories, has 1"),
    ):
        robot.until(lambda wanted=waits_for: robot.policy.policy.waits_for == wanted, waits_for)
        assert not robot.commands
        robot.label(episode, rows[episode])
        if episode == 5:
            robot.until(lambda: len(robot.policy.policy.context) == 1)
            robot.send_weights(make_agent(1), version=2)
    robot.answer(1)
    controller = Controller(make_agent(1))
    for episode in (0, 5):  # they came the other way round
        controller.add(*rows[episode])
    controller.begin("exploit", seed=3, deterministic=False, latent="mean")
    expected = limited([controller.act(observations(1)[0])])
    np.testing.assert_array_equal(robot.values(), expected)


def test_posterior_of_labels_in_any_order(robot):
    robot.begin()
    robot.until(lambda: robot.policy.policy.episode)
    rows = {episode: random_rows(episode) for episode in (3, 1, 2)}
    for episode in rows:
        robot.label(episode, rows[episode])
    robot.label(1, random_rows(9))  # once is enough
    robot.label(4, random_rows(9), group=1)
    robot.label(4, random_rows(9), session=8)
    robot.label(4, random_rows(9), exploration=False)
    robot.label(5, rows[1])
    robot.until(lambda: len(robot.policy.policy.context) == 4)
    columns = [
        torch.from_numpy(np.concatenate(c))[None]
        for c in zip(*(rows[e] for e in (1, 2, 3)), rows[1], strict=True)
    ]
    posterior = make_agent().infer(*columns)
    expected = np.stack([part[0].double().numpy() for part in posterior])
    robot.until(lambda: np.array_equal(robot.posteriors[-1], expected), "the posterior")
    robot.begin(id=9, group=1, start=10 * FIRST)
    prior = np.stack([np.zeros(4), np.ones(4)])
    robot.until(lambda: np.array_equal(robot.posteriors[-1], prior), "the prior")


def test_an_episode_that_is_played_again_counts_once(robot):
    """What there is of one that was cut short is labelled, but is no context."""
    robot.begin(id=0)
    robot.play(observations(2))
    robot.begin(id=1, start=5 * FIRST)  # supersedes it
    robot.end()
    robot.label(0, random_rows(0))
    robot.label(1, random_rows(1))
    robot.until(lambda: len(robot.policy.policy.context))
    expected = make_agent().infer(*(torch.from_numpy(part)[None] for part in random_rows(1)))
    shown = np.stack([part[0].double().numpy() for part in expected])
    robot.until(lambda: np.array_equal(robot.posteriors[-1], shown), "the posterior")
    assert len(robot.policy.policy.context) == 1


def test_adapting_gathers_rewards(robot):
    seen, rewards = observations(6), np.arange(5) / 7
    robot.begin(mode="adapt", purpose="meta_test")
    robot.play(seen, rewards=rewards)
    assert robot.end().reason == "complete"
    actions = robot.reader.decode(robot.values())
    rows = (seen[:5], actions, rewards.astype(np.float32))
    posterior = make_agent().infer(*(torch.from_numpy(part)[None] for part in rows))
    expected = np.stack([part[0].double().numpy() for part in posterior])
    robot.until(lambda: np.array_equal(robot.posteriors[-1], expected), "the posterior")
    robot.begin(id=1, mode="exploit", latent="sample", context=1, start=2 * FIRST, steps=1)
    robot.play(seen[:2], 2 * FIRST)
    assert robot.end(2).reason == "complete"


def test_adapting_waits_for_the_last_reward(robot):
    robot.begin(mode="adapt", steps=1)
    robot.play(observations(2))
    robot.until(lambda: robot.policy.policy.episode.last)
    assert not robot.ends
    robot.pay(0.5, FIRST + PERIOD)
    assert robot.end().reason == "complete"


def test_rewards_that_never_come_end_the_episode(robot, monkeypatch):
    monkeypatch.setattr("smac_ros.policy.REWARDS", 0.2)
    robot.begin(mode="adapt", steps=2)
    robot.play(observations(3))
    assert robot.end().reason == "stopped: 2 of 2 rewards did not come within 0.2 s"
    assert not len(robot.policy.policy.context)


# Safety


def stream(live: Robot, steps: int, start: int = 0) -> None:
    """Real-time observations, each answered."""
    for step in range(steps):
        live.observe(observations(1)[0])
        live.answer(start + step + 1)


def test_not_a_number_is_never_acted_on(live):
    live.begin(steps=50)
    live.observe(np.array([np.nan, 0, 0]))  # before the first command: wait
    live.until(lambda: "joint_states: not finite" in live.faults())
    assert not live.commands and not live.ends
    stream(live, 3)
    assert not live.faults()
    live.observe(np.array([0, 0, np.inf]))
    end = live.end()
    assert (end.reason, end.steps) == ("stopped: gripper: not finite", 3)
    live.answer(5)
    assert not live.values()[3:].any() and live.values()[:3].all()
    live.observe(np.zeros(DS))
    live.until(lambda: not live.faults(), "the fault is over")


def test_silence_ends_with_the_safe_command(watched):
    watched.begin(steps=50)
    stream(watched, 2)
    end = watched.end()
    assert end.reason.startswith("stopped: no observation for 1.")
    assert "limit 1 s; the last message on joint_states is 1." in end.reason
    watched.answer(6)  # as long as it lasts
    assert watched.values()[:2].all() and not watched.values()[2:].any()
    assert np.abs(watched.values()).max() <= 0.4
    watched.until(lambda: any(s.level == DiagnosticStatus.ERROR for s in watched.diagnostics))


def test_an_old_stream_is_named(watched):
    watched.begin(steps=50)
    stream(watched, 1)
    now = watched.observe(observations(1)[0])
    watched.answer(2)
    old = JointState(name=["c"], position=[0.0])
    set_stamp(old.header.stamp, now + 1)
    watched.streams[1].publish(old)
    young = JointState(name=["a", "b"], position=[0.0, 0.0])
    set_stamp(young.header.stamp, now + 600_000_000)
    watched.streams[0].publish(young)
    reason = watched.end().reason
    assert reason == "stopped: gripper: stale, the newest sample is 0.600 s old, limit 0.5 s"


def test_a_fast_robot_gets_commands_at_the_contracts_rate(live):
    """500 observations a second are thinned out to 20 commands a second; so holds `max_rate`."""
    live.begin(steps=12)
    timer = live.node.create_timer(0.002, lambda: live.observe(observations(1)[0], paced=False))
    end = live.end()
    live.node.destroy_timer(timer)
    assert end.reason == "complete"
    gaps = np.diff([*live.stamps()[:12], end.last])
    assert gaps.min() >= 0.7 * PERIOD and np.mean(gaps) >= 0.95 * PERIOD


def test_observations_that_waited_are_not_acted_on(watched):
    """All streams equally old: nothing but the clock tells."""
    watched.observe(observations(1)[0])
    watched.until(lambda: watched.policy.policy._tick, "an observation")
    watched.until(lambda: watched.now() > watched.observed + 600_000_000)
    watched.begin(steps=1)
    watched.observe(observations(1)[0], watched.now() - 600_000_000)
    watched.until(lambda: "stale" in watched.faults(), "a fault")
    assert "the newest sample is" in watched.faults() and "limit 0.5 s" in watched.faults()
    assert not watched.commands
    stream(watched, 1)
    assert not watched.faults()


def test_the_robot_stands_while_rewards_are_awaited(live):
    live.begin(mode="adapt", steps=1)
    stream(live, 1)
    last = live.observe(observations(1)[0])
    live.answer(2)
    assert live.values()[0].any() and not live.values()[1].any() and not live.ends
    live.pay(1.0, last)
    assert live.end() == End(7, 0, 1, last, "complete")


def test_a_rehearsal_never_ends_the_node(live):
    live.begin(steps=50)
    stream(live, 1)
    with torch.no_grad():
        live.policy.policy.controller.agent.policy.body[-1].bias[0] = float("nan")
    rehearsal, weights = live.policy._rehearsal, live.policy._receiver.present
    for _ in range(2):
        rehearsal.run(weights)
    assert rehearsal._policy.stopped
    with torch.no_grad():
        live.policy.policy.controller.agent.policy.body[-1].bias[0] = 0.0
    rehearsal.run(weights)  # it begins anew, as the real one does
    assert not rehearsal._policy.stopped and rehearsal.steps > 0


def test_bytes_that_are_no_observation_are_counted(live):
    """Streams are read as bytes, which rclpy has not looked at."""
    live.streams[0].publish(b"\0\1\0\0")
    diagnostics = live.policy.diagnostics
    live.until(lambda: diagnostics.counts.get("unreadable observations") == 1)
    live.begin(steps=1)
    live.observe(observations(1)[0])
    live.answer(1)


def test_an_agent_that_yields_no_numbers_stops(live):
    live.begin(steps=50)
    stream(live, 2)
    with torch.no_grad():
        live.policy.policy.controller.agent.policy.body[-1].bias[0] = float("nan")
    live.observe(observations(1)[0])
    assert live.end().reason.startswith("stopped: no action: action [nan")
    live.answer(5)
    assert not live.values()[2:].any()


def test_deactivation_ends_with_the_safe_command(live):
    live.begin(steps=50)
    stream(live, 3)
    assert live.policy.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert live.end().reason == "stopped: the policy is deactivated"
    live.answer(4)
    live.until(lambda: not live.node.count_publishers("joint_command"), "no publisher")
    assert len(live.commands) == 4 and not live.values()[-1].any()
    assert live.policy.trigger_activate() == TransitionCallbackReturn.SUCCESS
    live.begin(id=1, steps=50)
    live.until(lambda: live.node.count_publishers("joint_command"))
    live.run(lambda: len(live.commands) > 4, "it acts again")


def test_the_end_of_an_episode_stops_the_robot(live):
    """A velocity stays commanded until another command comes."""
    live.begin(steps=1)
    stream(live, 1)
    last = live.observe(observations(1)[0])
    assert live.end() == End(7, 0, 1, last, "complete")
    live.answer(2)
    assert not live.values()[-1].any() and live.stamps()[-1] > last


def test_two_policies_do_not_share_a_robot(ros, contract, live):
    """The second one waits, the first is not disturbed."""
    live.begin(steps=500)
    stream(live, 1)
    second = PolicyNode(
        "second",
        namespace=live.namespace,
        parameter_overrides=[Parameter("contract", value=str(contract))],
    )
    ros.start(second)
    live.until(lambda: second.diagnostics.faults)
    assert second.diagnostics.faults == {
        "another publisher": f"another publisher on joint_command: {live.namespace}/policy"
    }
    stream(live, 2, start=len(live.commands))
    live.policy.trigger_deactivate()
    live.until(lambda: second.policy.commands.open, "the robot is free")
    assert not second.diagnostics.faults


def test_of_two_that_start_at_once_one_stays(live):
    """The one with the smaller id; the other stops, as for any fault."""
    live.begin(steps=500)
    stream(live, 1)
    node = live.ros.node("rival", namespace=live.namespace)
    rival = node.create_publisher(JointState, "joint_command", 1)
    commands = live.policy.policy.commands
    live.until(lambda: "other publishers of commands" in live.policy.diagnostics.counts)
    assert commands.open  # ids grow within a process
    stream(live, 1, start=len(live.commands))
    commands.close(FAREWELL)
    commands._create()
    live.run(lambda: live.ends, "the end")
    (end,) = live.ends
    assert end.reason == f"stopped: another publisher on joint_command: {live.namespace}/rival"
    assert not commands.open
    node.destroy_publisher(rival)
    live.until(lambda: commands.open, "the robot is free again")
    assert not live.faults()


def test_a_robot_that_starts_again_is_followed(robot):
    robot.begin(start=100 * FIRST, steps=2)
    robot.play(observations(1), 100 * FIRST)
    robot.answer(1)
    robot.begin(id=1, steps=1)
    robot.play(observations(2))
    assert robot.end(2).reason == "complete"
    assert robot.policy.diagnostics.counts["time jumped back"] == 1


def test_lockstep_waits_and_says_so(robot, monkeypatch):
    """Simulated time stands still; a command would be taken for an answer."""
    monkeypatch.setattr("smac_ros.policy.SILENCE", 0.4)
    robot.begin()
    robot.observe(observations(1)[0], FIRST)
    robot.answer(1)
    robot.until(lambda: "no observation for 0.4" in robot.faults(), "the report")
    robot.spin(0.2)
    assert len(robot.commands) == 1 and not robot.ends
    robot.observe(observations(1)[0], FIRST + PERIOD)
    robot.answer(2)
    assert not robot.faults()


# Weights


def test_new_weights_in_an_episode_cost_no_step(robot):
    seen = observations(6)
    robot.begin()
    for step, observation in enumerate(seen):
        if step == 2:
            robot.send_weights(make_agent(1), version=2)
            robot.until(lambda: robot.policy._receiver.present.version == 2)
        robot.observe(observation, FIRST + step * PERIOD)
        if step < 5:
            robot.answer(step + 1)
    assert robot.end().reason == "complete"
    controller = Controller(make_agent())
    controller.begin("explore", seed=3, deterministic=False, latent="step")
    actions = [controller.act(observation) for observation in seen[:2]]
    controller.swap(make_agent(1))
    actions += [controller.act(observation) for observation in seen[2:5]]
    np.testing.assert_array_equal(robot.values(), limited(actions))


def test_bad_weights_are_refused_and_named(robot):
    agent = robot.policy.policy.controller.agent
    broken = make_agent()
    with torch.no_grad():
        broken.decoder.body[0].weight[0, 0] = float("nan")
    small = {"policy_hidden": [8]}
    other = contract_text().replace("rate: 20.0", "rate: 10.0")
    cases = [
        (make_agent(), {"version": 0}, "version: found 0; expected above 1"),
        (make_agent(), {"version": "2"}, "version: found '2'; expected int"),
        (make_agent(), {"domain": "walker"}, "domain: found walker; expected bench"),
        (make_agent(), {"action_dim": 3}, "action_dim: found 3; expected 2"),
        (make_agent(), {"contract": other}, "rate: found 10.0; expected 20.0"),
        (make_agent(**small), {"networks": NETWORKS | small}, "policy.body.0.weight: found (8, 7)"),
        (make_agent(**small), {}, "policy.body.0.weight: found ((8, 7), torch.float32)"),
        (broken, {}, "decoder.body.0.weight: found NaN or infinity"),
    ]
    said = []
    robot.policy.diagnostics.count = lambda what, message="", by=1: said.append((what, message))
    robot.policy._receiver._warn = robot.policy.diagnostics.count
    for sent, changes, named in cases:
        said.clear()
        robot.send_weights(sent, **{"version": 2} | changes)
        robot.until(lambda: said, named)
        assert said[0][0] == "refused weights"
        assert named in said[0][1]
    for data in (b"", b"\x10\0\0\0\0\0\0\0{}", bytes(range(256))):
        said.clear()
        robot.weights.publish(UInt8MultiArray(data=array.array("B", data)))
        robot.until(lambda: said, "garbage")
        assert said[0][0] == "refused weights"
    assert robot.policy.policy.controller.agent is agent


def test_weights_of_another_run_wait_for_the_episodes_end(robot):
    robot.begin(steps=2)
    robot.play(observations(2))
    receiver = robot.policy._receiver
    robot.send_weights(make_agent(1), version=1, run="another")
    robot.until(lambda: receiver.waiting, "the weights have been read")
    robot.observe(observations(1)[0], FIRST + PERIOD)
    robot.answer(2)
    assert receiver.present.run == "r"
    robot.observe(observations(1)[0], FIRST + 2 * PERIOD)
    assert robot.end().reason == "complete"
    assert receiver.present.run == "another"
    assert robot.policy.diagnostics.counts["weights of another run"] == 1


# Life


def save_run(
    folder, phase: str, seed: int, contract: str | None, algorithm: str = "smac"
) -> None:
    """A checkpoint of the domain sawyer, as a run has it."""
    overrides = [f"networks.{name}={value}" for name, value in NETWORKS.items()]
    config = load_config("sawyer", "smoke", overrides)
    torch.manual_seed(seed)
    agent = Agent(13, 4, config.networks)
    tensors = {f"agent.{name}": value for name, value in agent.state_dict().items()}
    state = {"config": config.model_dump(mode="json"), "observation_dim": 13, "action_dim": 4}
    state["algorithm"] = algorithm
    place = folder / phase / "checkpoints" / "step_00000001"
    checkpoint.save(place, tensors, state | {"contract": contract})


def refused(ros, **parameters) -> str:
    policy = PolicyNode(parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()])
    ros.add(policy)
    assert policy.trigger_configure() == TransitionCallbackReturn.FAILURE
    return policy.diagnostics.faults["refused"]


def test_a_checkpoint_must_fit_the_contract(ros, contract, tmp_path):
    save_run(tmp_path, "offline", 0, None)
    said = refused(ros, contract=str(contract), checkpoint=str(tmp_path))
    assert "found 'hand_x'; expected 'a', as in contract bench" in said
    text = load_contract("sawyer_sim").text.replace("scale: 1.2", "scale: 1.0")
    save_run(tmp_path, "offline", 0, text)
    said = refused(ros, contract="sawyer_sim", checkpoint=str(tmp_path))
    assert "found 1.0; expected 1.2, as in contract sawyer_sim" in said
    said = refused(ros, contract="sawyer_sim", checkpoint=str(tmp_path), phase="control")
    assert "control" in said
    save_run(tmp_path, "offline", 0, text, algorithm="of_tomorrow")
    said = refused(ros, contract="sawyer_sim", checkpoint=str(tmp_path))
    assert "algorithm: found of_tomorrow; expected smac or meta_bc" in said
    assert "did you mean 'sawyer_sim'" in refused(ros, contract="sawyer_sin")


def test_the_latest_phase_of_a_run_is_used(ros, tmp_path):
    text = load_contract("sawyer_sim").text
    for seed, phase in enumerate(("offline", "self_supervised")):
        save_run(tmp_path, phase, seed, text)
    weights = []
    for phase in ("", "offline"):
        policy = PolicyNode(
            parameter_overrides=[
                Parameter("contract", value="sawyer_sim"),
                Parameter("checkpoint", value=str(tmp_path)),
                Parameter("phase", value=phase),
            ]
        )
        ros.start(policy)
        weights.append(policy.policy.controller.agent.policy.body[0].weight)
        policy.trigger_deactivate()
    for seed, found in zip((1, 0), weights, strict=True):
        torch.manual_seed(seed)
        expected = Agent(13, 4, Networks(**NETWORKS)).policy.body[0].weight
        torch.testing.assert_close(found, expected, rtol=0, atol=0, check_stride=False)


def test_without_a_manager(ros, contract):
    contract.write_text(contract_text(**WATCHED))
    robot = Robot(ros, contract, clock="real_time", mode="adapt", deterministic=True).start()
    assert "weights" in robot.call("start").message
    robot.send_weights(make_agent())
    robot.until(lambda: robot.policy.policy.controller)
    assert robot.call("start").success
    assert "in progress" in robot.call("start").message
    controller = Controller(make_agent(), exact=False)
    controller.begin("adapt", seed=0, deterministic=True, latent="step")
    for step in range(3):
        stamp = robot.observe(observations(3)[step])
        robot.pay(float(step), stamp)
        robot.answer(step + 1)
    expected = limited([controller.act(observation) for observation in observations(3)])
    np.testing.assert_array_equal(robot.values(), expected)
    robot.until(lambda: robot.faults(), "silence")
    robot.answer(5)
    robot.run(lambda: robot.values()[-1].all(), "it goes on")
    assert not robot.faults()
    assert robot.call("stop").message == "~/start stopped"
    robot.until(lambda: not robot.values()[-1].any(), "the safe command")
    assert robot.policy.policy.controller.context_trajectories == 1
    assert robot.call("reset_context").message == "1 trajectories forgotten"
    assert robot.policy.policy.controller.context_trajectories == 0


def test_another_mode_begins_at_once(ros, contract):
    robot = Robot(ros, contract, deterministic=True).start(make_agent())
    assert robot.call("start").success
    robot.play(observations(2)[:1])
    robot.observe(observations(1)[0], FIRST)
    robot.answer(1)
    robot.policy.set_parameters([Parameter("mode", value="exploit")])
    assert robot.policy.policy.episode.begin.mode == "exploit"
    refused = robot.policy.set_parameters([Parameter("mode", value="fly")])[0]
    assert not refused.successful and "explore, adapt, exploit" in refused.reason


def test_a_timer_acts_at_the_contracts_rate(ros, tmp_path):
    path = tmp_path / "timer.yaml"
    path.write_text(contract_text(trigger="timer", **PATIENT))
    robot = Robot(ros, path, clock="real_time").start(make_agent())
    robot.begin(steps=20)
    robot.run(lambda: robot.ends, "the end")
    assert robot.end().reason == "complete" and robot.end().steps == 20
    gaps = np.diff(robot.stamps()[:20])
    assert gaps.min() > 0.5 * PERIOD and np.median(gaps) < 2 * PERIOD


def test_everything_is_in_the_robots_namespace(robot):
    robot.begin(steps=1)
    robot.play(observations(2))
    assert robot.end().reason == "complete"
    topics = [name for name, _ in robot.node.get_topic_names_and_types()]
    for topic in ("joint_command", "posterior", "episode", "weights"):
        assert f"{robot.namespace}/{topic}" in topics and f"/{topic}" not in topics


def test_it_waits_for_those_who_follow_its_commands(ros, contract):
    """The first commands are small steps: to a robot that misses them the next one is a jump."""
    contract.write_text(contract_text(**PATIENT))
    robot = Robot(ros, contract, clock="real_time", settle=0.5)
    (listener,) = (s for s in robot.node.subscriptions if s.topic_name.endswith("joint_command"))
    robot.node.destroy_subscription(listener)
    ros.start(robot.policy)
    robot.send_weights(make_agent())
    robot.until(lambda: robot.policy.policy.controller, "weights")
    robot.begin(steps=1000)
    policy = robot.policy.policy

    def waits_for(text: str) -> bool:
        return policy.episode is not None and policy.waits_for == text

    robot.run(lambda: waits_for("listeners to find its commands"))
    robot.run(lambda: waits_for("a listener to joint_command"))
    robot.node.create_subscription(JointState, "joint_command", robot.commands.append, 10)
    robot.run(lambda: len(robot.commands) > 2, "commands")
