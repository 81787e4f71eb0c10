"""Conducts: resets the robot, begins episodes, runs practice and the meta-test's protocol.

What is played is in ``protocol``, how in ``conductor``; this file has the topics and services:

    episode                 out: begin, and end of an episode given up; in: the policy's end
    reward                  in: the meta-test's scores
    labelled_trajectories   in: what practice waits for before it adapts
    learner/progress        in: what practice waits for before the next iteration
    control                 in: who commands the robot; episodes wait until it is the policy
    <robot>/reset, <robot>/set_parameters_atomically   called before each episode
    ~/start ~/pause ~/stop  begin or go on; hold before the next episode; end the job after this one
"""

import json
import math
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter as RosParameter
from sensor_msgs.msg import JointState, PointCloud2
from std_msgs.msg import String
from std_srvs.srv import Trigger

from smac_core import __version__
from smac_core.errors import InputError
from smac_core.tasks import held_out_tasks, training_tasks
from smac_core.training.run import write_json
from smac_ros.base_node import Parameter, SmacNode, latched, reliable, run
from smac_ros.conductor import POLL, Conduct, Conductor, GivenUp, Halted
from smac_ros.contract import load_contract
from smac_ros.messages import Begin, parse_marker, stamp_ns, unpack_trajectory
from smac_ros.protocol import Episode, Job, JobFailed, Stopped, choose_tasks, run_configuration
from smac_ros.scores import make_table

WAITING = 5.0  # s between two log lines about the same wait
PARTING = 2.0  # s that the job has to end once the node is deactivated
MANY = 10**6


