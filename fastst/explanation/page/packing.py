"""Poses, keep probabilities and kept edges in few bytes: what `decode.js` unpacks.

Neighbouring frames are alike, so that differences along time are small numbers, which deflate well.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, NamedTuple

import numpy as np

NOT_SEEN = 0xFFFF  # in place of a coordinate that is no number
_LEVELS = 0xFFFE  # others
_LIKELY = 254  # levels of a probability; the byte 0 stands for an edge that isn't there


class Packed(NamedTuple):
    """One walk.

    Attributes:
        form: what is needed to unpack it: frames, joints, dimensions, slots, origin and step of the coordinates.
        content: base64 of deflated bytes: high bytes of the poses, low bytes, probabilities, kept edges.
    """

    form: dict[str, Any]
    content: str


def pack(poses: np.ndarray, probability: np.ndarray | None = None, kept: np.ndarray | None = None) -> Packed:
    """Poses within 1/65,534 of their largest extent, probabilities within 1/508, kept edges exactly.

    Args:
        poses: `[T, J, D]`; what is not finite becomes NaN.
        probability: `[P, T]`, NaN where no edge exists.
        kept: `[P, T]` bool.
    """
    T, J, D = poses.shape
    levels, origin, step = _levels(poses)
    parts = [*_planes(_second_differences(levels))]
    slots = 0
    if probability is not None and kept is not None:
        slots = len(probability)
        parts += [_differences(likely_bytes(probability)).tobytes(), np.packbits(kept.astype(bool).ravel(), bitorder="little").tobytes()]
    form = {"frames": T, "joints": J, "dimensions": D, "slots": slots, "origin": origin, "step": step}
    return Packed(form, base64.b64encode(_deflated(b"".join(parts))).decode())


def likely_bytes(probability: np.ndarray) -> np.ndarray:
    """0 where there is no edge, else 1 + 254 p.  # uint8"""
    p = np.clip(np.nan_to_num(probability.astype(np.float64)), 0, 1)
    return np.where(np.isnan(probability), 0, 1 + np.rint(_LIKELY * p)).astype(np.uint8)


def _levels(poses: np.ndarray) -> tuple[np.ndarray, list[float], float]:
    """Whole numbers `[J · D, T]` with poses = origin + step · number, as near as can be; one step for all axes."""
    T, J, D = poses.shape
    flat = poses.astype(np.float64).reshape(T * J, D)
    seen = np.isfinite(flat)
    low = np.where(seen, flat, np.inf).min(0, initial=np.inf)
    high = np.where(seen, flat, -np.inf).max(0, initial=-np.inf)
    low, high = np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)
    step = float((high - low).max(initial=0.0)) / _LEVELS or 1.0
    numbers = np.where(seen, np.rint((np.where(seen, flat, 0.0) - low) / step), NOT_SEEN).astype(np.uint16)
    return numbers.reshape(T, J * D).T, low.tolist(), step


def _second_differences(numbers: np.ndarray) -> np.ndarray:
    """Along the last axis, small ones of either sign as small numbers (0, -1, 1, -2, …).  # uint16"""
    twice = _differences(_differences(numbers)).view(np.int16)
    return ((twice << 1) ^ (twice >> 15)).view(np.uint16)


def _differences(numbers: np.ndarray) -> np.ndarray:
    """Along the last axis, the first number as it is; modulo the type's size."""
    return np.diff(numbers, axis=-1, prepend=np.zeros_like(numbers[..., :1]))


def _planes(numbers: np.ndarray) -> tuple[bytes, bytes]:
    return (numbers >> 8).astype(np.uint8).tobytes(), (numbers & 0xFF).astype(np.uint8).tobytes()


def _deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()
