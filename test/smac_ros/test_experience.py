"""Stamped samples to transitions: numbers by hand, and the live side equal to the recorded one."""

import timeit
from types import SimpleNamespace

import numpy as np
import pytest

from smac_ros.contract import Contract, MessageError, load_contract
from smac_ros.experience import Fault, Series, Snapshot, assemble, observations_at

MS = 1_000_000  # ns
NUMBERS = "std_msgs/msg/Float64MultiArray"


def make_contract(*streams: str, trigger: str = "all", commands: int = 1) -> Contract:
    """At 10 Hz: streams "align max_age [missing]" of two numbers s0.., commands c0.. of one."""
    lines = [
        *("name: test", "domain: test", "rate: 10.0", f"trigger: {trigger}", "watchdog: 1.0"),
        *("safety: zeros", "observations:"),
    ]
    for i, stream in enumerate(streams):
        align, max_age, *missing = stream.split()
        lines += [f"- topic: s{i}", "  type: sensor_msgs/msg/JointState", "  time: header"]
        lines += [f"  align: {align}", f"  max_age: {max_age}"]
        lines += [f"  missing: {missing[0]}"] if missing else []
        lines += [f"  fields: [{{path: 'position[a, b]', names: [s{i}a, s{i}b], unit: m}}]"]
    lines += ["actions:"]
    for i in range(commands):
        lines += [f"- topic: c{i}", "  type: sensor_msgs/msg/JointState"]
        lines += [
            f"  fields: [{{path: 'position[a]', names: [c{i}], unit: m, scale: 2.0, offset: 1.0, "
            "limits: [-9, 9]}]"
        ]
    return Contract.from_text("\n".join(lines), "test.yaml")


def series(samples: dict[int, object]) -> Series:
    """Samples by stamp in ms; a number stands for two of it in streams."""
    rows = {stamp: np.atleast_1d(np.asarray(values, float)) for stamp, values in samples.items()}
    made = Series(len(next(iter(rows.values()))) if rows else 2, capacity=4)
    for stamp, row in rows.items():
        made.append(stamp * MS, row)
    return made


def message(*values: float) -> SimpleNamespace:
    return SimpleNamespace(name=["a", "b"], position=np.array(values, float))


