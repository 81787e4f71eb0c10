"""Practice in, gradient steps, weights out: as in the training process, to the bit, and resumed."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter as RosParameter  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402
from std_msgs.msg import UInt8MultiArray  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from smac_core.data.trajectories import Trajectories  # noqa: E402
from smac_core.errors import InputError  # noqa: E402
from smac_core.figures import load_metrics  # noqa: E402
from smac_core.training import self_supervised  # noqa: E402
from smac_core.training.online import open_run  # noqa: E402
from smac_core.training.run import Run, copy_offline, identity  # noqa: E402
from smac_core.training.updates import Updates  # noqa: E402
from smac_ros.base_node import latched, leave, reliable  # noqa: E402
from smac_ros.contract import load_contract  # noqa: E402
from smac_ros.learner_node import LearnerNode  # noqa: E402
from smac_ros.messages import Trajectory, pack_trajectory, unpack_weights  # noqa: E402
from smac_ros.weights import read_weights  # noqa: E402

pytest_plugins = ["point_mass_run"]

HORIZON = 20
ROOT = Path(__file__).parents[2]


def settings(**values):
    return [RosParameter(name, value=value) for name, value in values.items()]


@pytest.fixture
def start(ros, trained, tmp_path):
    """Starts a learner with iterations of two trajectories; arguments are parameters."""

    def start(**values):
        small = {"transitions_per_iteration": 2 * HORIZON, "patience": 0.0, "device": "cpu"}
        values = {"checkpoint": str(trained), "run": str(tmp_path / "run")} | small | values
        return ros.start(LearnerNode(parameter_overrides=settings(**values)))

    return start


class Labeler:
    """Sends trajectories; listens to weights and progress."""

    def __init__(self, ros):
        self.ros, self.node = ros, ros.node("labeler")
        self.sent = 0
        self.rng = np.random.default_rng(3)
        self.publisher = self.node.create_publisher(
            PointCloud2, "labelled_trajectories", reliable(100)
        )
        self.weights, self.progress = [], {}
        self.node.create_subscription(UInt8MultiArray, "weights", self.weights.append, latched())
        self.node.create_subscription(DiagnosticArray, "learner/progress", self._heard, latched())
        ros.until(lambda: self.publisher.get_subscription_count() and self.weights)

    def _heard(self, message):
        self.progress = {pair.key: pair.value for pair in message.status[0].values}

    def make(self, task=0, *, length=HORIZON, exploration=True, **values) -> Trajectory:
        points = self.rng.normal(size=(length + 1, 2)).astype(np.float32)
        made = Trajectory(
            session=1,
            episode=self.sent + 1,
            group=1,
            sequence=self.sent,
            task=task,
            exploration=exploration,
            weights=0,
            stamp=0,
            times=np.arange(length) / 10,
            observations=points[:-1],
            actions=self.rng.uniform(-1, 1, (length, 2)).astype(np.float32),
            rewards=-np.abs(self.rng.normal(size=length)).astype(np.float32),
            next_observations=points[1:],
            terminals=np.zeros(length, np.float32),
        )
        self.sent += 1
        return replace(made, **values)

    def send(self, *trajectories):
        for trajectory in trajectories:
            self.publisher.publish(pack_trajectory(trajectory))

    def until(self, **values):
        def reached():
            return all(self.progress.get(key) == str(value) for key, value in values.items())

        self.ros.until(reached, what=f"{values} in {self.progress}")

    def version(self, version, contract=None):
        def newest():
            if not self.weights:
                return None
            return unpack_weights(self.weights[-1])[1]["version"] == version

        self.ros.until(newest, what=f"weights {version}")
        return unpack_weights(self.weights[-1])


def tensors_of(run: Run) -> dict[str, torch.Tensor]:
    buffers = {"rl": run.replay.rl, "context": run.replay.context}
    tensors = {name: buffer.online_state()[0]["online"] for name, buffer in buffers.items()}
    for name, module in run.learner.networks.items():
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    return tensors


def in_process(run: Run, iterations: list[list[Trajectory]], updates: int) -> Run:
    """What ``self_train`` does with these trajectories."""
    steps = Updates([(run.learner, run.replay)], "self_supervised")
    for trajectories in iterations:
        for t in trajectories:
            one = Trajectories.one(t.observations, t.actions, t.next_observations)
            rows = one.rows(
                run.agent.standardizer, run.replay.layout, torch.from_numpy(t.rewards)[None]
            )
            run.replay.append(t.task, rows[0][one.present[0]], exploration=t.exploration)
        for _ in range(updates):
            steps.take(1)
    return run


def test_updates_are_those_of_the_training_process(ros, start, trained, tmp_path):
    node = start()
    labeler = Labeler(ros)
    first = [labeler.make(3), labeler.make(5, exploration=False)]
    second = [labeler.make(3), labeler.make(0)]
    labeler.send(first[0])
    labeler.until(state="waiting for practice", pending_transitions=20, trajectories=1)
    labeler.send(first[1], *second)  # what comes while updating waits for the next iteration
    labeler.until(version=2, state="waiting for practice", pending_transitions=0)
    leave(node)

    copy_offline(trained, tmp_path / "other")
    expected = self_supervised.begin(tmp_path / "other", "self_supervised", device="cpu")
    in_process(expected, [first, second], updates=20)  # 40 transitions * 0.5
    got = Run.resume(tmp_path / "run", "self_supervised", device="cpu")
    for name, value in tensors_of(expected).items():
        assert torch.equal(value, tensors_of(got)[name]), name
    assert torch.equal(expected.generator.get_state(), got.generator.get_state())
    assert got.step == 2 and got.counters["updates"] == 1500 + 40
    assert got.counters["transitions"] == 80 and got.counters["pending"] == 0
    assert sum(got.replay.context.online_written) == 60
    steps, losses = load_metrics(tmp_path / "run/self_supervised/metrics.csv", "critic_loss")
    assert list(steps) == [1, 2] and all(losses > 0)
    assert not (trained / "self_supervised").exists()


def test_weights_go_out_and_act_differently(ros, start, trained, contract_file, tmp_path):
    node = start()
    labeler = Labeler(ros)
    before, described = labeler.version(0)
    assert described["run"] == identity(tmp_path / "run") != identity(trained)
    assert described["domain"] == "point_mass" and described["contract"] is None
    assert described["environment"]["observation_names"] == ["x", "y"]
    labeler.send(labeler.make(), labeler.make())
    after, described = labeler.version(1)
    contract = load_contract(contract_file)
    agent = read_weights(labeler.weights[-1], contract).agent
    old = read_weights(labeler.weights[0], contract).agent
    observation, z = torch.tensor([[0.1, 0.2]]), torch.zeros(1, 3)
    actions = [a.act(observation, z, deterministic=True) for a in (old, agent)]
    assert not torch.equal(*actions)
    assert torch.equal(actions[1], node._training.run.agent.act(observation, z, deterministic=True))
    for name, value in before.items():
        assert torch.equal(value, after[name]) != name.startswith("policy"), name


def test_lost_and_repeated_trajectories_are_counted(ros, start):
    node = start(transitions_per_iteration=10**6)
    labeler = Labeler(ros)
    made = [labeler.make() for _ in range(8)]
    labeler.send(made[2], made[3], made[3], made[6])  # two lost; the first ones were before us
    again = replace(made[7], sequence=1)  # the labeler has started again, its first one is lost
    other = replace(made[7], session=2, sequence=40)
    labeler.send(again, other)
    labeler.until(trajectories=5, transitions=100, pending_transitions=100)
    assert node.diagnostics.counts == {"trajectories lost": 3, "trajectories repeated": 1}


def test_garbage_is_refused(ros, start):
    node = start(transitions_per_iteration=10**6)
    labeler = Labeler(ros)
    labeler.publisher.publish(PointCloud2())
    bad = labeler.make()
    bad.rewards[3] = np.nan
    labeler.send(bad)
    wide = np.zeros((HORIZON, 3), np.float32)
    labeler.send(replace(labeler.make(), observations=wide, next_observations=wide))
    labeler.send(labeler.make(task=20), labeler.make(task=-1), labeler.make(length=1001))
    labeler.send(labeler.make())
    labeler.until(pending_transitions=HORIZON)
    assert node.diagnostics.counts["trajectories refused"] == 6
    assert node._training.run.counters["transitions"] == HORIZON


def test_a_stopped_learner_goes_on_where_it_was(ros, start, trained, tmp_path):
    leave(first := start(checkpoint_every=1))
    ros.nodes.remove(first)
    node = start(checkpoint_every=1)
    labeler = Labeler(ros)
    labeler.send(*[labeler.make(k) for k in range(5)])
    labeler.until(version=2, pending_transitions=20)
    client = labeler.node.create_client(Trigger, "learner/save")
    saved = ros.call(client, Trigger.Request())
    assert saved.success and saved.message.endswith("checkpoints")
    node.trigger_deactivate()
    node.trigger_activate()
    labeler.send(labeler.make())
    labeler.until(version=3, pending_transitions=0)
    name = labeler.version(3)[1]["run"]
    leave(node)
    ros.executor.remove_node(node)
    ros.nodes.remove(node)
    labeler.weights.clear()
    resumed = start(checkpoint="", run=str(tmp_path / "run"))
    assert labeler.version(3)[1]["run"] == name
    labeler.send(labeler.make(1), labeler.make(2))
    labeler.until(version=4, updates=1500 + 80)
    assert resumed._training.run.counters["transitions"] == 160


def test_an_iteration_does_with_what_came(ros, start):
    """Left-out steps or lost trajectories must not keep everybody waiting."""
    node = start(patience=0.3)
    labeler = Labeler(ros)
    labeler.send(labeler.make(length=19), labeler.make())  # one step was left out: 39 transitions
    labeler.until(version=1, updates=1500 + 20)
    labeler.send(labeler.make())
    labeler.until(version=2, updates=1500 + 30)
    assert node.diagnostics.counts == {"iterations cut short": 1}


def test_a_loss_that_is_not_finite_stops_training(ros, start, tmp_path):
    node = start(checkpoint_every=1)
    labeler = Labeler(ros)
    labeler.send(labeler.make(), labeler.make())
    labeler.until(version=1)
    ros.until(lambda: Run.resume(tmp_path / "run", "self_supervised", device="cpu").step == 1)
    with torch.no_grad():
        node._training.run.agent.policy.body[0].bias.fill_(float("nan"))
    labeler.send(labeler.make(), labeler.make())
    labeler.until(state="failed")
    assert "step 2" in node.diagnostics.faults["training"]
    assert labeler.version(1)
    labeler.send(labeler.make())
    ros.until(lambda: node.diagnostics.counts.get("trajectories ignored"))
    node.trigger_deactivate()
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, "from the last checkpoint"
    labeler.send(labeler.make(), labeler.make())
    labeler.until(version=2)
    assert not node.diagnostics.faults


def test_what_does_not_fit_is_refused(ros, trained, contract_file, dataset, tmp_path):
    def refused(**values):
        values = {"checkpoint": str(trained), "run": str(tmp_path / "new")} | values
        node = ros.add(LearnerNode(parameter_overrides=settings(**values)))
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        return node.diagnostics.faults["refused"]

    assert "stays as it is" in refused(run=str(trained))
    assert "no such file" in refused(checkpoint=str(tmp_path / "nothing"))
    assert "no such file" in refused(dataset=str(tmp_path / "nothing.h5"))
    assert "unknown key" in refused(set=["self_supervised.speed=2"], run=str(tmp_path / "a"))
    assert "names" in refused(contract="sawyer_sim", run=str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()
    assert "--device" in refused(device="tpu", run=str(tmp_path / "c"))
    open_run(trained, tmp_path / "mine", device="cpu")
    copy_offline(trained, tmp_path / "copy")
    assert "another run" in refused(checkpoint=str(tmp_path / "copy"), run=str(tmp_path / "mine"))
    with pytest.raises(InputError, match="no phase self_supervised"):
        open_run(None, tmp_path / "copy", device="cpu")


def test_interrupted_as_a_process_it_saves_and_ends(ros, trained, contract_file, tmp_path):
    parameters = {
        "checkpoint": trained,
        "run": tmp_path / "run",
        "contract": contract_file,
        "device": "cpu",
        "threads": 1,
        "transitions_per_iteration": HORIZON,
        "gradient_steps_per_transition": 1000.0,
    }
    arguments = ["--ros-args"]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={value}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "smac_ros.learner_node", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        labeler = Labeler(ros)  # also waits for the process
        labeler.send(labeler.make())
        labeler.until(state="updating")
        labeler.send(labeler.make(1))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in errors, errors
    run = Run.resume(tmp_path / "run", "self_supervised", device="cpu")
    assert run.step == 0 and 0 < run.iteration_updates < 20_000
    assert run.counters["updates"] == 1500 + run.iteration_updates
    assert run.counters["transitions"] in (20, 40)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["copy_of"] == identity(trained)
