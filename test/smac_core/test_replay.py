import pytest
import torch

from smac_core.data.replay import Layout, Replay, TaskBuffer

LAYOUT = Layout(2, 1)


def rows(task: int, count: int, start: int = 0) -> torch.Tensor:
    """Rows whose every number is 1000 * task + position."""
    values = 1000.0 * task + torch.arange(start, start + count)
    return values.unsqueeze(-1).expand(-1, LAYOUT.width).contiguous()


def seen(sample: torch.Tensor) -> set[int]:
    return set(sample[..., 0].flatten().long().tolist())


def test_layout_packs_and_unpacks():
    parts = (torch.randn(3, 4, 2), torch.randn(3, 4, 1), torch.randn(3, 4))
    following, terminals = torch.randn(3, 4, 2), torch.ones(3, 4, dtype=torch.bool)
    packed = LAYOUT.pack(*parts, following, terminals)
    assert packed.shape == (3, 4, LAYOUT.width)
    for found, expected in zip(
        LAYOUT.unpack(packed), (*parts, following, terminals.float()), strict=True
    ):
        torch.testing.assert_close(found, expected)
    context = torch.cat([parts[0], parts[1], parts[2][..., None]], -1)
    torch.testing.assert_close(packed[..., : LAYOUT.context_width], context)


def test_samples_come_from_the_right_task_and_segment():
    buffer = TaskBuffer([rows(0, 3), rows(1, 5)], online_capacity=4, device="cpu")
    buffer.append(1, rows(1, 2, start=100))
    tasks = torch.tensor([0, 1])
    both = buffer.sample(tasks, 400)
    assert seen(both[0]) == {0, 1, 2}
    assert seen(both[1]) == {1000, 1001, 1002, 1003, 1004, 1100, 1101}
    online = buffer.sample(tasks, 400, from_online=torch.tensor([True, True]))
    assert seen(online[0]) == {0, 1, 2}, "a task without online rows gives its offline ones"
    assert seen(online[1]) == {1100, 1101}
    offline = buffer.sample(tasks, 400, from_online=torch.tensor([False, False]))
    assert seen(offline[1]) == {1000, 1001, 1002, 1003, 1004}


def test_sampling_is_uniform_over_tasks_of_unequal_size():
    buffer = TaskBuffer([rows(0, 2), rows(1, 10)], online_capacity=1, device="cpu")
    generator = torch.Generator().manual_seed(0)
    sample = buffer.sample(torch.tensor([0, 1]), 20000, generator)
    counts = torch.bincount(sample[1, :, 0].long() - 1000, minlength=10) / 20000
    assert (counts - 0.1).abs().max() < 0.01


def test_a_buffer_without_offline_rows_gives_online_ones():
    buffer = TaskBuffer([rows(0, 0), rows(1, 0)], online_capacity=400, device="cpu")
    buffer.append(1, rows(1, 300))
    buffer.append(0, rows(0, 3))
    buffer.append(1, rows(1, 50, start=300))
    sample = buffer.sample(torch.tensor([1, 0]), 6000)
    assert seen(sample[0]) == set(range(1000, 1350)) and seen(sample[1]) == {0, 1, 2}
    other = TaskBuffer([rows(0, 0), rows(1, 0)], online_capacity=400, device="cpu")
    other.load_online_state(*buffer.online_state())
    assert seen(other.sample(torch.tensor([1]), 6000)) == set(range(1000, 1350))


def test_cleared_rows_are_never_seen_again():
    buffer = TaskBuffer([rows(0, 0), rows(1, 0)], online_capacity=8, device="cpu")
    for start in (0, 6):  # wraps
        buffer.append(0, rows(0, 6, start))
    buffer.append(1, rows(1, 2))
    buffer.clear(0)
    assert buffer.online_written == [0, 2] and buffer.online_sizes.tolist() == [0, 2]
    buffer.append(0, rows(0, 3, start=100))
    assert seen(buffer.sample(torch.tensor([0]), 200)) == {100, 101, 102}
    assert seen(buffer.sample(torch.tensor([1]), 200)) == {1000, 1001}


def test_histories_may_have_rows_of_their_own():
    replay = Replay(LAYOUT, [rows(0, 3)], 4, context_rows=[rows(0, 2, start=50)])
    task = torch.tensor([0])
    assert seen(replay.rl.sample(task, 200)) == {0, 1, 2}
    histories = replay.context.sample(task, 200)
    assert seen(histories) == {50, 51} and histories.shape[-1] == LAYOUT.context_width
    replay.append(0, rows(0, 1, start=80), exploration=True)
    assert seen(replay.context.sample(task, 200)) == {50, 51, 80}
    assert seen(replay.rl.sample(task, 200)) == {0, 1, 2, 80}


