"""Which episodes practice and the meta-test are made of, and in which order. Knows no ROS.

``Job`` reads from top to bottom like algorithm 1 and the meta-test of section 6; whoever plays the
episodes (``episode_manager_node``) is its ``Stage``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from smac_core import checkpoint
from smac_core.config import Config, Evaluation, SelfSupervised, parse_config
from smac_core.deployment.folders import Configuration, exported_configuration
from smac_core.training.run import run_folder
from smac_ros.messages import Begin, End
from smac_ros.scores import Score, Scores

PRACTICE, META_TEST = 1, 2  # first part of an episode's place, from which its seeds are drawn


class JobFailed(Exception):
    """The job cannot be done; the message says why."""


class Forgotten(JobFailed):
    """The policy does not play an episode that needs a context: it may have lost it, and died."""


class Stopped(Exception):
    """Someone wants the job to end after this episode; what has been scored is kept."""


def run_configuration(
    run: str,
    *,
    tasks_per_iteration: int = 0,
    exploration_trajectories: int = 0,
    adapted_trajectories: int = -1,
    repeats: int = 0,
    horizon: int = 0,
) -> Config:
    """A run's or an export's configuration; 0, and -1 where 0 means none: as it is.

    Args:
        run: its folder; empty: the shipped one.

    Raises:
        InputError: no such folder, or no checkpoint of the run's offline phase.
    """
    folder = run_folder(run)
    if (told := exported_configuration(folder)) is None:
        place = checkpoint.find(folder / "offline" / "checkpoints")
        told = Configuration(checkpoint.load_state(place)["config"], place / checkpoint.STATE)
    config = parse_config(told.tree, str(told.path))
    practice, environment, evaluation = {}, {}, {}
    if tasks_per_iteration:
        practice["tasks_per_iteration"] = tasks_per_iteration
    if exploration_trajectories:
        practice["exploration_trajectories"] = exploration_trajectories
    if adapted_trajectories >= 0:
        practice["adapted_trajectories"] = adapted_trajectories
    if repeats:
        evaluation["repeats"] = repeats
    if horizon:
        environment["horizon"] = horizon
    sections = {
        "self_supervised": practice,
        "evaluation": evaluation,
        "environment": environment,
    }
    return config.model_copy(
        update={k: getattr(config, k).model_copy(update=v) for k, v in sections.items()}
    )


@dataclass(frozen=True)
class Episode:
    """What an episode is to be, before it has a number and a first observation.

    Attributes:
        scene: the task that the robot is put into.
        place: where in the job it stands; its seeds follow from it.
        task, purpose, mode, group, deterministic, latent, context: as in ``Begin``.
    """

    scene: dict[str, Any]
    place: tuple[int, ...]
    purpose: Literal["exploration", "adapted", "meta_test"]
    mode: Literal["explore", "adapt", "exploit"]
    group: int
    deterministic: bool
    latent: Literal["step", "trajectory", "sample", "mean"]
    task: int = -1
    context: int = 0

    def seeds(self, seed: int, attempt: int = 0) -> tuple[int, int]:
        """The policy's and the robot's, of 31 bits; another attempt has others."""
        place = np.random.SeedSequence(seed, spawn_key=(*self.place, attempt))
        policy, robot = place.generate_state(2) >> 1
        return int(policy), int(robot)

    def begin(self, *, session: int, id: int, start: int, steps: int, seed: int, weights: int):
        """The marker that begins it."""
        return Begin(
            session=session,
            id=id,
            start=start,
            steps=steps,
            purpose=self.purpose,
            mode=self.mode,
            group=self.group,
            seed=seed,
            deterministic=self.deterministic,
            latent=self.latent,
            task=self.task,
            context=self.context,
            weights=weights,
        )


@dataclass(frozen=True)
class Played:
    """An episode that is over, with its score where rewards were measured."""

    begin: Begin
    end: End
    score: Score | None = None


def practice_episodes(
    settings: SelfSupervised,
    scene: dict[str, Any],
    task: int,
    place: tuple[int, ...],
    group: int,
) -> tuple[list[Episode], list[Episode]]:
    """One task's share of an iteration: with z ~ p(z), and with z ~ q(z | the former, labelled)."""
    explored = Episode(
        scene,
        (PRACTICE, *place, 0),
        "exploration",
        "explore",
        group,
        settings.deterministic_exploration,
        settings.exploration_latent,
        task=task,
    )
    adapted = replace(
        explored,
        place=(PRACTICE, *place, 1),
        purpose="adapted",
        mode="exploit",
        latent="sample",
        context=settings.exploration_trajectories,
    )
    return (
        _numbered(explored, settings.exploration_trajectories),
        _numbered(adapted, settings.adapted_trajectories),
    )


def meta_episode(
    settings: Evaluation, scene: dict[str, Any], place: tuple[int, ...], group: int
) -> tuple[list[Episode], Episode]:
    """Exploration episodes with true rewards, and the last one, which is scored."""
    explored = Episode(
        scene,
        (META_TEST, *place),
        "meta_test",
        "adapt",
        group,
        settings.deterministic_exploration,
        settings.exploration_latent,
    )
    last = replace(
        explored,
        place=(META_TEST, *place, settings.exploration_episodes),
        mode="exploit",
        deterministic=True,
        latent=settings.posterior_latent,
        context=settings.exploration_episodes,
    )
    return _numbered(explored, settings.exploration_episodes), last


def _numbered(episode: Episode, count: int) -> list[Episode]:
    return [replace(episode, place=(*episode.place, number)) for number in range(count)]


