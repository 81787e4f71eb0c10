"""``smac render``: film an agent adapting to a task, or the behaviour policy doing it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3 as imageio
import numpy as np
import torch

from smac_core.agents.interface import Actor
from smac_core.commands.checks import check_film
from smac_core.commands.evaluate import choose_tasks
from smac_core.config import Config
from smac_core.data.trajectories import Trajectories
from smac_core.errors import InputError
from smac_core.training.collection import make_policy
from smac_core.training.run import load_agent

STRIP = 5  # pictures in a .png strip
ALONE = np.arange(1)  # the one episode that an actor acts in

Frame = np.ndarray  # [height, width, 3] uint8
Act = Callable[[np.ndarray], np.ndarray]


def film_run(
    run: Path,
    phase: str,
    tasks: str,
    number: int,
    out: Path,
    *,
    seed: int,
    width: int = 480,
    height: int = 360,
) -> None:
    """A whole meta-episode: exploration, adaptation, the adapted episode.

    Raises:
        InputError: no such task, or a file format other than .gif, .mp4, .png.
    """
    agent, config, _ = load_agent(run, phase)
    generator = torch.Generator().manual_seed(seed)
    settings = config.evaluation
    env, task = _open(config, tasks, number, out, width, height)
    frames: list[Frame] = []

    def film(actor: Actor, caption: str) -> Trajectories:
        transitions: list[tuple] = []

        def act(observation: np.ndarray) -> np.ndarray:
            return actor.act(ALONE, torch.from_numpy(observation)[None])[0].numpy()

        def told(*transition: Any) -> None:
            transitions.append(transition)
            if actor.observes:
                before, action, after, reward = (
                    torch.as_tensor(part, dtype=torch.float32)[None] for part in transition[:4]
                )
                actor.observe(ALONE, before, action, reward, after)

        frames.extend(_episode(env, task, act, caption, told))
        return Trajectories.one(*(np.array(c, np.float32) for c in zip(*transitions, strict=True)))

    explore = agent.explorer(1, settings, generator)
    history = [
        film(explore(), f"exploration {episode + 1}")
        for episode in range(settings.exploration_episodes)
    ]
    adapted = len(frames)
    film(agent.adapt(history, settings, generator).actor, "adapted")
    env.close()
    # a strip shows what was learned: the adapted episode alone
    shown = frames[adapted:] if out.suffix == ".png" else frames
    _write(out, shown, config.environment.rate)


def film_policy(
    config: Config,
    tasks: str,
    number: int,
    out: Path,
    *,
    seed: int,
    width: int = 480,
    height: int = 360,
) -> None:
    """One trajectory of the domain's behaviour policy; errors as ``film_run``'s."""
    collection = config.collection
    if collection.source != "scripted":
        expected = "a run's folder: there is no scripted policy of this domain to film"
        raise InputError(config.domain, "collection.source", collection.source, expected)
    env, task = _open(config, tasks, number, out, width, height, collection.length)
    policy = make_policy(collection.policy, collection.policy_kwargs, env, seed)
    env.reset(options={"task": task})
    policy.reset()
    frames = list(_episode(env, task, policy.act, "behaviour policy"))
    env.close()
    _write(out, frames, config.environment.rate)


def _open(
    config: Config, tasks: str, number: int, out: Path, width: int, height: int, horizon: int = 0
) -> tuple[gymnasium.Env, dict[str, Any]]:
    check_film(out)
    chosen = choose_tasks(config, tasks)
    if number >= len(chosen):
        raise InputError("--task", "number", number, f"0 to {len(chosen) - 1} of {tasks}")
    environment = config.environment
    env = gymnasium.make(
        environment.id,
        max_episode_steps=horizon or environment.horizon,
        render_mode="rgb_array",
        width=width,
        height=height,
        **environment.kwargs,
    )
    return env, chosen[number]


def _episode(
    env: gymnasium.Env,
    task: dict[str, Any],
    act: Act,
    caption: str,
    told: Callable[..., None] = lambda *transition: None,
) -> Iterator[Frame]:
    """Frames of one episode; ``told``: called with each (s, a, s', r, terminal)."""
    observation, info = env.reset(options={"task": task})
    what = str(task.get("behavior", "")).replace("_", " ")
    over = False
    while not over:
        yield _captioned(env.render(), f"{what}: {caption}", info.get("success", False))
        action = act(observation)
        after, reward, terminated, truncated, info = env.step(action)
        told(observation, action, after, float(reward), terminated)
        observation, over = after, terminated or truncated
    yield _captioned(env.render(), f"{what}: {caption}", info.get("success", False))


def _captioned(frame: Frame, text: str, success: bool) -> Frame:
    from PIL import Image, ImageDraw

    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    color = (60, 200, 90) if success else (255, 255, 255)
    size = max(12, frame.shape[0] // 22)
    draw.text(
        (8, 6),
        text + (" - success" if success else ""),
        fill=color,
        font_size=size,
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )
    return np.asarray(image)


def _write(out: Path, frames: list[Frame], rate: float) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".png":
        chosen = np.linspace(0, len(frames) - 1, STRIP).round().astype(int)
        imageio.imwrite(out, np.concatenate([frames[i] for i in chosen], axis=1))
    elif out.suffix == ".gif":
        imageio.imwrite(out, frames[::2], duration=2000 / rate, loop=0)
    else:
        try:
            imageio.imwrite(out, np.stack(frames), fps=rate, plugin="FFMPEG")
        except ImportError:
            raise InputError(
                out, "format", "no video encoder", "pip install imageio-ffmpeg, or a .gif file"
            ) from None
