"""Random numbers of made-up walks, which don't depend on what else was drawn."""

from __future__ import annotations

import numpy as np


def stream(seed: int, purpose: int, person: int = 0, walk: int = 0) -> np.random.Generator:
    """A stream of its own for these numbers, the same whatever else was drawn.

    The lowest counter word is left to the stream itself.
    """
    counter = [0, purpose, person, walk]
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))


def smooth_noise(
    rng: np.random.Generator,
    frames: int,
    shape: tuple[int, ...],
    every: int,
) -> np.ndarray:
    """Normal random values in every so many frames, straight lines between.  # [T, *shape]"""
    knots = rng.standard_normal((frames // every + 2, *shape))
    place = np.arange(frames) / every
    left = place.astype(np.int64)
    share = (place - left).reshape(-1, *[1] * len(shape))
    return knots[left] * (1 - share) + knots[left + 1] * share


def bursts(
    rng: np.random.Generator,
    frames: int,
    columns: int,
    rate: float,
    length: int,
) -> np.ndarray:
    """True in stretches of `length` frames, which cover about `rate` of all.  # [T, columns]"""
    started = np.cumsum(rng.random((frames + length, columns)) < rate / length, axis=0)
    return started[length:] > started[:-length]