def choose_tasks(tasks: Sequence[dict[str, Any]], count: int) -> list[int]:
    """Numbers of ``count`` tasks (0: all), evenly spaced within each desired behaviour."""
    if not 0 < count < len(tasks):
        return list(range(len(tasks)))
    groups: dict[str, list[int]] = {}
    for number, task in enumerate(tasks):
        groups.setdefault(str(task.get("behavior", "")), []).append(number)
    quotas = dict.fromkeys(groups, 0)
    for _ in range(count):  # one more of the behaviour with the smallest share of its tasks
        least = min(groups, key=lambda name: (quotas[name] + 1) / len(groups[name]))
        quotas[least] += 1
    chosen = []
    for name, members in groups.items():
        chosen += [members[i * len(members) // quotas[name]] for i in range(quotas[name])]
    return sorted(chosen)


class Stage(Protocol):
    """Whoever has a robot and a policy; ``version`` is that of the weights that act."""

    version: int

    def play(self, episode: Episode) -> Played:
        """Raises JobFailed, Forgotten, Stopped."""

    def await_labels(self, played: Sequence[Played]) -> set[int]:
        """Ids of those whose labels never came."""

    def await_learner(self) -> None:
        """Until it has taken its steps and the next episodes may ask for its new weights."""

    def say(self, text: str, *, now: bool = False, **shown: Any) -> None:
        """Tell how the job goes on: at a sensible pace, or ``now``."""


@dataclass
class Job:
    """Meta-test, practice, meta-test: as much of it as is asked for.

    Attributes:
        config: with the numbers of trajectories and repeats that are wanted.
        train, test: the scenes.
        chosen: numbers of the held-out tasks to test.
        iterations: of practice.
        meta_test: none, before, after or both.
        scores: what has been scored so far, by ``before`` and ``after``.
    """

    stage: Stage
    config: Config
    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    chosen: list[int]
    iterations: int
    meta_test: str
    seed: int
    groups: Iterator[int]  # numbers for groups of episodes that share a context
    scores: dict[str, Scores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def run(self) -> None:
        """All of it.

        Raises:
            JobFailed: with the reason.
            Stopped: before the end; ``scores`` has what there is.
        """
        if self.meta_test in ("before", "both"):
            self._test("before")
        for iteration in range(self.iterations):
            self._practise(iteration)
        if self.meta_test in ("after", "both"):
            self._test("after")

    def _practise(self, iteration: int) -> None:
        """Lines 7 to 9 of algorithm 1, in the scenes of a few training tasks, without rewards."""
        settings = self.config.self_supervised
        many = settings.tasks_per_iteration
        total = many * (settings.exploration_trajectories + settings.adapted_trajectories)
        drawn = self._random.choice(len(self.train), many, replace=many > len(self.train))
        done: list[Played] = []
        lost: set[int] = set()  # episodes whose labels are waited for no more

        def play(episodes: list[Episode]) -> list[Played]:
            played = []
            for episode in episodes:
                played.append(self.stage.play(episode))
                done.append(played[-1])
                progress = f"{len(done)} of {total} episodes"
                self.stage.say(
                    f"practice {iteration + 1}/{self.iterations}: {progress}",
                    now=len(done) == total,
                    phase="practice",
                    iteration=f"{iteration + 1} of {self.iterations}",
                    episode=progress,
                )
            return played

        for position, task in enumerate(drawn.tolist()):

            def share(group: int, task: int = task, place: tuple = (iteration, position)) -> None:
                scene = self.train[task]
                explored, adapted = practice_episodes(settings, scene, task, place, group)
                played = play(explored)
                if adapted:
                    lost.update(self._label(play, explored, played))
                    play(adapted)

            self._together(share)
        kept = [one for one in done if one.begin.id not in lost]
        if len(self.stage.await_labels(kept)) == len(kept):
            raise JobFailed("no episode of this iteration was labelled: see the labeler's log")
        self.stage.await_learner()

    def _together(self, play: Callable[[int], Any]) -> Any:
        """Episodes of one group; all of them again, with the same seeds, if its context is lost."""
        try:
            return play(next(self.groups))
        except Forgotten as lost:
            self.stage.say(f"{lost}: its context is made anew", now=True)
            return play(next(self.groups))

    def _label(self, play: Any, explored: list[Episode], played: list[Played]) -> set[int]:
        """Wait for the labels that the posterior needs; play again what never gets any: those."""
        lost = self.stage.await_labels(played)
        if lost:
            numbers = [i for i, one in enumerate(played) if one.begin.id in lost]
            again = [
                replace(explored[i], place=(*explored[i].place[:-1], len(explored) + i))
                for i in numbers
            ]
            if self.stage.await_labels(play(again)):
                raise JobFailed(f"{len(lost)} episodes were not labelled, nor were their repeats")
        return lost

    def _test(self, name: str) -> None:
        """Explore with true rewards, infer the task, score the last episode."""
        settings = self.config.evaluation
        scores = Scores(
            [self.test[i] for i in self.chosen], self.chosen, settings.repeats, self.stage.version
        )
        self.scores[name] = scores
        total = len(self.chosen) * settings.repeats
        for row, task in enumerate(self.chosen):
            for repeat in range(settings.repeats):

                def score(group: int, task: int = task, repeat: int = repeat) -> tuple:
                    scene = self.test[task]
                    explored, last = meta_episode(settings, scene, (task, repeat), group)
                    before = [self.stage.play(episode).score for episode in explored]
                    return self.stage.play(last).score, before

                scores.add(row, repeat, *self._together(score))
                done = row * settings.repeats + repeat + 1
                progress = f"{done}/{total} meta-episodes"
                found = f"return {scores.mean_return:.1f}"
                if self.config.environment.measures_success:
                    found = f"success {100 * scores.success_rate:.0f} %"
                self.stage.say(
                    f"meta-test {name}: {progress}, {found}",
                    now=done == total,
                    phase=f"meta-test {name}",
                    iteration="",
                    episode=progress,
                )
