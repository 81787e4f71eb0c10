"""The policy node on an export, also where there is no torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from policy_robot import (
    DA,
    DS,
    NETWORKS,
    PATIENT,
    Robot,
    contract_text,
    limited,
    make_agent,
    observations,
    random_rows,
)
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from smac_core import checkpoint
from smac_core.config import load_config
from smac_core.controller import Controller
from smac_core.deployment.export import export_onnx
from smac_core.deployment.exported import ExportedAgent
from smac_core.deployment.hub import export_hub_folder
from smac_core.deployment.onnx_controller import OnnxController
from smac_core.errors import InputError
from smac_core.training.run import write_json
from smac_ros.contract import load_contract
from smac_ros.policy_node import PolicyNode
from smac_ros.protocol import run_configuration
from smac_ros.system import NodeSpec
from smac_ros.up import command_line
from smac_ros.weights import WeightsReceiver, load_run

CLOSE = 1e-5  # of a command
NO_TORCH = 'raise ImportError("no torch here")\n'


@pytest.fixture(scope="module")
def contract(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("contract") / "bench.yaml"
    path.write_text(contract_text(**PATIENT))
    return path


@pytest.fixture(scope="module")
def agent():
    return make_agent().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, agent, contract) -> Path:
    """The agent of ``policy_robot``, exported from a run."""
    place = tmp_path_factory.mktemp("runs")
    tree = load_config("sawyer", "smoke").model_dump(mode="json")
    tree |= {"domain": "bench", "networks": NETWORKS}
    names = {"observation_names": ["a", "b", "c"], "observation_units": ["rad", "rad", "m"]}
    names |= {"action_names": ["va", "vb"], "action_units": ["rad/s"] * 2, "rate": 20.0}
    tree["environment"] |= names
    sizes = {"observation_dim": DS, "action_dim": DA}
    told = {"config": tree, "domain": "bench", "algorithm": "smac", "seed": 0, **sizes}
    told |= {"phase": "offline", "step": 1, "contract": contract.read_text(), "dataset": None}
    told |= {"command": "smac train", "commit": "unknown", "versions": {}}
    tensors = {f"agent.{name}": value for name, value in agent.state_dict().items()}
    checkpoint.save(place / "run" / "offline" / "checkpoints" / "step_00000001", tensors, told)
    write_json(place / "run" / "run.json", told | {"id": "1"})
    export_onnx(place / "run", "offline", place / "export")
    return place / "export"


class PolicyProcess:
    """The node in a process of its own, where importing torch fails; in the place of PolicyNode."""

    def __init__(self, folder: Path, namespace: str, parameter_overrides: list[Parameter]):
        spec = NodeSpec("policy_node", "policy", namespace=namespace.strip("/"))
        command = command_line(spec, None)
        for parameter in parameter_overrides:
            command += ["-p", f"{parameter.name}:={parameter.value}"]
        (folder / "torch").mkdir(parents=True)
        (folder / "torch" / "__init__.py").write_text(NO_TORCH)
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        self.name, self.said = f"{namespace}/policy", folder / "said.txt"
        with self.said.open("w") as said:
            environment = os.environ | {"PYTHONPATH": path}
            self.process = subprocess.Popen(command, stderr=said, stdout=said, env=environment)

    def get_fully_qualified_name(self) -> str:
        return self.name

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def alone(ros, contract, folder, tmp_path):
    """A lockstep robot whose policy has no torch."""
    made = []

    def make(**arguments) -> PolicyProcess:
        made.append(PolicyProcess(tmp_path / "lib", **arguments))
        return made[0]

    robot = Robot(ros, contract, make_policy=make, checkpoint=str(folder))
    try:
        listeners = (*robot.streams, robot.rewards, robot.labels, robot.weights)
        for publisher in listeners:
            ros.until(publisher.get_subscription_count, 60.0, made[0].said.read_text())
        robot.until(lambda: robot.node.count_publishers("joint_command"), "commands")
        robot.until(lambda: robot.episodes.get_subscription_count() > 1, "the policy's ears")
        robot.until(lambda: robot.node.count_publishers("episode") > 1, "the policy's ends")
        robot.until(lambda: robot.posteriors, "the posterior")
        yield robot
    finally:
        made[0].end()
    assert made[0].process.returncode == 0, made[0].said.read_text()


def test_without_torch_it_acts_as_with_torch(alone, agent, folder):
    robot, seen = alone, observations(6)
    mine, right = OnnxController(ExportedAgent(folder)), Controller(agent)
    np.testing.assert_array_equal(robot.posteriors[-1], [[0] * 4, [1] * 4])

    # an episode that explores while rewards come in, then one with the posterior of its context
    rewards = np.array([0.5, -1.0, 2.0, 0.0, 1.0], np.float32)
    robot.begin(mode="adapt", deterministic=True, latent="step")
    robot.play(seen, rewards=rewards)
    assert robot.end().reason == "complete"
    mine.begin("adapt", seed=3, deterministic=True, latent="step")
    expected = []
    for observation in seen[:5]:
        mine.act(observation)
        rows = torch.from_numpy(observation)[None], torch.from_numpy(mine.z)[None]
        expected.append(agent.act(*rows, deterministic=True)[0].numpy())
    np.testing.assert_allclose(robot.values(), limited(expected), rtol=0, atol=CLOSE)

    rows = random_rows(seed=8)
    robot.label(1, rows)  # and what a labeler has to say
    robot.until(lambda: len(robot.posteriors) > 2, "the posterior of both")
    done = (robot.values() / 0.5).astype(np.float32)  # as the contract reads commands back
    for trajectory in ((seen[:5], done, rewards), rows):
        right.add(*trajectory)
    for found, wanted in zip(robot.posteriors[-1], right.posterior, strict=True):
        np.testing.assert_allclose(found, wanted[0].numpy(), rtol=1e-4, atol=CLOSE)
    start = robot.begin(
        id=2, start=10**10, mode="exploit", latent="mean", deterministic=True, context=2
    ).start
    robot.play(seen, start)
    assert robot.end(2).reason == "complete"
    right.begin("exploit", seed=3, deterministic=True, latent="mean")
    expected = [right.act(observation) for observation in seen[:5]]
    np.testing.assert_allclose(robot.values()[5:], limited(expected), rtol=0, atol=CLOSE)

    # weights of a learner change nothing, and are told
    robot.send_weights(make_agent(seed=1))

    def told() -> str:
        return " ".join(str([s.message, *(v.value for v in s.values)]) for s in robot.diagnostics)

    robot.until(lambda: f"the export {folder} runs here, which is fixed" in told(), "the refusal")


def test_with_torch_the_same_node_runs_it_too(ros, contract, folder, agent):
    """In real time, its control path rehearsed; the phase is the export's."""
    robot = Robot(ros, contract, clock="real_time", checkpoint=str(folder)).start()
    assert robot.policy._receiver.present.fixed
    robot.call("start")
    controller = OnnxController(ExportedAgent(folder))
    controller.begin("explore", seed=0, deterministic=False, latent="step")
    for step, observation in enumerate(observations(3)):
        robot.observe(observation)
        robot.answer(step + 1)
        robot.policy._rehearsal.run(robot.policy._receiver.present)
        expected = limited([controller.act(observation)])
        np.testing.assert_array_equal(robot.values()[step], expected[0])


