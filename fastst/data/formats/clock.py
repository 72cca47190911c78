"""The frame rate that the times of frames tell."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

# How a time is called, without what is no letter -> its unit; None where the name doesn't tell.
TIMES: dict[str, str | None] = {
    **dict.fromkeys(("timestamp", "time", "timestamps", "times", "datetime", "frametime")),
    **dict.fromkeys(("seconds", "timeseconds", "timestampseconds", "timesec", "timestampsec"), "s"),
    **dict.fromkeys(("milliseconds", "timemilliseconds", "timestampmilliseconds", "timems", "timestampms", "msec", "ms"), "ms"),
    **dict.fromkeys(("timeus", "timestampus"), "µs"),
}
_UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
_SLOWEST, _FASTEST = 5, 125  # frames a second that a video has, if nothing says in which unit its times are
_MIN_TIMES = 6
_DIFFER = 0.15  # of the median: of the steps so many at least differ by no more
_EVEN = 0.8
_WHOLE = 0.005  # a rate so near a whole number is that number, since times are rounded
_MOST = 1000.0  # frames a second


def rate_of(frames: np.ndarray, times: Sequence[str | float], unit: str | None = None) -> tuple[float, str] | None:
    """Frames a second, and in which unit the times are; None where they don't step evenly, or may be in several units.

    fps = 1 / mean of the steps near the median, where time steps by nearly the same from frame to frame. A unit that is not known is the one in which
    that is a video's rate.

    Args:
        frames: their numbers, rising.  # [n]
        times: numbers, or dates with times as in ISO 8601.  # [n]
        unit: s, ms or µs, where the name of the column says so.
    """
    values, are_dates = _values(times)
    step = None if values is None else _step(np.diff(values) / np.diff(frames))
    if step is None:
        return None
    if are_dates:
        return _checked(1 / step, "dates")
    if unit is not None:
        return _checked(1 / (step * _UNITS[unit]), unit)
    fitting = [name for name, seconds in _UNITS.items() if _SLOWEST <= 1 / (step * seconds) <= _FASTEST]
    return _checked(1 / (step * _UNITS[fitting[0]]), fitting[0]) if fitting else None


def frames_at(times: Sequence[str | float]) -> np.ndarray | None:
    """Numbers of frames by their times: from 0, one more where time steps as it mostly does, and as many more as fit where it jumps.

    The number of a frame's time, that is, and not of its place: several may have one time. None where times don't step evenly.  # [n]
    """
    values, _ = _values(times)
    if values is None:
        return None
    different, which = np.unique(values, return_inverse=True)
    steps = np.diff(different)
    step = _step(steps)
    return None if step is None else np.concatenate([[0], np.cumsum(np.maximum(np.round(steps / step), 1))]).astype(np.int64)[which]


def _values(times: Sequence[str | float]) -> tuple[np.ndarray | None, bool]:
    """Times as numbers, None where one of them is none, and whether they are dates.  # [n]"""
    numbers = _numbers(times)
    values = _seconds(times) if numbers is None else numbers
    return (values if values is not None and np.isfinite(values).all() else None), numbers is None


def _step(steps: np.ndarray) -> float | None:
    """The mean of the steps near the median; None where they are few, or differ."""
    if len(steps) < _MIN_TIMES - 1:
        return None
    median = np.median(steps)
    is_usual = np.abs(steps - median) <= _DIFFER * median
    return float(steps[is_usual].mean()) if median > 0 and is_usual.mean() >= _EVEN else None


def _checked(fps: float, unit: str) -> tuple[float, str] | None:
    whole = round(fps)
    fps = float(whole) if whole and abs(fps - whole) <= _WHOLE * whole else float(f"{fps:.3g}")
    return (fps, unit) if fps <= _MOST else None


def _numbers(times: Sequence[str | float]) -> np.ndarray | None:
    try:
        return np.array([float(time.replace(",", ".")) if isinstance(time, str) else float(time) for time in times])
    except (TypeError, ValueError, OverflowError):
        return None


def _seconds(times: Sequence[str | float]) -> np.ndarray | None:
    """Since the first; None where they are no dates, or only some say their time zone."""
    try:
        moments = [datetime.fromisoformat(str(time)) for time in times]
        return np.array([(moment - moments[0]).total_seconds() for moment in moments])
    except (TypeError, ValueError):
        return None
