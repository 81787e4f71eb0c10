"""Checkpoints: exact round trips, and no failure that costs the previous one."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from smac_core import checkpoint
from smac_core.checkpoint import CheckpointError

TENSORS = {
    "policy.0.weight": torch.arange(6.0).reshape(2, 3),
    "replay.rewards": torch.linspace(0, 1, 1000),
    "replay.terminals": torch.tensor([True, False]),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 3),
}
STATE = {"step": 12, "config": {"lr": 0.0003, "sizes": [200, 200]}, "name": "é", "best": None}


def assert_usable(run: Path, name: str) -> None:
    """``name`` is the latest checkpoint of ``run``, whole, and nothing half-written is left."""
    assert checkpoint.latest(run) == run / name
    tensors, state = checkpoint.load(run)
    assert state == STATE
    for key, tensor in TENSORS.items():
        assert torch.equal(tensors[key], tensor) and tensors[key].dtype == tensor.dtype
    assert [item for item in os.listdir(run) if item.startswith(".")] == []


@pytest.fixture
def run(tmp_path: Path) -> Path:
    checkpoint.save(tmp_path / "run" / "step_1", TENSORS, STATE)
    return tmp_path / "run"


def test_round_trip(run: Path):
    assert_usable(run, "step_1")
    assert sorted(os.listdir(run / "step_1")) == ["checkpoint.json", "weights.safetensors"]
    assert checkpoint.load_state(run / "step_1") == STATE
    tensors, _ = checkpoint.load(run / "step_1")
    assert set(tensors) == set(TENSORS)


def test_tied_and_strided_tensors(tmp_path: Path):
    weight = torch.arange(6.0).reshape(2, 3)
    tied = {"a": weight, "b": weight, "row": weight[1], "transposed": weight.T}
    checkpoint.save(tmp_path / "c", tied, {})
    tensors, _ = checkpoint.load(tmp_path / "c")
    for name, tensor in tied.items():
        assert torch.equal(tensors[name], tensor)


def test_loaded_tensors_outlive_their_file(run: Path):
    tensors, _ = checkpoint.load(run)
    checkpoint.save(run / "step_2", TENSORS, STATE, keep=1)
    assert not (run / "step_1").exists()
    tensors["policy.0.weight"].add_(1)
    assert torch.equal(tensors["policy.0.weight"], TENSORS["policy.0.weight"] + 1)


def test_replacing_a_checkpoint_of_the_same_name(run: Path):
    checkpoint.save(run / "step_1", TENSORS, STATE | {"step": 13})
    assert checkpoint.load(run)[1]["step"] == 13
    assert [item for item in os.listdir(run) if item.startswith(".")] == []


def test_prune_keeps_the_newest_by_order_not_by_name(run: Path):
    for name in ("step_10", "step_9", "step_8"):
        checkpoint.save(run / name, TENSORS, STATE, keep=2)
    assert [path.name for path in checkpoint.checkpoints(run)] == ["step_9", "step_8"]
    assert not (run / "step_10").exists() and not (run / "step_1").exists()
    assert_usable(run, "step_8")
    with pytest.raises(ValueError, match="keep"):
        checkpoint.prune(run, 0)


# --- failures while writing


@contextmanager
def small_files() -> Iterator[None]:
    """The kernel refuses writes beyond 2 KB, as it would on a full disk (with another number).

    No longer than for one call: pytest's own output may go to a file.
    """
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("name", ["step_1", "step_2"])
def test_no_room_for_the_tensors(run: Path, name: str):
    with pytest.raises(OSError, match="weights") as caught, small_files():
        checkpoint.save(run / name, TENSORS, STATE)
    assert caught.value.errno == errno.EFBIG
    assert_usable(run, "step_1")


@pytest.mark.parametrize("name", ["step_1", "step_2"])
def test_no_room_for_the_state(run: Path, name: str):
    with pytest.raises(OSError) as caught, small_files():
        checkpoint.save(run / name, {}, {"text": "x" * 5000})
    assert caught.value.errno == errno.EFBIG
    assert_usable(run, "step_1")


@pytest.mark.parametrize("name", ["step_1", "step_2"])
@pytest.mark.parametrize("call", ["mkdir", "rename", "replace", "fsync"])
def test_disk_full_at_every_system_call(
    run: Path, name: str, call: str, monkeypatch: pytest.MonkeyPatch
):
    """The n-th use of a call fails with ENOSPC, for every n: a whole checkpoint always remains."""
    real = getattr(os, call)

    def save_with_failure_at(number: int) -> tuple[bool, bool]:
        """Whether there was an n-th call, and whether save raised."""
        calls = 0

        def failing(*arguments, **keywords):
            nonlocal calls
            calls += 1
            if calls == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                checkpoint.save(run / name, TENSORS, STATE)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                return True, True
        return calls >= number, False

    number, failures, reached = 1, 0, True
    while reached:
        reached, raised = save_with_failure_at(number)
        tensors, state = checkpoint.load(run)
        assert state == STATE and set(tensors) == set(TENSORS)
        assert [item for item in os.listdir(run) if item.endswith(".tmp")] == []
        number, failures = number + 1, failures + raised
    assert failures >= 1
    assert_usable(run, name)


def test_killed_at_every_system_call(run: Path):
    """The process dies, without cleaning up, before the n-th use of a call, for every n."""
    code = textwrap.dedent(
        """
        import os, sys
        sys.path.insert(0, sys.argv[2])
        from test_checkpoint import STATE, TENSORS, assert_usable, checkpoint, Path

        def killed(call, number, directory):
            child = os.fork()
            if child == 0:
                real, calls = getattr(os, call), 0
                def dying(*arguments, **keywords):
                    nonlocal calls
                    calls += 1
                    if calls == number:
                        os._exit(9)
                    return real(*arguments, **keywords)
                setattr(os, call, dying)
                checkpoint.save(directory, TENSORS, STATE)
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

        run, deaths = Path(sys.argv[1]), 0
        for name in ("step_1", "step_2"):
            for call in ("mkdir", "rename", "replace", "fsync", "rmdir", "unlink"):
                number = 1
                while killed(call, number, run / name):
                    tensors, state = checkpoint.load(run)
                    assert state == STATE and set(tensors) == set(TENSORS)
                    number, deaths = number + 1, deaths + 1
                assert_usable(run, name)
        print(deaths)
        """
    )
    command = [sys.executable, "-c", code, str(run), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20


def test_leftovers_of_a_dead_writer_go(run: Path):
    (run / ".step_2.123.tmp").mkdir()
    (run / ".step_2.123.tmp" / "weights.safetensors").write_bytes(b"half")
    (run / ".latest.123.tmp").write_text("half")
    assert checkpoint.latest(run) == run / "step_1"
    checkpoint.save(run / "step_2", TENSORS, STATE)
    assert_usable(run, "step_2")


@pytest.mark.parametrize(
    ("state", "field"),
    [
        ({"a": {"b": [0, torch.zeros(1)]}}, "state.a.b[1]"),
        ({"a": float("nan")}, "state.a"),
        ({"a": {1: 2}}, "state.a"),
    ],
)
def test_state_that_json_cannot_hold(run: Path, state: dict, field: str):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.save(run / "step_2", TENSORS, state)
    assert caught.value.field == field
    assert_usable(run, "step_1")


# --- failures while reading


def refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    return caught.value


def test_nothing_there(tmp_path: Path):
    assert "no such folder" in refused(tmp_path / "none").found
    assert "no such file" in refused(tmp_path).found
    with pytest.raises(CheckpointError, match="latest"):
        checkpoint.latest(tmp_path)


@pytest.mark.parametrize("content", ["step_7", "", "../step_1"])
def test_pointer_to_nowhere(run: Path, content: str):
    (run / "latest").write_text(content)
    error = refused(run)
    assert error.path == run / "latest"
    if content == "step_7":
        assert "step_1" in error.expected


def test_truncated_weights(run: Path):
    weights = run / "step_1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    assert refused(run).field == "size in bytes"


def test_flipped_bit_in_weights(run: Path):
    weights = run / "step_1" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    error = refused(run)
    assert error.field == "sha256" and "damaged" in error.expected and error.path == weights


def test_missing_weights(run: Path):
    (run / "step_1" / "weights.safetensors").unlink()
    assert refused(run).found == "no such file"


def test_truncated_state(run: Path):
    path = run / "step_1" / "checkpoint.json"
    path.write_text(path.read_text()[:-20])
    assert refused(run).field == "content"


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("format", "other", "format"),
        ("schema_version", checkpoint.SCHEMA_VERSION + 1, "schema_version"),
        ("schema_version", "1", "schema_version"),
        ("state", STATE | {"step": 13}, "state_sha256"),
        ("weights_sha256", None, "weights_sha256"),
    ],
)
def test_edited_state(run: Path, name: str, value: object, field: str):
    path = run / "step_1" / "checkpoint.json"
    content = json.loads(path.read_text())
    content[name] = value
    if value is None:
        del content[name]
    path.write_text(json.dumps(content))
    error = refused(run)
    assert error.field == field and error.path == path


def test_pickle_is_never_loaded(run: Path):
    """A torch.save file under the weights' name is refused before anything reads it."""
    weights = run / "step_1" / "weights.safetensors"
    torch.save({"a": torch.zeros(1)}, weights)
    refused(run)