def refused(ros, **parameters) -> str:
    policy = PolicyNode(parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()])
    ros.add(policy)
    assert policy.trigger_configure() == TransitionCallbackReturn.FAILURE
    return policy.diagnostics.faults["refused"]


def test_exports_that_do_not_fit_are_refused(ros, contract, folder, tmp_path, monkeypatch):
    said = refused(ros, contract=str(contract), checkpoint=str(folder), phase="control")
    assert "phase: found offline; expected control" in said
    said = refused(ros, contract="sawyer_sim", checkpoint=str(folder))
    assert "expected 'hand_x', as in contract sawyer_sim" in said
    monkeypatch.setitem(sys.modules, "torch", None)  # to install it would not help
    shutil.copy(folder / "policy.onnx", tmp_path)  # the rest did not arrive
    said = refused(ros, contract=str(contract), checkpoint=str(tmp_path))
    assert "export.json: file: found no such file" in said
    said = refused(ros, contract=str(contract), checkpoint=str(tmp_path / "nowhere"))
    assert "nowhere: folder: found no such folder" in said


def test_where_torch_is_missing_it_is_named(ros, contract, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    nothing = load_contract(contract), lambda *said: None, lambda: None
    with pytest.raises(InputError, match="torch: package.*a learner; an export"):
        WeightsReceiver(*nothing)
    said = refused(ros, contract=str(contract), checkpoint=str(tmp_path))
    assert "an export (smac export RUN --onnx) does without: pip install torch" in said


def test_a_hub_folder_is_a_checkpoint(contract, folder, agent, tmp_path):
    hub = export_hub_folder(folder.parent / "run", "offline", tmp_path / "hub", license="mit")
    weights = load_run(str(hub), "", load_contract(contract))
    for place in (hub, folder):  # what an episode manager goes by
        config = run_configuration(str(place), horizon=7)
        assert (config.domain, config.environment.horizon) == ("bench", 7)
        assert config == run_configuration(str(folder.parent / "run"), horizon=7)
    assert not weights.fixed and (hub / "contract.yaml").read_text() == contract.read_text()
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(weights.agent.state_dict()[name], value, rtol=0, atol=0)
    with pytest.raises(InputError, match="found offline; expected control"):
        load_run(str(hub), "control", load_contract(contract))
