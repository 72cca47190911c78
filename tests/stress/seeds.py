"""A small good file of every form, and of everything else that a user hands to a command: what the fuzzer starts from."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from fastst.data.synthetic import synthetic_walks
from fastst.layouts import LAYOUTS

FRAMES = 8
COCO = LAYOUTS["coco17"].joints

Seeds = list[tuple[str, bytes]]  # the ending of the file, and what is in it


def poses(joints: int = 17, axes: int = 2) -> np.ndarray:
    """A walker, with as many joints as wanted.  # [T, joints, axes]"""
    walker = synthetic_walks(people=2, walks_per_person=1, seed=0).poses[0][10 : 10 + FRAMES]
    walker = np.nan_to_num(walker[:, np.arange(joints) % 17], nan=100.0).round(2)
    return np.concatenate([walker, walker[..., :1] / 2], axis=2)[..., :axes].astype(float)


def seeds() -> dict[str, Seeds]:
    """By name of the form."""
    return {name: make() for name, make in _FORMS.items()}


def others() -> dict[str, Seeds]:
    """Files that are no walks, by the option that names them."""
    bones = [[COCO[joint] for joint in bone] for bone in LAYOUTS["coco17"].bones]
    skeleton = {"joints": list(COCO), "bones": bones}
    return {
        "--labels": [
            (".csv", b"subject,label,split\n001,ill,train\n002,well,test\n"),
            (".csv", b"walk;subject;label\n001-1;001;ill\n002-1;002;well\n"),
        ],
        "--split-file": [(".json", b'{"train": ["001"], "validation": [], "test": ["002"]}'), (".csv", b"subject,split\n001,train\n002,test\n")],
        "--joints": [(".json", json.dumps(skeleton).encode())],
        "--layout": [(".json", json.dumps(skeleton).encode())],
    }


def good_file(person: str) -> bytes:
    """A walk that any reader takes, for the place beside a bad file."""
    return _csv("walks/{person}-nm-01-090/{frame:06}.jpg", person)


def _json(value: Any) -> Seeds:
    return [(".json", json.dumps(value).encode())]


def _flat(joints: int = 17) -> list[list[float]]:
    """x, y, confidence of every joint, for every frame."""
    return [np.column_stack([pose, np.full(joints, 0.9)]).round(2).ravel().tolist() for pose in poses(joints)]


def _alphapose() -> Seeds:
    """Also a line for each."""
    objects = [
        {"image_id": f"{t}.jpg", "category_id": 1, "keypoints": row, "score": 2.9, "box": [90.0, 60.0, 51.0, 133.0], "idx": 1}
        for t, row in enumerate(_flat())
    ]
    return [*_json(objects), (".jsonl", "\n".join([*map(json.dumps, objects), ""]).encode())]


def _openpose() -> Seeds:
    return _json({"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": _flat(25)[0], "pose_keypoints_3d": []}]})


def _mmpose() -> Seeds:
    rest = {"keypoint_scores": [0.9] * 17, "bbox": [[90.0, 60.0, 191.0, 193.0]], "bbox_score": 0.97}
    return _json([{"frame_id": t, "instances": [{"keypoints": pose.tolist(), **rest}]} for t, pose in enumerate(poses())])


def _coco_results() -> Seeds:
    return _json([{"image_id": t, "category_id": 1, "keypoints": row, "score": 0.97} for t, row in enumerate(_flat())])


def _coco_annotations() -> Seeds:
    return _json(
        {
            "images": [{"id": t, "file_name": f"walk/{t:06}.jpg", "width": 320, "height": 240} for t in range(FRAMES)],
            "annotations": [
                {"image_id": t, "category_id": 1, "keypoints": row, "bbox": [90, 60, 51, 133], "track_id": 0} for t, row in enumerate(_flat())
            ],
            "categories": [{"id": 1, "name": "person", "keypoints": list(COCO), "skeleton": [[16, 14], [14, 12]]}],
        }
    )


def _kinetics() -> Seeds:
    frames = [
        {"frame_index": t + 1, "skeleton": [{"pose": (pose / 400).round(3).ravel().tolist(), "score": [0.9] * 18}]}
        for t, pose in enumerate(poses(18))
    ]
    return _json({"data": frames, "label": "jogging", "label_index": 169})