class EpisodeManagerNode(SmacNode):
    """The robot's parameters ``task``, ``seed`` and ``publish_reward`` are set before its reset."""

    parameters = (
        Parameter("contract", "sawyer_sim", "Name or path of the robot's contract."),
        Parameter("checkpoint", "", "Run or export whose configuration holds; empty: the shipped."),
        Parameter(
            "clock",
            "real_time",
            "As the robot's and the policy's.",
            choices=("real_time", "lockstep"),
        ),
        Parameter("iterations", 10, "Iterations of practice; 0: none.", 0, MANY),
        Parameter("tasks_per_iteration", 0, "0: as configured.", 0, MANY),
        Parameter(
            "exploration_trajectories", 0, "A task and iteration; 0: as configured.", 0, MANY
        ),
        Parameter("adapted_trajectories", -1, "A task and iteration; -1: as configured.", -1, MANY),
        Parameter(
            "meta_test",
            "both",
            "Test on held-out tasks before or after practice.",
            choices=("none", "before", "after", "both"),
        ),
        Parameter("meta_test_tasks", 0, "0: all; fewer keep behaviours mixed.", 0, MANY),
        Parameter("meta_test_repeats", 1, "Of each task; 0: as configured.", 0, MANY),
        Parameter("horizon", 0, "Steps an episode; 0: as configured.", 0, MANY),
        Parameter("robot", "sawyer_sim", "Name of the node that resets the robot."),
        Parameter(
            "reset",
            "service",
            "By the robot's ~/reset, by someone who then calls ~/start, or not at all.",
            choices=("service", "manual", "none"),
        ),
        Parameter(
            "rewards",
            "robot",
            "Who gives the meta-test's: the robot, or an operator.",
            choices=("robot", "operator"),
        ),
        Parameter("wait_for_learner", True, "Practise with what the last practice has taught."),
        Parameter("recorder", "", "Node that has to listen before the first episode; empty: none."),
        Parameter("start", True, "Begin at once; else ~/start begins."),
        Parameter(
            "timeout", 30.0, "s beyond an episode's nominal time until it is given up.", 0.1, 1e6
        ),
        Parameter("seed", 0, "Of the choice of tasks and of all episodes.", 0, 2**32 - 1),
        Parameter("results", "", "Folder for meta_test_*.json; empty: none."),
        Parameter("exit_when_done", True, "End the process with the job."),
    )

    def __init__(self, **arguments: Any):
        super().__init__("episode_manager", **arguments)
        self._conductor: Conductor | None = None
        self._thread: threading.Thread | None = None

    # Lifecycle

    def configure(self) -> None:
        setting = self.setting
        self._contract = load_contract(setting("contract"))
        lockstep = setting("clock") == "lockstep"
        if lockstep:
            self._contract.require_lockstep()
        if setting("reset") == "service" and not setting("robot"):
            expected = "the robot node's name, or reset:=manual"
            raise InputError(self.get_name(), "robot", "no name", expected)
        self._config = run_configuration(
            setting("checkpoint"),
            tasks_per_iteration=setting("tasks_per_iteration"),
            exploration_trajectories=setting("exploration_trajectories"),
            adapted_trajectories=setting("adapted_trajectories"),
            repeats=setting("meta_test_repeats"),
            horizon=setting("horizon"),
        )
        source = setting("checkpoint") or "the shipped run"
        self._contract.check_run(self._config.environment, None, source)
        self._train = training_tasks(self._config)
        self._test = held_out_tasks(self._config)
        self._conductor = Conductor(
            Conduct(
                steps=self._config.environment.horizon,
                rate=self._contract.rate,
                exact=lockstep,
                timeout=setting("timeout"),
                manual=setting("reset") == "manual",
                wait_for_learner=setting("wait_for_learner"),
                seed=setting("seed"),
            ),
            publish=lambda marker: self._markers.publish(String(data=marker.to_json())),
            ready=self._ready,
            diagnostics=self.diagnostics,
            log=self.get_logger().info,
        )
        self._connect()

    def _connect(self) -> None:
        self._markers = self.own("publisher", String, "episode", reliable(100))
        for kind, topic, callback, qos in (
            (String, "episode", self._on_episode, reliable(100)),
            (JointState, "reward", self._on_reward, reliable(1000)),
            (PointCloud2, "labelled_trajectories", self._on_labels, reliable(100)),
            (DiagnosticArray, "learner/progress", self._on_progress, latched()),
            (String, "control", self._on_control, latched()),
        ):
            self.own("subscription", kind, topic, callback, qos)
        for name in ("start", "pause", "stop"):
            self.own("service", Trigger, f"~/{name}", getattr(self, f"_on_{name}"))
        self._robot = []  # clients (rclpy's Node has _clients of its own)
        if self.setting("reset") == "service":
            robot = self.setting("robot")
            set_service = f"{robot}/set_parameters_atomically"
            self._set = self.own("client", SetParametersAtomically, set_service)
            self._reset = self.own("client", Trigger, f"{robot}/reset")
            self._robot = [self._set, self._reset]

    def activate(self) -> None:
        if self.setting("start"):
            self._begin_job()

    def deactivate(self) -> None:
        self._conductor.order(halt=True)
        if self._thread is not None:
            self._thread.join(PARTING)

    # What is heard

    def _on_episode(self, message: String) -> None:
        try:
            marker = parse_marker(message.data)
        except InputError as error:
            self.diagnostics.count("markers refused", str(error))
            return
        if marker.session == self._conductor.session:
            self._conductor.heard_marker(marker)
        elif isinstance(marker, Begin):
            text = f"another episode manager (session {marker.session}) begins episodes, too"
            self.diagnostics.count("episodes of others", text)

    def _on_reward(self, message: JointState) -> None:
        values = dict(zip(message.name, message.position, strict=False))
        if "reward" not in values or "success" not in values:
            found = f"reward: found {list(message.name)}; expected reward and success"
            self.diagnostics.count("rewards refused", found)
            return
        if not math.isfinite(values["reward"]):
            self.diagnostics.count("rewards refused", f"reward: found {values['reward']}")
            return
        stamp, success = stamp_ns(message.header.stamp), values["success"] > 0.5
        self._conductor.heard_reward(stamp, values["reward"], success)

    def _on_labels(self, message: PointCloud2) -> None:
        sizes = self._contract.observation_dim, self._contract.action_dim
        try:
            trajectory = unpack_trajectory(message, *sizes)
        except InputError as error:
            self.diagnostics.count("trajectories refused", str(error))
            return
        if trajectory.session == self._conductor.session:
            mean = float(trajectory.rewards.mean())
            self._conductor.heard_labels(trajectory.episode, mean, len(trajectory))

    def _on_progress(self, message: DiagnosticArray) -> None:
        values = {pair.key: pair.value for status in message.status for pair in status.values}
        self._conductor.heard_progress(values)

    def _on_control(self, message: String) -> None:
        self._conductor.heard_control(message.data)

    # Services

    @property
    def _busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _on_start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.diagnostics.state == "active"
        if not response.success:
            response.message = f"{self.get_name()} is {self.diagnostics.state}, not active"
        elif self._busy:
            response.message = "goes on" if self._conductor.paused else "goes ahead"
            self._conductor.order(pause=False, go=True)
        else:
            response.message = "begins"
            self._begin_job()
        return response

    def _on_pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._order(response, "holds before the next episode", pause=True)

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._order(response, "ends the job after this episode", stop=True)

    def _order(self, response: Trigger.Response, text: str, **flag: bool) -> Trigger.Response:
        response.success = self._busy
        response.message = text if self._busy else "there is no job"
        if self._busy:
            self._conductor.order(**flag)
        return response

    # The job, in its own thread

    def _begin_job(self) -> None:
        self._conductor.reset()
        self._thread = threading.Thread(target=self._work, name="job", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        code: int | None = 1
        job = Job(
            self._conductor,
            self._config,
            self._train,
            self._test,
            choose_tasks(self._test, self.setting("meta_test_tasks")),
            self.setting("iterations"),
            self.setting("meta_test"),
            self.setting("seed"),
            self._conductor.groups,
        )
        try:
            self._await_system()
            job.run()
            code = 0
        except Stopped:
            self.get_logger().info("stopped before the job was done; what was scored is kept")
            code = 0
        except Halted:
            self.get_logger().info("the job was interrupted; what was scored is kept")
            code = None  # the node leaves, or was deactivated: no reason to end the process
        except (JobFailed, InputError, OSError) as error:
            self.diagnostics.fault("job", str(error))
        except Exception as error:
            self.diagnostics.fault("job", f"{type(error).__name__}: {error}")
            traceback.print_exc()
        try:
            self._present(job)
        except Exception as error:  # whatever it is, the job is over and must be seen to be
            self.diagnostics.fault("results", f"the results are not kept: {error}")
            code = 1
        self.diagnostics.show(phase={0: "done", None: "interrupted"}.get(code, "failed"))
        if self.setting("exit_when_done"):
            self.exit_code = code

    def _present(self, job: Job) -> None:
        """Results as files and as a table, whatever there is of them."""
        from rich.console import Console

        counts = [count for _, count in self._conductor.labels.values()]
        practice = {"trajectories": len(counts), "transitions": sum(counts)}
        scored = {name: scores for name, scores in job.scores.items() if scores.rows}
        folder = self.setting("results")
        for name, scores in scored.items() if folder else ():
            settings = self._config.evaluation.model_dump(mode="json")
            content = {
                "phase": name,
                "practice": dict.fromkeys(practice, 0) if name == "before" else practice,
                "seed": self.setting("seed"),
                "settings": settings
                | {"horizon": self._config.environment.horizon, "clock": self.setting("clock")},
                "versions": {"smac_ros": __version__, "weights": scores.weights},
                "parameters": {p.name: self.setting(p.name) for p in self.parameters},
            }
            path = Path(folder) / f"meta_test_{name}.json"
            write_json(path, content | scores.report())
            self.get_logger().info(f"wrote {path}")
        if scored:
            table = make_table(
                scored,
                self._config.evaluation.exploration_episodes + 1,
                practice,
                measures_success=self._config.environment.measures_success,
            )
            Console().print(table)

    def _await_system(self) -> None:
        """Raises Halted, Stopped."""
        asked, told = time.monotonic(), 0.0
        while missing := self._missing():
            self.diagnostics.show(phase=f"waits for {', '.join(missing)}")
            if time.monotonic() - max(asked, told) >= WAITING:
                told = time.monotonic()
                self.get_logger().info(f"waiting for {'; '.join(missing)}")
            if self._conductor.until(lambda: self._conductor.stopping, POLL):
                raise Stopped
        if self.setting("iterations"):
            self._conductor.expect_learner()

    @property
    def _by_operator(self) -> bool:
        return self.setting("rewards") == "operator"

    def _missing(self) -> list[str]:
        """What the job needs and does not see."""

        def published(topic: str) -> int:
            return self.count_publishers(self.resolve_topic_name(topic))

        missing = [
            f"the service {self._name(client)}"
            for client in self._robot
            if not client.service_is_ready()
        ]
        listeners = self._markers.get_subscription_count() - 1  # one is this node
        commands = self._contract.actions[0].topic
        if not published(commands) or listeners < 1 or published("episode") < 2:
            missing.append(f"a policy (which publishes {commands} and listens to episode)")
        if self._by_operator and self.setting("meta_test") != "none":
            reward = self.resolve_topic_name("reward")
            found = {info.node_name for info in self.get_publishers_info_by_topic(reward)}
            if not found - {self.setting("robot")}:
                missing.append("an operator (which publishes reward): smac operator")
        if recorder := self.setting("recorder"):
            listening = self.get_subscriptions_info_by_topic(self.resolve_topic_name(commands))
            if recorder not in {info.node_name for info in listening}:
                missing.append(f"{recorder} (which listens to {commands})")
        if self.setting("iterations"):
            if not published("labelled_trajectories") or listeners < 2:
                missing.append("a reward labeler (which publishes labelled_trajectories)")
            if not self._conductor.progress:
                missing.append("a learner (which publishes learner/progress)")
        return missing

    def _ready(self, episode: Episode, seed: int) -> int:
        """The robot in the episode's scene; stamp of the first observation, ns."""
        if self.setting("reset") != "service":
            return self.get_clock().now().nanoseconds
        values = {
            "task": json.dumps(episode.scene),
            "seed": seed,
            "publish_reward": episode.purpose == "meta_test" and not self._by_operator,
        }
        request = SetParametersAtomically.Request(
            parameters=[RosParameter(k, value=v).to_parameter_msg() for k, v in values.items()]
        )
        result = self._call(self._set, request).result
        if not result.successful:
            raise JobFailed(f"{self.setting('robot')} refuses a task: {result.reason}")
        response = self._call(self._reset, Trigger.Request())
        if not response.success:
            raise GivenUp(f"{self._name(self._reset)}: {response.message}")
        try:
            return int(json.loads(response.message)["stamp"])
        except (ValueError, KeyError, TypeError):
            expected = 'JSON with "stamp", in ns'
            text = f"{self._name(self._reset)}: found {response.message!r}; expected {expected}"
            raise JobFailed(text) from None

    def _call(self, client: Any, request: Any) -> Any:
        future = client.call_async(request)
        future.add_done_callback(self._conductor.notify)
        if not self._conductor.until(future.done, self.setting("timeout")):
            client.remove_pending_request(future)
            raise GivenUp(f"{self._name(client)} does not answer")
        return future.result()

    def _name(self, client: Any) -> str:
        return self.resolve_service_name(client.srv_name)


def main() -> None:
    """Entry point of the executable."""
    run(EpisodeManagerNode)


if __name__ == "__main__":
    main()
