"""Forms of pose files: one module a form, found by what is in a file and not by its name.

A module has `FORM = Form(...)`. `JSON_FORMS` are given the parsed content, `TEXT_FORMS` the first lines of a text, `BINARY_FORMS` the first
bytes; the first that recognises it reads the file.
"""

from __future__ import annotations

from fastst.data.formats import (
    alphapose,
    c3d,
    coco,
    kinetics,
    labels_csv,
    mediapipe,
    mmpose,
    ntu_skeleton,
    openpose,
    person_frames,
    pickles,
    pose_csv,
    posenet,
    ultralytics,
    ultralytics_csv,
    walks_npz,
    yolo_txt,
)
from fastst.data.formats.form import Form

JSON_FORMS: tuple[Form, ...] = (
    alphapose.FORM,
    openpose.FORM,
    mmpose.FORM,
    coco.RESULTS,
    coco.ANNOTATIONS,
    kinetics.FORM,
    mediapipe.FORM,
    person_frames.FORM,
    posenet.FORM,
    ultralytics.FORM,
)
TEXT_FORMS: tuple[Form, ...] = (ntu_skeleton.FORM, yolo_txt.FORM, ultralytics_csv.FORM, labels_csv.FORM, pose_csv.FORM)
BINARY_FORMS: tuple[Form, ...] = (walks_npz.FORM, pickles.FORM, c3d.FORM)