def _mediapipe() -> Seeds:
    def landmarks(pose: np.ndarray) -> list[dict[str, float]]:
        return [{"x": x / 400, "y": y / 400, "z": z / 400, "visibility": 0.99} for x, y, z in pose.tolist()]

    frames = [{"frame": t, "pose_landmarks": landmarks(pose)} for t, pose in enumerate(poses(33, 3)[:4])]
    return _json({"fps": 30, "width": 320, "height": 240, "frames": frames})


def _person_frames() -> Seeds:
    return _json({"1": {f"{t:04}": {"keypoints": row, "scores": None} for t, row in enumerate(_flat())}})


def _ultralytics() -> Seeds:
    def of(pose: np.ndarray) -> dict[str, Any]:
        box = {"x1": 90.0, "y1": 60.0, "x2": 191.0, "y2": 193.0}
        points = {"x": pose[:, 0].tolist(), "y": pose[:, 1].tolist(), "visible": [0.9] * 17}
        return {"name": "person", "class": 0, "confidence": 0.92, "box": box, "track_id": 1, "keypoints": points}

    return _json([[of(pose)] for pose in poses()])


def _ultralytics_csv() -> Seeds:
    rows = [",frame,name,class,confidence,box,track_id,keypoints"]
    for t, pose in enumerate(poses()):
        box = "{'x1': 90.0, 'y1': 60.0, 'x2': 191.0, 'y2': 193.0}"
        points = {"x": pose[:, 0].tolist(), "y": pose[:, 1].tolist(), "visible": [0.9] * 17}
        rows.append(f'0,{t},person,0,0.92,"{box}",1,"{points}"')
    return [(".csv", "\n".join([*rows, ""]).encode())]


def _posenet() -> Seeds:
    def of(pose: np.ndarray) -> dict[str, Any]:
        points = [{"x": x, "y": y, "score": 0.93, "name": name} for name, (x, y) in zip(COCO, pose.tolist(), strict=True)]
        return {"score": 0.71, "keypoints": points}

    return _json([[of(pose)] for pose in poses()])


def _ntu() -> Seeds:
    lines = [str(FRAMES)]
    for pose in poses(25, 3):
        lines += ["1", "72057594037931101 0 1 1 0 0 0 -0.23 -0.17 2", "25"]
        lines += [f"{x / 100:.4f} {y / 100:.4f} {z / 100:.4f} 277.4 191.8 1036.2 519.2 -0.206 0.053 0.969 -0.124 2" for x, y, z in pose]
    return [(".skeleton", ("\n".join(lines) + "\n").encode())]


def _yolo() -> Seeds:
    joints = " ".join(f"{x / 400:.3f} {y / 400:.3f} 0.98" for x, y in poses()[0])
    return [(".txt", f"0 0.512 0.488 0.121 0.633 {joints}\n".encode())]


def _labels() -> Seeds:
    return [(".csv", b"subject,label,split\n001,male,train\n002,female,test\n")]


def _csv(name: str = "walks/{person}-nm-01-090/{frame:06}.jpg", person: str = "001") -> bytes:
    header = ",".join(["image_name", *(f"{joint}_{kind}" for joint in COCO for kind in ("x", "y", "conf"))])
    numbers = np.array(_flat())  # [T, joints of x, y, confidence]
    numbers[:, 1::3] *= 1 + int(person) / 100  # nobody's walk is another's
    rows = [",".join([name.format(person=person, frame=t), *map(str, row)]) for t, row in enumerate(numbers.round(3).tolist())]
    return "\n".join([header, *rows, ""]).encode()


def _long_csv() -> bytes:
    rows = [f"{t},{joint},{x},{y},0.9" for t, pose in enumerate(poses()) for joint, (x, y) in zip(COCO, pose.tolist(), strict=True)]
    return "\n".join(["frame,landmark,x,y,visibility", *rows, ""]).encode()


def _semicolons() -> bytes:
    header = ";".join(["frame", "person", *(f"{joint}.{kind}" for joint in COCO for kind in "xy")])
    rows = [";".join([str(t), "1", *(f"{number:.2f}".replace(".", ",") for number in pose.ravel())]) for t, pose in enumerate(poses())]
    return "\r\n".join([header, *rows, ""]).encode("utf-16")


def _pose_csv() -> Seeds:
    return [(".csv", _csv()), (".csv", _long_csv()), (".csv", _semicolons())]


