"""Which device a command trains on, and with how many threads. Loads torch when it must."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from smac_core.errors import InputError

if TYPE_CHECKING:
    from smac_core.config import Config

LARGE_UPDATE = 2e6  # multiply-adds of a hidden layer from which on a second thread pays


def check_device(name: str) -> str:
    """The name, where it is well formed; whether there is such a device, only torch can tell.

    Raises:
        InputError: it is not.
    """
    kind, _, number = name.partition(":")
    known = name == "auto" or kind in ("cpu", "cuda")
    if not known or not (number or "0").isdecimal():
        raise InputError("--device", "name", name, "auto, cpu, cuda or cuda:N")
    return name


def resolve_device(name: str) -> str:
    """``auto`` is cuda where there is one.

    Raises:
        InputError: no device of that name, or this machine lacks it.
    """
    import torch

    kind, _, number = check_device(name).partition(":")
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices"
        raise InputError("--device", name, found, "auto or cpu (see smac doctor)")
    return name


def use_threads(threads: int, config: Config | None = None) -> None:
    """Give torch this many CPU threads; 0: as many as suit the configuration's updates.

    Small updates are faster on one thread than on several that wait for each other. The choice
    depends on sizes and cores alone, so that a run can be repeated. OMP_NUM_THREADS has its way.
    """
    if not threads and (config is None or "OMP_NUM_THREADS" in os.environ):
        return
    import torch

    torch.set_num_threads(threads or suitable_threads(config, torch.get_num_threads()))


def suitable_threads(config: Config, cores: int) -> int:
    """How many of ``cores`` threads a gradient step of the configuration's sizes should use."""
    updates, networks = config.updates, config.networks
    widest = max([*networks.policy_hidden, *networks.critic_hidden])
    if updates.meta_batch * updates.rl_batch * widest**2 < LARGE_UPDATE:
        return 1
    return cores