def test_online_rows_wrap_and_offline_rows_stay():
    buffer = TaskBuffer([rows(0, 3)], online_capacity=4, device="cpu")
    for start in (100, 103, 106):  # 9 rows through 4 places
        buffer.append(0, rows(0, 3, start))
    task = torch.tensor([0])
    assert seen(buffer.sample(task, 400, from_online=torch.tensor([True]))) == {105, 106, 107, 108}
    assert seen(buffer.sample(task, 400)) == {0, 1, 2, 105, 106, 107, 108}


def test_a_window_is_one_run_of_neighbours():
    buffer = TaskBuffer([rows(0, 50), rows(1, 50)], online_capacity=60, device="cpu")
    for task in (0, 1):
        buffer.append(task, rows(task, 50, 100))
    starts = set()
    for _ in range(300):
        sample = buffer.sample(
            torch.tensor([0, 1]), 60, from_online=torch.tensor([True, False]), online_window=5
        )
        found = seen(sample[0])
        assert min(found) >= 100 and max(found) - min(found) < 5
        starts.add(min(found))
        assert max(seen(sample[1])) - min(seen(sample[1])) > 5, "offline rows know no window"
    assert min(starts) == 100 and max(starts) >= 145


def test_bad_rows_are_refused_and_change_nothing():
    buffer = TaskBuffer([rows(0, 3)], online_capacity=4, device="cpu")
    broken = rows(0, 2)
    broken[1, 1] = float("nan")
    for wrong, message in (
        (broken, "NaN"),
        (rows(0, 5), "capacity is 4"),
        (torch.zeros(2, 3), "expected"),
    ):
        with pytest.raises(ValueError, match=message):
            buffer.append(0, wrong)
    assert buffer.online_written == [0]
    assert seen(buffer.sample(torch.tensor([0]), 100)) == {0, 1, 2}


def test_only_exploration_feeds_the_encoders_buffer():
    replay = Replay(LAYOUT, [rows(0, 3)], online_capacity=10)
    replay.append(0, rows(0, 2, 100), exploration=True)
    replay.append(0, rows(0, 2, 200), exploration=False)
    task, online = torch.tensor([0]), torch.tensor([True])
    assert seen(replay.rl.sample(task, 200, from_online=online)) == {100, 101, 200, 201}
    history = replay.context.sample(task, 200, from_online=online)
    assert history.shape[-1] == LAYOUT.context_width
    assert seen(history) == {100, 101}


def same_rows(first: TaskBuffer, second: TaskBuffer) -> bool:
    (one, written), (other, too) = first.online_state(), second.online_state()
    return torch.equal(one["online"], other["online"]) and written == too


def test_online_state_round_trip():
    first = TaskBuffer([rows(0, 3), rows(1, 2)], online_capacity=4, device="cpu")
    first.append(0, rows(0, 3, 100))
    first.append(0, rows(0, 3, 110))
    second = TaskBuffer([rows(0, 3), rows(1, 2)], online_capacity=4, device="cpu")
    second.load_online_state(*first.online_state())
    assert same_rows(first, second)
    assert first.online_sizes.tolist() == second.online_sizes.tolist() == [4, 0]
    for buffer in (first, second):
        buffer.append(0, rows(0, 1, 120))
    assert same_rows(first, second)


def test_tasks_of_a_meta_batch_differ():
    replay = Replay(LAYOUT, [rows(i, 2) for i in range(6)], online_capacity=1)
    for _ in range(20):
        assert len(set(replay.sample_tasks(6).tolist())) == 6
    assert replay.sample_tasks(8).shape == (8,)


def test_the_online_part_grows_with_what_is_practised():
    buffer = TaskBuffer([rows(i, 2) for i in range(50)], online_capacity=10**6, device="cpu")
    assert len(buffer.online) == 0
    for begin in range(2, 3002, 500):  # page after page, tasks in turns
        for task in (7, 3):
            buffer.append(task, rows(task, 500, begin))
    assert 6000 <= len(buffer.online) < 2 * 6000
    index = torch.tensor([[0, 1, 2, 601, 3001]])
    found = buffer.rows(torch.tensor([7, 3]), index.expand(2, -1))[..., 0]
    assert found.tolist() == (torch.tensor([[7000.0], [3000.0]]) + index).tolist()


def test_both_buffers_share_the_offline_rows():
    replay = Replay(LAYOUT, [rows(0, 3)], online_capacity=10)
    assert replay.context.offline.data_ptr() == replay.rl.offline.data_ptr()