def _npz() -> Seeds:
    walks = {
        "poses": poses()[:, :3].astype(np.float32),
        "lengths": np.array([5, 3]),
        "subject": np.array(["001", "002"]),
        "label": np.array(["ill", "well"]),
        "joints": np.array(["hips", "left_knee", "right_knee"]),
        "bones": np.array([[0, 1], [0, 2]]),
        "fps": np.array(25),
    }
    plain, packed, pickled = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(plain, **walks)
    np.savez_compressed(packed, **walks)
    np.savez(pickled, **(walks | {"label": np.array([Shell(), "well"], dtype=object)}))
    return [(".npz", file.getvalue()) for file in (plain, packed, pickled)]


class Shell:
    """A pickle of it is a program: whoever unpickles it runs a command."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        import os

        return os.system, ("echo run > /tmp/fastst-fuzzed-code",)


def _pickles() -> Seeds:
    clip = {
        "frame_dir": "001-nm-01-000",
        "label": 0,
        "total_frames": FRAMES,
        "img_shape": (240, 320),
        "keypoint": poses()[None].astype(np.float16),
        "keypoint_score": np.ones((1, FRAMES, 17), np.float16),
    }
    clips = {"split": {"train": ["001-nm-01-000"]}, "annotations": [clip]}
    sequence = np.concatenate([poses(), np.ones((FRAMES, 17, 1))], axis=2).astype(np.float32)
    contents: list[Any] = [clips, sequence, clips | {"annotations": [clip | {"label": Shell()}]}]
    return [(".pkl", pickle.dumps(content, protocol)) for content, protocol in zip(contents, (4, 2, 2), strict=True)]


def _c3d() -> Seeds:
    """Written by hand: a header of 512 bytes, a block of parameters, and frames of 4 float32 a marker."""
    markers = ["LASI", "RASI", "LPSI", "RPSI", "LKNE", "RKNE", "LANK", "RANK"]
    points = np.concatenate([poses(len(markers), 3) * 10, np.zeros((FRAMES, len(markers), 1))], axis=2).astype("<f4")
    header = struct.pack("<BBHHHHHfHHf", 2, 80, len(markers), 0, 1, FRAMES, 0, -1.0, 4, 0, 100.0).ljust(512, b"\0")

    def group(name: str, number: int) -> bytes:
        return struct.pack("<bb", len(name), -number) + name.encode() + struct.pack("<hB", 3, 0)

    def parameter(name: str, number: int, kind: int, shape: tuple[int, ...], data: bytes) -> bytes:
        body = struct.pack("<bB", kind, len(shape)) + bytes(shape) + data + b"\0"
        return struct.pack("<bb", len(name), number) + name.encode() + struct.pack("<h", len(body) + 2) + body

    labels = "".join(name.ljust(4) for name in markers).encode()
    block = struct.pack("<BBBB", 1, 80, 2, 84) + group("POINT", 1)
    block += parameter("USED", 1, 2, (), struct.pack("<H", len(markers))) + parameter("SCALE", 1, 4, (), struct.pack("<f", -1.0))
    block += parameter("RATE", 1, 4, (), struct.pack("<f", 100.0)) + parameter("DATA_START", 1, 2, (), struct.pack("<H", 4))
    block += parameter("FRAMES", 1, 2, (), struct.pack("<H", FRAMES)) + parameter("UNITS", 1, -1, (2,), b"mm")
    block += parameter("LABELS", 1, -1, (4, len(markers)), labels) + b"\0\0"
    return [(".c3d", header + block.ljust(1024, b"\0") + points.tobytes())]


_FORMS: dict[str, Callable[[], Seeds]] = {
    "AlphaPose's JSON": _alphapose,
    "OpenPose's JSON": _openpose,
    "MMPose's JSON": _mmpose,
    "COCO results": _coco_results,
    "COCO annotations": _coco_annotations,
    "Kinetics-skeleton": _kinetics,
    "MediaPipe's landmarks as JSON": _mediapipe,
    "person → frame → keypoints": _person_frames,
    "ultralytics' JSON": _ultralytics,
    "ultralytics' CSV": _ultralytics_csv,
    "MoveNet's and PoseNet's JSON": _posenet,
    "NTU RGB+D's .skeleton": _ntu,
    "label files of YOLO pose models": _yolo,
    "labels of people": _labels,
    "pose CSV": _pose_csv,
    "walks in NumPy arrays (.npz)": _npz,
    "pickles of pyskl, MMAction2 and OpenGait": _pickles,
    "C3D": _c3d,
}
