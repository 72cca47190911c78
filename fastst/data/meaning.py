"""What a number in a file means: a place, or that a joint was not found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastst.data.options import ReadOptions
from fastst.data.recording import Recording
from fastst.data.walks import LeftOut


def understand(recordings: list[Recording], options: ReadOptions) -> tuple[list[Recording], list[LeftOut]]:
    """The recordings with NaN wherever a joint was not seen, in pixels or metres; and what had to be left out."""
    return [_without_unseen(recording, options) for recording in recordings], []


def _without_unseen(recording: Recording, options: ReadOptions) -> Recording:
    detections = recording.detections
    if detections.confidences is None or not options.min_confidence:
        return recording
    joints = detections.joints.copy()
    joints[detections.confidences < options.min_confidence] = np.nan
    return recording.with_detections(replace(detections, joints=joints))
