"""What JSON files that programs write by themselves say of a video and of the numbers of its frames."""

from __future__ import annotations

from typing import Any

_NUMBERS = ("frame", "frame_index", "frame_number", "frame_id", "frameIndex", "frameNumber", "frameId", "index")
_ABOUT = ("metadata", "meta", "video_metadata", "video_info", "video", "info")
_WIDTHS, _HEIGHTS = ("width", "frame_width", "image_width"), ("height", "frame_height", "image_height")
_RATES = ("fps", "frame_rate", "frameRate")


class About:
    """What the pieces of a file say of its video."""

    def __init__(self) -> None:
        self._said: dict[str, Any] = {}

    def add(self, piece: Any) -> None:
        if isinstance(piece, dict):
            parts = [part for part in (piece, *map(piece.get, _ABOUT)) if isinstance(part, dict)]
            self._said |= {key: value for part in parts for key, value in part.items() if key in (*_RATES, *_WIDTHS, *_HEIGHTS)}

    @property
    def fps(self) -> float | None:
        return next((float(self._said[key]) for key in _RATES if _is_positive(self._said.get(key))), None)

    @property
    def image_size(self) -> tuple[int, int] | None:
        width, height = (next((int(self._said[key]) for key in keys if _is_positive(self._said.get(key))), 0) for keys in (_WIDTHS, _HEIGHTS))
        return (width, height) if width and height else None


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < 1e6


def frame_number(frame: Any) -> Any:
    """Its number, or a name with one; None where it has none."""
    return next((frame[key] for key in _NUMBERS if key in frame), None) if isinstance(frame, dict) else None


def numbered_frames(frames: Any, first: int) -> list[tuple[Any, Any]]:
    """Frames in a list or by their names, with their numbers, or names with a number; those without have the number of their place."""
    if isinstance(frames, dict):
        return [(name, frame) for name, frame in frames.items() if any(letter.isdigit() for letter in name)]
    numbers = [frame_number(frame) for frame in frames]
    return [(first + place if number is None else number, frame) for place, (number, frame) in enumerate(zip(numbers, frames, strict=True))]
