"""How long one gait cycle of a walk is."""

from __future__ import annotations

import numpy as np

_LEAST = 0.3  # correlation of a walk with itself one cycle later
_SHORTEST = 4  # frames
_LONGEST = 4096  # frames that are looked at


def gait_cycle(poses: np.ndarray) -> int | None:
    """Frames until a walk `[T, J, D]` most resembles itself again: the first peak of its autocorrelation that is nearly the highest.

    Left and right change places after half a cycle, so that the whole body repeats after a full one. None where nothing repeats, or the walk is
    shorter than one and a half cycles.
    """
    T = min(len(poses), _LONGEST)
    series = poses[:T].reshape(T, -1).astype(np.float64)
    series = np.where(np.isfinite(series), series, 0.0)
    frames = np.arange(T) - (T - 1) / 2
    series = series - series.mean(0, keepdims=True)
    if T < 2 * _SHORTEST or not series.any():
        return None
    series -= frames[:, None] * (frames @ series / (frames @ frames))  # without what only drifts
    spectrum = np.abs(np.fft.rfft(series, 2 * T, axis=0)) ** 2
    products = np.fft.irfft(spectrum.sum(1), 2 * T)[:T]  # Σ x(t) · x(t + lag)
    energy = np.concatenate(([0.0], (series**2).sum(1).cumsum()))
    lags = np.arange(T)
    scale = np.sqrt((energy[T - lags]) * (energy[T] - energy[lags]))
    alike = products / np.maximum(scale, 1e-12)
    longest = 2 * T // 3
    peaks = [lag for lag in range(_SHORTEST, longest) if alike[lag] > _LEAST and alike[lag - 1] < alike[lag] >= alike[lag + 1]]
    if not peaks:
        return None
    highest = max(alike[lag] for lag in peaks)
    return next(lag for lag in peaks if alike[lag] > 0.9 * highest)
