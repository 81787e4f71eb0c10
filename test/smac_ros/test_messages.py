"""Episodes, trajectories and weights survive the way through a message, or are refused by name."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from smac_core.errors import InputError
from smac_ros.messages import (
    Begin,
    End,
    Trajectory,
    describe_weights,
    pack_trajectory,
    pack_weights,
    parse_marker,
    set_stamp,
    stamp_ns,
    unpack_trajectory,
    unpack_weights,
)

pytest.importorskip("rclpy")

BEGIN = Begin(
    session=7, id=3, start=2_500_000_000, steps=50, purpose="adapted", mode="exploit", group=2,
    seed=11, latent="sample", context=4,
)  # fmt: skip


def a_trajectory(steps: int = 4, ds: int = 3, da: int = 2) -> Trajectory:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return Trajectory(
        session=2**32 - 1, episode=5, group=1, sequence=9, task=-1, exploration=True, weights=3,
        stamp=1_000_000_007, times=np.arange(steps) / 24, observations=some(steps, ds),
        actions=some(steps, da), rewards=some(steps), next_observations=some(steps, ds),
        terminals=np.zeros(steps, np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("marker", [BEGIN, End(7, 3, 50, 4_583_333_333), End(7, 3, 0, 1, "lost")])
def test_markers_survive(marker: Begin | End):
    assert parse_marker(marker.to_json()) == marker
    assert json.loads(marker.to_json())["event"] in ("begin", "end")


@pytest.mark.parametrize(
    ("change", "field", "found"),
    [
        ({"steps": "fifty"}, "steps", "'fifty'"),
        ({"steps": True}, "steps", "True"),
        ({"mode": "wander"}, "mode", "'wander'"),
        ({"event": "restart"}, "event", "'restart'"),
        ({"colour": 1}, "colour", "an unknown field"),
        ({"start": None}, "start", "None"),
    ],
)
def test_wrong_markers_are_refused(change: dict, field: str, found: str):
    text = json.dumps(json.loads(BEGIN.to_json()) | change)
    with pytest.raises(InputError) as caught:
        parse_marker(text, "arm/episode")
    assert (str(caught.value.path), caught.value.field) == ("arm/episode", field)
    assert found in str(caught.value)


@pytest.mark.parametrize("text", ["", "hello", "[1]", "{}", '{"event": "end", "id": 1}'])
def test_text_that_is_no_marker(text: str):
    with pytest.raises(InputError):
        parse_marker(text)


def test_stamps():
    from builtin_interfaces.msg import Time

    stamp = Time()
    set_stamp(stamp, 12_000_000_034)
    assert (stamp.sec, stamp.nanosec) == (12, 34) and stamp_ns(stamp) == 12_000_000_034


def test_trajectories_survive_exactly():
    sent = a_trajectory()
    message = pack_trajectory(sent, "world")
    assert (message.width, message.header.frame_id) == (4, "world")
    names = [field.name for field in message.fields]
    assert "observations" in names and "rewards" in names  # a tool sees what the columns are
    received = unpack_trajectory(message, 3, 2)
    for field in dataclasses.fields(Trajectory):
        one, other = getattr(sent, field.name), getattr(received, field.name)
        assert np.array_equal(one, other) and type(one) is type(other), field.name


@pytest.mark.parametrize("problem", ["dims", "column", "short", "empty", "mixed", "nan"])
def test_wrong_trajectories_are_refused(problem: str):
    trajectory = a_trajectory()
    if problem == "nan":
        trajectory.rewards[1] = np.nan
    message = pack_trajectory(trajectory)
    if problem == "column":
        message.fields[8].name = "positions"
    if problem == "short":
        message.data = message.data[:-4]
    if problem == "empty":
        message.width, message.data = 0, message.data[:0]
    if problem == "mixed":
        rows = np.frombuffer(message.data, np.uint8).reshape(4, -1).copy()
        rows[2, 4] += 1  # of the column "episode"
        message.data.frombytes(b"")
        message.data[:] = type(message.data)("B", rows.tobytes())
    with pytest.raises(InputError, match="labelled_trajectories") as caught:
        unpack_trajectory(message, 4 if problem == "dims" else 3, 2)
    expected = {"dims": "field observations", "column": "field positions", "short": "data",
                "empty": "data", "mixed": "episode", "nan": "rewards"}  # fmt: skip
    assert caught.value.field == expected[problem]


def test_weights_survive_and_describe_themselves():
    tensors = {"policy.weight": torch.randn(3, 2), "policy.bias": torch.randn(3)}
    description = {"version": 12, "run": "abc", "networks": {"latent_dim": 5}, "contract": None}
    message = pack_weights(tensors, description)
    assert describe_weights(message) == description
    received, same = unpack_weights(message)
    assert same == description and received.keys() == tensors.keys()
    assert all(torch.equal(received[name], tensors[name]) for name in tensors)


def test_damaged_weights_are_refused():
    message = pack_weights({"a": torch.zeros(8)}, {"version": 1})
    for bad in (b"", b"\xff" * 16, bytes(message.data)[: len(message.data) // 2]):
        message.data[:] = type(message.data)("B", bad)
        with pytest.raises(InputError, match="weights"):
            describe_weights(message)
    whole = pack_weights({"a": torch.zeros(8)}, {"version": 1})
    cut = bytes(whole.data)[:-4]
    whole.data[:] = type(whole.data)("B", cut)
    assert describe_weights(whole) == {"version": 1}
    with pytest.raises(InputError, match="safetensors"):
        unpack_weights(whole)