def test_require_match(tmp_path: Path):
    checkpoint.require_match(tmp_path, "domain", "ant", "ant")
    with pytest.raises(CheckpointError, match="domain: found ant; expected cheetah"):
        checkpoint.require_match(tmp_path, "domain", "ant", "cheetah")


# --- nested state


def test_flatten_round_trip_through_a_file(tmp_path: Path):
    nested = {
        "net": {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(3)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "betas": (0.9, 0.999)},
        "buffer": np.arange(4),
        "list": [1, None, "x", True, 2.5, (), [], {}],
        "odd": {"$tensor": "text", (1, "a"): float("inf")},
    }
    tensors, structure = checkpoint.flatten(nested)
    assert "net.0.weight" in tensors and "optimizer.state.0.step" in tensors
    checkpoint.save(tmp_path / "c", tensors, {"structure": structure})
    tensors, state = checkpoint.load(tmp_path / "c")
    back = checkpoint.unflatten(tensors, state["structure"])
    assert torch.equal(back["net"]["0.weight"], nested["net"]["0.weight"])
    assert back["optimizer"]["state"][0]["step"].item() == 3.0
    assert back["optimizer"]["state"][1] == {} and back["optimizer"]["betas"] == (0.9, 0.999)
    np.testing.assert_array_equal(back["buffer"], nested["buffer"])
    assert back["list"] == nested["list"] and back["odd"] == nested["odd"]