class TestSeries:
    def test_sorted_whatever_the_order_of_arrival(self):
        stamps = np.random.default_rng(0).permutation(1000)
        made = Series(2, capacity=2)
        for stamp in stamps:
            made.append(int(stamp), np.array([stamp, -stamp]))
        assert made.stamps.tolist() == list(range(1000))
        assert made.values[:, 1].tolist() == [-stamp for stamp in range(1000)]
        assert (len(made), made.last, made.duplicates, made.width) == (1000, 999, 0, 2)

    def test_a_stamp_again_replaces_and_is_counted(self):
        made = series({1: 1.0, 2: 2.0, 3: 3.0})
        made.append(2 * MS, np.array([9.0]))
        made.append(3 * MS, np.array([8.0]))
        assert made.values[:, 0].tolist() == [1.0, 9.0, 8.0]
        assert made.duplicates == 2

    @pytest.mark.parametrize("order", ["rising", "late", "repeated", "any"])
    def test_many_at_once_as_one_by_one(self, order):
        rng = np.random.default_rng(3)
        stamps = {
            "rising": np.arange(300),
            "late": np.r_[np.arange(100), np.arange(90, 250), np.arange(200)],
            "repeated": np.repeat(np.arange(100), 3),
            "any": rng.integers(0, 200, 300),
        }[order]
        values = rng.normal(size=(len(stamps), 2))
        single, bulk = Series(2, capacity=4), Series(2, capacity=4)
        for part in np.array_split(np.arange(len(stamps)), [0, 1, 7, 60, 61, 200, 280]):
            for index in part:
                single.append(int(stamps[index]), values[index])
            bulk.extend(stamps[part], values[part])
            if len(part) == 139:
                single.clear_before(50)
                bulk.clear_before(50)
            assert bulk.stamps.tobytes() == single.stamps.tobytes()
            assert bulk.values.tobytes() == single.values.tobytes()
            assert bulk.duplicates == single.duplicates

    def test_clear_keeps_what_the_first_tick_can_still_use(self):
        made = series({10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0})
        made.clear_before(35 * MS)
        assert made.stamps.tolist() == [30 * MS, 40 * MS]
        made.clear_before(40 * MS)
        assert made.stamps.tolist() == [40 * MS]
        made.clear_before(5 * MS)
        assert len(made) == 1
        assert Series(1).last is None

    def test_memory_stays_bounded_when_it_is_cleared(self):
        made = Series(1, capacity=8)
        for stamp in range(10_000):
            made.append(stamp, np.array([stamp]))
            made.clear_before(stamp - 3)
        assert made.values[:, 0].tolist() == [9996.0, 9997.0, 9998.0, 9999.0]
        assert len(made._stamps) == 8

    def test_late_sample_into_full_arrays(self):
        made = series({10: 1.0, 20: 2.0, 30: 3.0, 50: 5.0})  # as many as fit
        made.append(40 * MS, np.array([4.0]))
        assert made.values[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
        made.clear_before(30 * MS)
        for stamp in (70, 60, 65, 35, 90, 80):
            made.append(stamp * MS, np.array([stamp / 10]))
        assert made.values[:, 0].tolist() == [3.0, 3.5, 4.0, 5.0, 6.0, 6.5, 7.0, 8.0, 9.0]


class TestTransitions:
    def test_by_hand(self):
        """Two streams with a lag, actions (v - 1) / 2, rewards that come with s'."""
        contract = make_contract("hold 0.1", "hold 0.1")
        result = assemble(
            contract,
            [
                series({100: [1, 2], 200: [3, 4], 300: [5, 6], 400: [7, 8]}),
                series({95: [10, 11], 190: [12, 13], 310: [14, 15], 390: [16, 17]}),
            ],
            [series({100: 1.0, 200: 2.0, 300: -3.0})],
            start=100 * MS,
            last=400 * MS,
            rewards=series({200: 0.5, 300: 0.25, 400: 1.0}),
        )
        # at 300 the second stream's newest sample is the one of 190, 110 ms old: stale
        assert result.ticks.tolist() == [100 * MS]
        assert result.left_out == {"stale s1": 2}
        assert result.observations.tolist() == [[1, 2, 10, 11]]
        assert result.next_observations.tolist() == [[3, 4, 12, 13]]
        assert result.actions.tolist() == [[0.0]]
        assert result.rewards.tolist() == [0.5]
        assert result.next_ticks.tolist() == [200 * MS]
        arrays = (result.observations, result.actions, result.next_observations, result.rewards)
        assert {array.dtype for array in arrays} == {np.dtype(np.float32)}

    def test_all_of_an_episode(self):
        contract = make_contract("hold 0.1")
        stamps = [1000, 1100, 1200, 1300]
        result = assemble(
            contract,
            [series({stamp: [stamp, -stamp] for stamp in stamps})],
            [series({900: 0.0, 1000: 1.0, 1100: 2.0, 1200: 5.0, 1400: 0.0})],
            start=1000 * MS,  # the command of 900 belongs to the episode before
            last=1300 * MS,  # and that of 1400 to the next
            steps=3,
        )
        assert result.observations[:, 0].tolist() == [1000, 1100, 1200]
        assert result.next_observations[:, 0].tolist() == [1100, 1200, 1300]
        assert result.actions[:, 0].tolist() == [0.0, 0.5, 2.0]
        assert result.rewards is None
        assert result.left_out == {}

    @pytest.mark.parametrize(
        ("stream", "reasons", "ticks"),
        [
            # samples at 100, 200 and 450; ticks at 100 .. 500, so that ages are 0 0 100 200 50
            ("hold 0.1", {"stale s0": 2}, [100, 200]),
            ("hold 0.09", {"stale s0": 3}, [100]),
            ("drop 0.1", {"dropped s0": 2}, [100, 200]),
            ("drop 0.2", {}, [100, 200, 300, 400]),
            ("as_of 0.1 -5.0", {}, [100, 200, 300, 400]),
        ],
    )
    def test_alignment(self, stream, reasons, ticks):
        result = assemble(
            make_contract(stream, trigger="timer"),
            [series({100: [1, 1], 200: [2, 2], 450: [4, 4]})],
            [series(dict.fromkeys((100, 200, 300, 400), 0.0))],
            start=0,
            last=500 * MS,
        )
        assert result.ticks.tolist() == [tick * MS for tick in ticks]
        assert result.left_out == reasons
        if stream.startswith("as_of"):  # (t - 100, t]: a sample of exactly 100 ms is out
            assert result.observations[:, 0].tolist() == [1.0, 2.0, -5.0, -5.0]
            assert result.next_observations[:, 0].tolist() == [2.0, -5.0, -5.0, 4.0]

    def test_a_stream_that_never_came(self):
        nothing, commands = series({}), [series({100: 0.0})]
        span = {"start": 0, "last": 200 * MS}
        for stream, reason in (("hold 1.0", "missing s0"), ("drop 1.0", "dropped s0")):
            result = assemble(make_contract(stream), [nothing], commands, **span)
            assert result.left_out == {reason: 1}
        result = assemble(
            make_contract("as_of 1.0 7.0", trigger="timer"), [nothing], commands, **span
        )
        assert result.observations.tolist() == [[7.0, 7.0]]

    def test_gaps_and_short_steps(self):
        """10 Hz: 150 ms and 50 ms are still a control period, a ms more or less is not."""
        ticks = [0, 150, 200, 351, 400]
        result = assemble(
            make_contract("hold 9.0"),
            [series({0: [0, 0]})],
            [series({tick: float(tick) for tick in ticks})],
            start=0,
            last=500 * MS,
        )
        assert result.ticks.tolist() == [0, 150 * MS, 400 * MS]
        assert result.left_out == {"gap": 1, "short step": 1}

    def test_lost_and_incomplete_commands(self):
        """Of 6 commands one is lost in both, one in half: the steps before them have gaps."""
        both = dict.fromkeys((0, 100, 300, 500), 0.0)
        result = assemble(
            make_contract("hold 9.0", commands=2),
            [series({0: [0, 0]})],
            [series(both | {400: 0.0}), series(both)],
            start=0,
            last=600 * MS,
            steps=6,
        )
        assert result.ticks.tolist() == [0, 500 * MS]
        assert result.left_out == {"incomplete command": 1, "lost command": 1, "gap": 2}
        assert len(result.ticks) + sum(result.left_out.values()) == 6

    def test_repeated_command_counts_once(self):
        commands = series({0: 1.0, 100: 1.0})
        commands.append(0, np.array([5.0]))
        result = assemble(
            make_contract("hold 9.0"), [series({0: [0, 0]})], [commands], start=0, last=200 * MS
        )
        assert result.actions[:, 0].tolist() == [2.0, 0.0]

    @pytest.mark.parametrize("last", [None, 200 * MS])
    def test_last_command_without_an_observation_after_it(self, last):
        result = assemble(
            make_contract("hold 9.0"),
            [series({0: [0, 0]})],
            [series({0: 0.0, 100: 0.0, 200: 0.0})],
            start=0,
            last=last,
            steps=3,
        )
        assert result.next_ticks.tolist() == [100 * MS, 200 * MS]
        assert result.left_out == {"no next observation": 1}

    def test_command_at_the_last_observation_belongs_to_what_follows(self):
        result = assemble(
            make_contract("hold 9.0"),
            [series({0: [0, 0]})],
            [series({0: 0.0, 100: 0.0, 200: 0.0})],
            start=0,
            last=200 * MS,
        )
        assert result.next_ticks.tolist() == [100 * MS, 200 * MS]
        assert result.left_out == {}

    def test_not_finite(self):
        result = assemble(
            make_contract("hold 0.0"),
            [series({0: [0, 0], 100: [np.nan, 0], 200: [0, 1e300], 300: [1, 1], 400: [2, 2]})],
            [series({0: 0.0, 100: 0.0, 200: 0.0, 300: np.inf})],
            start=0,
            last=400 * MS,
        )
        assert len(result.ticks) == 0 and result.left_out == {"not finite": 4}

    def test_rewards_belong_to_the_step_that_they_follow(self):
        """Of the step 0 -> 100 is what has a stamp in (0, 100]; an older one is not taken."""
        result = assemble(
            make_contract("hold 9.0"),
            [series({0: [0, 0]})],
            [series({0: 0.0, 100: 0.0, 200: 0.0, 300: 0.0})],
            start=0,
            last=400 * MS,
            rewards=series({0: 9.0, 60: 1.0, 100: 2.0, 290: 3.0, 400: np.nan}),
        )
        assert result.rewards.tolist() == [2.0, 3.0]
        assert result.ticks.tolist() == [0, 200 * MS]
        assert result.left_out == {"no reward": 1, "not finite": 1}

    def test_commands_by_time_of_receipt(self):
        """Float64MultiArray has no stamp: the first command's times, the nearest of the other."""
        text = make_contract("hold 9.0", commands=2).text
        text = text.replace(
            "topic: c1\n  type: sensor_msgs/msg/JointState", f"topic: c1\n  type: {NUMBERS}"
        )
        text = text.replace("'position[a]', names: [c1]", "'data[0]', names: [c1]")
        result = assemble(
            Contract.from_text(text, "test.yaml"),
            [series({0: [0, 0]})],
            [
                series({0: 1.0, 100: 3.0, 200: 5.0, 300: 7.0}),
                series({1: 1.0, 99: 3.0, 251: 9.0, 350: 7.0}),  # 250 +- 50 reach both or neither
            ],
            start=0,
            last=400 * MS,
        )
        assert result.actions.tolist() == [[0.0, 0.0], [3.0, 4.0]]
        assert result.ticks.tolist() == [0, 300 * MS]
        assert result.left_out == {"incomplete command": 1, "gap": 1}

    def test_no_commands(self):
        result = assemble(
            make_contract("hold 1.0"), [series({})], [Series(1)], start=0, last=None, steps=4
        )
        assert result.observations.shape == (0, 2) and result.actions.shape == (0, 1)
        assert result.left_out == {"lost command": 4}


KINDS = [
    ("hold 0.12", "hold 0.3"),
    ("drop 0.08", "drop 0.15"),
    ("as_of 0.1 -3.5", "hold 0.5"),
    ("hold 0.15", "drop 0.12", "as_of 0.06 0.0"),
]


class TestLiveEqualsRecorded:
    @pytest.mark.parametrize("streams", KINDS)
    @pytest.mark.parametrize("seed", range(12))
    def test_snapshot_at_every_tick_equals_assemble(self, streams, seed):
        """Random rates, jitter, drop-outs, repeats and late arrivals."""
        contract = make_contract(*streams, trigger="timer")
        rng = np.random.default_rng([seed, KINDS.index(streams)])
        ticks = 1000 * MS + np.arange(60) * 100 * MS + rng.integers(-9, 9, 60) * MS
        arrivals = []  # (time of arrival, stream, stamp, values)
        for index in range(len(streams)):
            period = rng.uniform(20, 130) * MS
            stamps = np.arange(700 * MS, ticks[-1], period) + rng.normal(0, 0.2 * period)
            stamps = stamps[rng.random(len(stamps)) < rng.uniform(0.6, 1)].astype(np.int64)
            late = rng.random(len(stamps)) < 0.3
            delays = np.where(late, rng.uniform(0, 3 * period, len(stamps)), 0).astype(np.int64)
            again = rng.random(len(stamps)) < 0.1
            for stamp, delay, repeat in zip(stamps, delays, again, strict=True):
                for _ in range(1 + repeat):
                    values = rng.normal(size=2)
                    values[rng.random(2) < 0.01] = np.nan
                    arrivals.append((stamp + delay, index, int(stamp), values))
        arrivals.sort(key=lambda arrival: arrival[0])

        snapshot = Snapshot(contract)
        recorded = [Series(2, capacity=4) for _ in streams]
        outcomes = []
        out = np.zeros(contract.observation_dim, np.float32)
        waiting = iter([*arrivals, (1 << 62, None, None, None)])
        arrival = next(waiting)
        for tick in ticks:
            while arrival[0] <= tick:
                _, index, stamp, values = arrival
                snapshot.add(index, stamp, message(*values))
                recorded[index].append(stamp, values)
                arrival = next(waiting)
            observations, reasons = observations_at(contract, recorded, np.array([tick]))
            expected = next((reason for reason, bad in reasons if bad[0]), None)
            fault = snapshot.at(int(tick), out)
            if fault is None:
                assert expected is None
                assert observations[0].tobytes() == out.tobytes()
            else:
                assert expected in (f"{fault.kind} {fault.topic}", fault.kind)
            outcomes.append(expected)
        assert None in outcomes
        assert all(len(series) > 10 for series in recorded)

    @pytest.mark.parametrize("streams", KINDS)
    def test_whole_episode_at_once(self, streams):
        """Every sample in time: one call for the episode gives what the policy saw, bit by bit."""
        contract = make_contract(*streams, trigger="timer")
        rng = np.random.default_rng(5)
        ticks = [1000 * MS + k * 100 * MS for k in range(200)]
        events = [(tick, None, None) for tick in ticks]
        for index in range(len(streams)):
            for stamp in np.cumsum(rng.uniform(10, 150, 300)) * MS + 800 * MS:
                events.append((int(stamp), index, rng.normal(size=2)))
        events.sort(key=lambda event: (event[0], event[1] is None))
        snapshot, recorded = Snapshot(contract), [Series(2) for _ in streams]
        commands, seen = Series(1), {}
        for stamp, index, values in events:
            if index is None:
                out = np.zeros(contract.observation_dim, np.float32)
                if snapshot.at(stamp, out) is None:
                    seen[stamp] = out
                commands.append(stamp, np.zeros(1))
            else:
                snapshot.add(index, stamp, message(*values))
                recorded[index].append(stamp, values)
        whole = assemble(contract, recorded, [commands], start=ticks[0], last=ticks[-1], steps=199)
        both = [tick for tick, after in zip(ticks, ticks[1:], strict=False)
                if tick in seen and after in seen]  # fmt: skip
        assert whole.ticks.tolist() == both and len(both) > 20
        assert np.array_equal(whole.observations, np.array([seen[tick] for tick in both]))
        after = np.array([seen[tick + 100 * MS] for tick in both])
        assert np.array_equal(whole.next_observations, after)
        assert len(whole.ticks) + sum(whole.left_out.values()) == 199


class TestSnapshot:
    def test_all_streams_have_to_be_new(self):
        snapshot = Snapshot(make_contract("hold 1.0", "hold 1.0", "as_of 1.0 0.0"))
        assert snapshot.stamp is None
        assert not snapshot.add(0, 1, message(1, 1))
        assert not snapshot.add(0, 2, message(1, 1))
        assert not snapshot.add(2, 3, message(1, 1))  # may be missing: completes nothing
        assert snapshot.add(1, 2, message(1, 1))
        assert snapshot.stamp == 3
        assert not snapshot.add(1, 4, message(1, 1))
        assert not snapshot.add(0, 2, message(1, 1))  # again: not new
        assert not snapshot.add(0, 1, message(1, 1))  # late: not new
        assert snapshot.add(0, 5, message(1, 1))

    def test_trigger_of_one_topic(self):
        snapshot = Snapshot(make_contract("hold 1.0", "hold 1.0", trigger="s1"))
        assert not snapshot.add(0, 1, message(1, 1))
        assert snapshot.add(1, 2, message(1, 1))
        assert not snapshot.add(0, 3, message(1, 1))
        assert not snapshot.add(1, 2, message(1, 1))
        assert snapshot.add(1, 4, message(1, 1))

    def test_timer_is_never_triggered(self):
        snapshot = Snapshot(make_contract("hold 1.0", trigger="timer"))
        assert not snapshot.add(0, 1, message(1, 1))
        assert snapshot.at(1, np.zeros(2, np.float32)) is None

    def test_faults(self):
        out = np.zeros(2, np.float32)
        held, dropped = Snapshot(make_contract("hold 0.1")), Snapshot(make_contract("drop 0.1"))
        assert held.at(0, out) == Fault("missing", "s0", float("inf"))
        assert dropped.at(0, out) == Fault("dropped", "s0", float("inf"))
        for snapshot in (held, dropped):
            snapshot.add(0, 100 * MS, message(1, 2))
            assert snapshot.at(200 * MS, out) is None
        assert held.at(300 * MS, out) == Fault("stale", "s0", 0.2)
        assert dropped.at(300 * MS, out) == Fault("dropped", "s0", 0.2)
        held.add(0, 300 * MS, message(1, np.nan))
        assert held.at(300 * MS, out) == Fault("not finite", "s0", 0.0)
        assert held.at(99 * MS, out).kind == "missing"

    def test_older_ticks_are_answered_from_the_ring(self):
        snapshot, out = Snapshot(make_contract("hold 0.1")), np.zeros(2, np.float32)
        for stamp in range(1, 13):
            snapshot.add(0, stamp * MS, message(stamp, 0))
        for stamp in range(5, 13):  # the newest 8
            assert snapshot.at(stamp * MS, out) is None and out[0] == stamp
        assert snapshot.at(4 * MS, out).kind == "missing"
        assert not snapshot.add(0, 3 * MS, message(3, 0))  # older than all that is kept
        assert snapshot.at(12 * MS, out) is None and out[0] == 12

    def test_bad_message_changes_nothing(self):
        snapshot, out = Snapshot(make_contract("hold 0.1")), np.zeros(2, np.float32)
        snapshot.add(0, MS, message(1, 2))
        with pytest.raises(MessageError):
            snapshot.add(0, 2 * MS, SimpleNamespace(name=["a"], position=[7.0]))
        assert snapshot.at(2 * MS, out) is None and out.tolist() == [1, 2]
        assert snapshot.stamp == MS

    def test_clear(self):
        snapshot = Snapshot(make_contract("hold 9.0", "hold 9.0"), need_same_stamp=True)
        assert [snapshot.add(i, 500, message(1, 1)) for i in range(2)] == [False, True]
        snapshot.clear()
        assert snapshot.stamp is None
        assert snapshot.at(500, np.zeros(4, np.float32)).kind == "missing"
        assert [snapshot.add(i, 5, message(1, 1)) for i in range(2)] == [False, True]


class TestLockstep:
    def snapshot(self):
        contract = make_contract("hold 1.0", "hold 1.0", "as_of 1.0 0.0")
        return Snapshot(contract, need_same_stamp=True)

    def test_complete_when_every_stream_has_the_stamp(self):
        snapshot = self.snapshot()
        assert [snapshot.add(i, 100, message(i, i)) for i in (2, 0, 1)] == [False, False, True]
        assert snapshot.stamp == 100
        assert [snapshot.add(i, 200, message(i, i)) for i in (0, 1, 2)] == [False, False, True]
        assert snapshot.stamp == 200

    def test_observation_sent_again_is_complete_again(self):
        """The robot repeats an observation whose answer was lost, and waits for the answer."""
        snapshot, out = self.snapshot(), np.zeros(6, np.float32)
        for stamp in (100, 200):
            for i in range(3):
                snapshot.add(i, stamp, message(stamp, i))
        for _ in range(2):
            again = [snapshot.add(i, 100, message(100, i)) for i in range(3)]
            assert again == [False, False, True]
            assert snapshot.stamp == 100
            assert snapshot.at(100, out) is None and out.tolist() == [100, 0, 100, 1, 100, 2]
        assert snapshot.at(200, out) is None and out[0] == 200

    def test_lost_sample_comes_with_the_repetition(self):
        snapshot = self.snapshot()
        assert not any(snapshot.add(i, 100, message(0, 0)) for i in (0, 2))
        assert [snapshot.add(i, 100, message(0, 0)) for i in (0, 1, 2)] == [False, True, False]

    def test_topics_that_overtake_each_other(self):
        """DDS keeps no order between topics: a new stamp may begin before an old one ends."""
        snapshot = self.snapshot()
        order = [(0, 100), (0, 200), (1, 100), (1, 200), (2, 200), (2, 100)]
        assert [snapshot.add(i, stamp, message(0, 0)) for i, stamp in order] == [
            *(False, False, False, False, True, True)
        ]


def test_speed_of_an_observation():
    """Seven streams in and one observation out: a small part of a 10 ms control period."""
    contract = load_contract("sawyer_sim")
    snapshot, out = Snapshot(contract), np.zeros(13, np.float32)
    position = SimpleNamespace(x=1.0, y=2.0, z=3.0)
    pose = SimpleNamespace(pose=SimpleNamespace(position=position))
    grip = SimpleNamespace(name=["opening"], position=[0.01])
    clock = iter(range(1, 10**9))

    def step():
        stamp = next(clock) * 40 * MS
        for index in range(7):
            complete = snapshot.add(index, stamp, grip if index == 1 else pose)
        assert complete and snapshot.at(stamp, out) is None

    assert min(timeit.repeat(step, number=200, repeat=5)) / 200 < 100e-6
