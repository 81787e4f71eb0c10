"""The learner: gradient steps on the practice that comes in, and the weights they lead to.

Alternates as algorithm 1 does: an iteration's labelled trajectories arrive, then their gradient
steps are taken, then the weights go out. Trajectories that come in meanwhile wait.
"""

import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import UInt8MultiArray
from std_srvs.srv import Trigger

from smac_core import checkpoint
from smac_core.config import parse_config
from smac_core.devices import resolve_device
from smac_core.errors import InputError
from smac_core.training.metrics import MetricLogger
from smac_core.training.online import PHASE, OnlineTraining, open_run
from smac_core.training.run import SHIPPED, identity, run_folder
from smac_ros.base_node import Parameter, SmacNode, latched, reliable, run
from smac_ros.contract import load_contract
from smac_ros.messages import Trajectory, pack_weights, unpack_trajectory

TOPIC = "labelled_trajectories"
QUEUE = 1000  # trajectories that wait while gradient steps are taken
WAITING, UPDATING = "waiting for practice", "updating"
SAVE_SECONDS = 60.0  # that ~/save waits for the gradient step in progress and the disk


class LearnerNode(SmacNode):
    """One thread owns the run (networks, replay, files); callbacks only hand it trajectories."""

    parameters = (
        Parameter(
            "checkpoint", "", "Run to start from; empty or shipped: the one that is shipped."
        ),
        Parameter("run", "", "Folder to write; resumed if begun; empty: runs/ros_<domain>."),
        Parameter("dataset", "", "The run's offline data, or a part of them; empty: its own."),
        Parameter("contract", "", "Contract to check the run against; empty: none."),
        Parameter("device", "auto", "auto, cpu, cuda or cuda:N."),
        Parameter("threads", 0, "CPU threads of torch; 0: torch's choice.", low=0, high=1024),
        Parameter(
            "transitions_per_iteration",
            0,
            "Practice between two sets of weights; 0: as configured.",
            low=0,
            high=10**9,
        ),
        Parameter("gradient_steps_per_transition", 0.0, "0: as configured.", low=0.0, high=1000.0),
        Parameter("checkpoint_every", 1, "Iterations.", low=1, high=10**6),
        Parameter(
            "patience",
            10.0,
            "Seconds after a trajectory until an iteration does with fewer; 0: never.",
            low=0.0,
            high=86400.0,
        ),
        Parameter("set", [""], "Changes to the configuration: section.key=value."),
        Parameter(
            "seed", -1, "Of a new run; -1: the checkpoint's generators.", low=-1, high=2**32 - 1
        ),
    )

    def __init__(self, **arguments: Any):
        super().__init__("learner", **arguments)
        self._training: OnlineTraining | None = None
        self._thread: threading.Thread | None = None
        self._queue: deque[Trajectory] = deque()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._save_wanted, self._saved = threading.Event(), threading.Event()
        self._failed = ""
        self._sequences: dict[int, tuple[int, int]] = {}  # session -> last (sequence, episode)
        self._received = {"trajectories": 0, "transitions": 0}
        self._state = WAITING
        self._losses: dict[str, float] = {}
        self._seconds, self._steps = 0.0, 0  # of the iteration's gradient steps in this process

    # Lifecycle

    def configure(self) -> None:
        self._open()
        self._weights = self.own("publisher", UInt8MultiArray, "weights", latched())
        self._progress = self.own("publisher", DiagnosticArray, "learner/progress", latched())
        self.own("subscription", PointCloud2, TOPIC, self._receive, reliable(100))
        self.own("service", Trigger, "~/save", self._on_save)
        self.own("timer", 1.0, self._while_updating)

    def activate(self) -> None:
        if self._failed or self._training is None:
            self._open()  # the last checkpoint: what failed is in memory only
        self.diagnostics.clear("training")
        self._failed = ""
        self._stop.clear()
        self._publish_weights()
        self._thread = threading.Thread(target=self._work, name="learner")
        self._thread.start()

    def deactivate(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._wake.set()
            self._thread.join()
            self._thread = None

    def cleanup(self) -> None:
        self._training = None

    def _open(self) -> None:
        """The run, begun or resumed."""
        if threads := self.setting("threads"):
            torch.set_num_threads(threads)
        folder, dataset = self.setting("run"), self.setting("dataset")
        given = self.setting("checkpoint")
        source = run_folder(given)
        if folder:
            directory = Path(folder)
        else:
            domain = checkpoint.load_state(source / "offline" / "checkpoints")["domain"]
            directory = Path("runs") / f"ros_{domain}"
        begun = directory / PHASE / "checkpoints"
        resumed = (begun / "latest").exists()
        self._check_contract(begun if resumed else source / "offline" / "checkpoints")
        state = open_run(
            None if resumed and given in SHIPPED else source,
            directory,
            device=resolve_device(self.setting("device")),
            dataset_path=Path(dataset) if dataset else None,
            overrides=[change for change in self.setting("set") if change],
            seed=None if self.setting("seed") < 0 else self.setting("seed"),
        )
        self._training = OnlineTraining(
            state,
            transitions=self.setting("transitions_per_iteration"),
            ratio=self.setting("gradient_steps_per_transition"),
        )
        self._every = self.setting("checkpoint_every")
        self._identity = identity(directory)
        self.diagnostics.show(run=str(directory), device=str(state.agent.device))
        verb = "resumed" if resumed else "begun"
        self.get_logger().info(
            f"{directory} {verb} at iteration {state.step} on {state.agent.device}, "
            f"{self._training.transitions} transitions an iteration"
        )

    def _check_contract(self, folder: Path) -> None:
        """Before anything is written: whether a checkpoint is of the contract's robot."""
        if not self.setting("contract"):
            return
        contract, state = load_contract(self.setting("contract")), checkpoint.load_state(folder)
        config = parse_config(state["config"], str(folder))
        contract.check_run(config.environment, state["contract"], folder)

    # Callbacks

    def _receive(self, message: PointCloud2) -> None:
        training = self._training
        if self._thread is None or self._failed:
            self.diagnostics.count("trajectories ignored", "a trajectory came while not learning")
            return
        try:
            agent = training.run.agent
            trajectory = unpack_trajectory(message, agent.observation_dim, agent.action_dim)
        except InputError as error:
            self.diagnostics.count("trajectories refused", str(error))
            return
        if not self._in_sequence(trajectory):
            return
        self._received["trajectories"] += 1
        self._received["transitions"] += len(trajectory)
        if len(self._queue) >= QUEUE:
            self._queue.popleft()
            self.diagnostics.count("trajectories dropped", f"more than {QUEUE} were waiting")
        self._queue.append(trajectory)
        self._wake.set()

    def _in_sequence(self, trajectory: Trajectory) -> bool:
        """Whether it is new; counts those that are missing before it.

        A labeler that has started again counts from zero again.
        """
        now = (trajectory.sequence, trajectory.episode)
        last = self._sequences.get(trajectory.session)
        self._sequences[trajectory.session] = now
        if last is None:
            return True
        if now == last:
            self.diagnostics.count("trajectories repeated", f"episode {now[1]} came twice")
            return False
        expected = last[0] + 1 if now[0] > last[0] else 0
        if lost := now[0] - expected:
            text = f"lost {lost} trajectories before episode {trajectory.episode}"
            self.diagnostics.count("trajectories lost", text, by=lost)
        return True

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._saved.clear()
        if self._failed or self._training is None:
            response.message = self._failed or "not configured"
            return response
        if self._thread is not None:
            self._save_wanted.set()
            self._wake.set()
            response.success = self._saved.wait(SAVE_SECONDS) and not self._failed
        else:
            try:
                self._training.run.save()
            except (OSError, FloatingPointError) as error:
                response.message = f"not saved: {error}"
                return response
            response.success = True
        response.message = self._failed or str(self._training.run.folder / "checkpoints")
        return response

    def _while_updating(self) -> None:
        if self._state == UPDATING and self._thread is not None:
            self._publish_progress()

    # The thread that learns

    def _work(self) -> None:
        if threads := self.setting("threads"):
            torch.set_num_threads(threads)  # of this thread
        state = self._training.run
        try:
            with MetricLogger(state.folder, resume_step=state.step or -1) as metrics:
                self._publish_progress()
                while not self._stop.is_set():
                    if self._save_wanted.is_set():
                        self._save_now()
                    if self._training.ready:
                        self._update(metrics)
                    elif self._queue:
                        self._take()
                        self._publish_progress()
                    else:
                        self._rest()
                while self._queue:  # practice is dear: it goes into the checkpoint
                    self._take()
                state.save()
        except Exception as error:  # the node lives on, to say so
            known = isinstance(error, FloatingPointError | OSError)
            self._failed = str(error) if known else f"{type(error).__name__}: {error}"
            if not known:
                self.get_logger().error(traceback.format_exc())
            self._set_state("failed")
            self.diagnostics.fault("training", f"training has stopped: {self._failed}")
        finally:
            self._saved.set()  # nobody is left to save

    def _rest(self) -> None:
        """Until something comes; an iteration that waits in vain goes on without the rest."""
        training, patience = self._training, self.setting("patience")
        waits = patience > 0 and training.pending > 0 and self._received["trajectories"] > 0
        if not self._wake.wait(patience if waits else None):
            found, wanted = training.pending, training.transitions
            text = f"an iteration of {found} transitions instead of {wanted}: no more came"
            self.diagnostics.count("iterations cut short", f"{text} for {patience:g} s")
            training.cut_short()
        self._wake.clear()

    def _take(self) -> None:
        """The oldest waiting trajectory, into the replay."""
        trajectory = self._queue.popleft()
        try:
            self._training.receive(
                trajectory.task,
                trajectory.observations,
                trajectory.actions,
                trajectory.rewards,
                trajectory.next_observations,
                trajectory.terminals,
                exploration=trajectory.exploration,
            )
        except InputError as error:
            self.diagnostics.count("trajectories refused", str(error))

    def _update(self, metrics: MetricLogger) -> None:
        """A gradient step; after an iteration's last one, the weights go out."""
        training, state = self._training, self._training.run
        if self._state != UPDATING:
            self._seconds, self._steps = 0.0, 0
            self._set_state(UPDATING)
        if training.owed:
            began = time.perf_counter()
            training.update()
            self._seconds += time.perf_counter() - began
            self._steps += 1
        if training.owed:
            return
        values = training.finish()
        self._losses = {name: values[name] for name in values if name not in state.counters}
        metrics.log(state.phase, state.step, values | {"seconds": self._seconds})
        metrics.flush()
        if state.step % self._every == 0:
            state.save()  # first: started again after a crash, it must not fall behind its policies
        self._publish_weights()
        self._set_state(WAITING)

    def _save_now(self) -> None:
        self._save_wanted.clear()
        self._training.run.save()
        self._saved.set()

    def _set_state(self, name: str) -> None:
        self._state = name
        self._publish_progress()

    # What goes out

    def _publish_weights(self) -> None:
        """The agent as it is now; late comers get the last ones."""
        state = self._training.run
        description = {
            "version": state.step,
            "run": self._identity,
            "domain": state.config.domain,
            "observation_dim": state.agent.observation_dim,
            "action_dim": state.agent.action_dim,
            "networks": state.config.networks.model_dump(mode="json"),
            "environment": state.config.environment.model_dump(mode="json"),
            "contract": state.dataset.contract,
        }
        self._weights.publish(pack_weights(state.agent.state_dict(), description))

    def progress(self) -> dict[str, Any]:
        """The values of learner/progress."""
        training = self._training
        return {
            "state": self._state,
            "version": training.run.step,
            "iteration": training.run.step,
            "updates": training.run.counters["updates"],
            "updates_owed": training.owed,
            **self._received,
            "pending_transitions": training.pending,
            "pending_trajectories": training.run.counters["pending_trajectories"],
            "transitions_per_iteration": training.transitions,
            "waiting_trajectories": len(self._queue),
            "seconds_per_update": round(self._seconds / max(self._steps, 1), 6),
            **self._losses,
        }

    def _publish_progress(self) -> None:
        values = self.progress()
        self.diagnostics.show(**{"training" if k == "state" else k: v for k, v in values.items()})
        status = DiagnosticStatus(
            level=DiagnosticStatus.ERROR if self._failed else DiagnosticStatus.OK,
            name=self.get_fully_qualified_name(),
            message=self._failed or self._state,
            hardware_id=self._identity,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        self._progress.publish(array)


def main() -> None:
    """Entry point of the executable."""
    run(LearnerNode)


if __name__ == "__main__":
    main()