def test_flatten_refuses(tmp_path: Path):
    with pytest.raises(TypeError, match=r"a\.b\.1: a function"):
        checkpoint.flatten({"a": {"b": [0, make_network]}})
    with pytest.raises(ValueError, match="'a.b'"):
        checkpoint.flatten({"a.b": torch.zeros(1), "a": {"b": torch.zeros(1)}})


def make_network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
    return network, torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.8, 0.99))


def train(network, optimizer, generator: torch.Generator, steps: int) -> None:
    for _ in range(steps):
        batch = torch.randn(8, 4, generator=generator)
        optimizer.zero_grad()
        (network(batch) ** 2 + torch.rand(8, 1)).mean().backward()
        optimizer.step()


def test_resumed_training_equals_uninterrupted_training(tmp_path: Path):
    """Every weight and every Adam moment, to the bit."""
    network, optimizer = make_network()
    generator = torch.Generator().manual_seed(5)
    train(network, optimizer, generator, 3)
    tensors, structure = checkpoint.flatten(
        {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    )
    state = {"structure": structure, "rng": checkpoint.rng_state({"batches": generator})}
    checkpoint.save(tmp_path / "c", tensors, state)
    train(network, optimizer, generator, 4)

    resumed, resumed_optimizer = make_network()
    resumed_generator = torch.Generator()
    tensors, state = checkpoint.load(tmp_path / "c")
    nested = checkpoint.unflatten(tensors, state["structure"])
    resumed.load_state_dict(nested["network"])
    resumed_optimizer.load_state_dict(nested["optimizer"])
    checkpoint.set_rng_state(state["rng"], {"batches": resumed_generator})
    train(resumed, resumed_optimizer, resumed_generator, 4)

    expected, _ = checkpoint.flatten([network.state_dict(), optimizer.state_dict()])
    found, _ = checkpoint.flatten([resumed.state_dict(), resumed_optimizer.state_dict()])
    assert set(expected) == set(found) and any("exp_avg_sq" in name for name in found)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


# --- random number generators


def draws(generators: dict) -> list:
    out = [random.random(), random.gauss(0, 1), np.random.normal(), torch.rand(3).tolist()]
    for generator in generators.values():
        if isinstance(generator, torch.Generator):
            out.append(torch.randn(5, generator=generator).tolist())
        elif isinstance(generator, np.random.Generator):
            out.append([generator.normal(), generator.integers(5, dtype=np.uint8).item()])
        else:
            out.append([generator.gauss(0, 1), generator.random()])
    return out


def make_generators(seed: int) -> dict:
    return {
        "torch": torch.Generator().manual_seed(seed),
        "pcg": np.random.default_rng(seed),
        "mersenne": np.random.Generator(np.random.MT19937(seed)),
        "python": random.Random(seed),
    }


def test_rng_round_trip(tmp_path: Path):
    generators = make_generators(1)
    draws(generators)  # leaves the spare Gaussian and half-used words that a seed cannot restore
    checkpoint.save(tmp_path / "c", {}, {"rng": checkpoint.rng_state(generators)})
    expected = draws(generators)
    others = make_generators(2)
    draws(others)
    checkpoint.set_rng_state(checkpoint.load_state(tmp_path / "c")["rng"], others)
    assert draws(others) == expected


def test_rng_names_and_kinds_must_match():
    state = checkpoint.rng_state({"a": np.random.default_rng(0)})
    with pytest.raises(ValueError, match=r"found \['a'\] in the state; expected \['b'\]"):
        checkpoint.set_rng_state(state, {"b": np.random.default_rng(0)})
    with pytest.raises(ValueError, match="'a': found numpy PCG64; expected torch cpu"):
        checkpoint.set_rng_state(state, {"a": torch.Generator()})


def test_rng_of_a_missing_device_warns():
    state = checkpoint.rng_state({"a": torch.Generator()})
    state["generators"]["a"]["kind"] = "torch cuda"
    state["cuda"] = state["cuda"] + [checkpoint._encode(np.zeros(16, np.uint8))]
    with pytest.warns(UserWarning) as caught:
        checkpoint.set_rng_state(state, {"a": torch.Generator()})
    assert len(caught) == 2
