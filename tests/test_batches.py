import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fastst import LAYOUTS
from fastst.data.batches import even_windows, in_order, made_ahead, make_batch, random_windows
from fastst.data.prepare import mirror

LAYOUT = LAYOUTS["coco17"]
LENGTHS = [25, 4, 10, 60]
POSES = [np.random.default_rng(i).normal(size=(T, 17, 2)).astype(np.float32) for i, T in enumerate(LENGTHS)]


def test_even_windows_cover_every_walk():
    windows = even_windows(LENGTHS, [0, 1, 3], frames=10)
    assert sorted(set(windows.walk.tolist())) == [0, 1, 3]
    for walk in (0, 1, 3):
        starts = windows.start[windows.walk == walk]
        covered = {frame for start in starts for frame in range(start, min(start + 10, LENGTHS[walk]))}
        assert covered == set(range(LENGTHS[walk]))
        assert len(starts) == max(1, -(-LENGTHS[walk] // 10))
    assert len(set(windows.sample_id.tolist())) == len(windows)


def test_random_windows_are_as_many_of_every_walk_as_fit_inside_it():
    rng = np.random.default_rng(0)
    for _ in range(20):
        windows = random_windows(LENGTHS, [0, 1, 2, 3], 10, rng)
        assert sorted(windows.walk.tolist()) == [0, 0, 1, 2, *[3] * 6]
        assert len(set(windows.sample_id.tolist())) == len(windows)
        for walk, start in zip(windows.walk, windows.start, strict=True):
            assert 0 <= start <= max(LENGTHS[walk] - 10, 0)


def test_batches_hold_the_windows_padded_and_mirrored():
    windows = even_windows(LENGTHS, range(4), 10)
    chosen = np.array([0, 3, 4])
    batch = make_batch(POSES, np.array([0, 1, 0, 1]), windows, chosen, 10, np.array([False, False, True]), LAYOUT)
    assert batch.poses.shape == (3, 10, 17, 2)
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [10, 4, 10]
    assert batch.classes.tolist() == [0, 1, 0]
    assert np.array_equal(batch.poses[1, :4].numpy(), POSES[1])
    assert (batch.poses[1, 4:] == 0).all()
    assert torch.equal(batch.poses[2], torch.from_numpy(mirror(POSES[2], LAYOUT)))
    full = make_batch(POSES, np.zeros(4, int), windows, np.array([0]), 10, np.array([False]), LAYOUT)
    assert full.lengths is None


def test_in_order_visits_every_window_once():
    windows = even_windows(LENGTHS, range(4), 10)
    batches = list(in_order(windows, 4))
    assert np.concatenate(batches).tolist() == list(range(len(windows)))
    assert max(map(len, batches)) == 4


def test_a_thread_makes_the_next_batch_while_the_last_is_used():
    made: list[int] = []
    started = [threading.Event() for _ in range(4)]

    def maker(number: int) -> Callable[[], int]:
        def make() -> int:
            started[number].set()
            made.append(number)
            return number

        return make

    for number, batch in enumerate(made_ahead([maker(n) for n in range(4)])):
        assert batch == number
        if number < 3:
            assert started[number + 1].wait(60)  # before it is asked for
        assert len(made) <= number + 2
    assert made == [0, 1, 2, 3]
    assert list(made_ahead([])) == []


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_used():
    def fail() -> int:
        raise OSError("no such walk")

    batches = made_ahead([lambda: 1, fail])
    assert next(batches) == 1
    with pytest.raises(OSError, match="no such walk"):
        next(batches)
