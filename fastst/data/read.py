"""Recorded walks from whatever form they are in."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastst.cpu.memory import without_garbage_collection
from fastst.data.formats import BINARY_FORMS, JSON_FORMS, TEXT_FORMS
from fastst.data.formats.content import ENDINGS_OF_LINES, EmptyFileError, encoding_of, head_of, parse_json
from fastst.data.formats.form import Form
from fastst.data.formats.others import refuse_other
from fastst.data.frames import HAS_FRAME, split_frames
from fastst.data.identity import identify
from fastst.data.labels import Labels
from fastst.data.meaning import understand
from fastst.data.options import ReadOptions
from fastst.data.progress import track
from fastst.data.recording import Detections, File, Recording
from fastst.data.skeletons import name_joints
from fastst.data.tracks import walks_of
from fastst.data.walks import DataError, LeftOut, WalkSet
from fastst.errors import UserError, visible
from fastst.files import is_there, reading
from fastst.layouts import Layout

# Endings that files of walks have; in a folder no others are looked at.
_ENDINGS = frozenset((".json", ".csv", ".tsv", ".txt", ".npz", ".pkl", ".pickle", ".skeleton", ".c3d", *ENDINGS_OF_LINES))
_MOST_MISSING = 0.2  # share of the joints of most walks that others may not have


def read_walks(path: str | Path, options: ReadOptions | None = None, progress: bool = True, labels: Labels | None = None) -> WalkSet:
    """Read walks from a file, a folder or a tree of folders, in any of the forms of `fastst.data.formats`.

    Raises:
        DataError: nothing is there, or nothing in it can be used; the message says where, why and what to do.
    """
    options = options or ReadOptions()
    path = Path(path)
    with reading(path):
        return _walks(path, options, progress, labels)


def _walks(path: Path, options: ReadOptions, progress: bool, labels: Labels | None) -> WalkSet:
    recordings, left_out = read_recordings(path, progress)
    recordings, notes = _with_visible_names(recordings)
    recordings, left = name_joints(recordings, options.joints)
    left_out += left
    understood = understand(recordings, options)
    left_out += understood.left_out
    recordings, left = _of_one_skeleton(understood.recordings)
    left_out += left
    walks = []
    for recording in recordings:
        left_out += recording.left_out
        try:
            with reading(recording.source):
                found, left = walks_of(recording, options.tracks)
        except DataError as error:
            left_out.append(LeftOut(recording.name, str(error)))
            continue
        walks += found
        left_out += left
    if not walks:
        raise DataError(f"{path} has no usable walk: {_first(left_out)}")
    identified = identify(walks, options, left_out, labels)
    return replace(identified, notes=[*notes, *understood.notes, *_by_clock(recordings), *identified.notes])


def _by_clock(recordings: list[Recording]) -> list[str]:
    """What is to be said of frame rates that only times tell."""
    timed = [recording for recording in recordings if recording.clock]
    if not timed:
        return []
    first = timed[0]
    return [f"times tell the frame rate of {len(timed)} recording(s), such as {first.fps:g} a second of {first.name}, by {first.clock}"]


def read_recordings(path: Path, progress: bool = True) -> tuple[list[Recording], list[LeftOut]]:
    """What the files say, each video for itself, before anybody is followed; and the files that are left out.

    Raises:
        DataError: nothing is there, or no file can be used.
    """
    files, aside = _files(path)
    recordings: list[Recording] = []
    left_out: list[LeftOut] = []
    empty: list[tuple[File, EmptyFileError]] = []
    for file in track(files, path.name, progress and len(files) > 1):
        try:
            recordings += read_file(file, progress and len(files) == 1)
        except UserError as error:
            if len(files) == 1:
                raise
            if isinstance(error, EmptyFileError):
                empty.append((file, error))
            else:
                left_out.append(LeftOut("/".join(file.places), str(error)))
    folders_of_frames = {Path(recording.source).parent for recording in recordings if recording.frame_name is not None}
    # Beside files that hold a frame each, an empty one is a frame in which nobody was seen.
    left_out += [LeftOut("/".join(file.places), str(reason)) for file, reason in empty if file.path.parent not in folders_of_frames]
    recordings, left = _put_frames_together(recordings)
    left_out += left
    if not recordings and len(files) == 1:
        raise DataError(left_out[0].reason)
    if not recordings:
        raise DataError(f"{path} has no usable walk in {len(files)} file(s): {_first(left_out)}")
    return recordings, left_out + aside


def _first(left_out: list[LeftOut]) -> str:
    """The first reasons, each once."""
    return "; ".join(list(dict.fromkeys(left.reason for left in left_out))[:3])


def read_file(file: File, progress: bool = False) -> list[Recording]:
    """The recordings in one file, whose form is found from its content.

    Raises:
        DataError: it is of no known form, or can't be used, for whatever reason.
    """
    with reading(file.path):
        return _read(file, progress)


def _read(file: File, progress: bool) -> list[Recording]:
    head = head_of(file.path)
    refuse_other(file.path, head)
    for form in BINARY_FORMS:
        if form.recognises(head):
            return form.read(head, file, progress)
    text = head.decode(encoding_of(head), errors="replace").lstrip("\ufeff")
    if text.lstrip()[:1] in ("{", "["):
        with without_garbage_collection():
            content = parse_json(file.path, progress)
            return _form_of(content.first, JSON_FORMS, file).read(content, file, progress)
    return _form_of(text, TEXT_FORMS, file).read(text, file, progress)


def _form_of(content: object, forms: tuple[Form, ...], file: File) -> Form:
    for form in forms:
        if form.recognises(content):
            return form
    known = ", ".join(form.name for form in (*JSON_FORMS, *TEXT_FORMS, *BINARY_FORMS))
    raise DataError(
        f"{file.path} is of no form that can be read: it is {_kind_of(content)}. Poses of other forms can be written as arrays, with "
        f'numpy.savez("walks.npz", poses=…, lengths=…, subject=…, joints=…, bones=…). Forms that can be read are: {known}'
    )


def _kind_of(content: object) -> str:
    """What a file seems to be, in a few words."""
    if isinstance(content, str):
        line = next((line.strip() for line in content.splitlines() if line.strip()), "")
        return f"text that begins with {line[:60]!r}"
    if isinstance(content, dict):
        return f"an object of JSON with {', '.join(str(key)[:20] for key in list(content)[:6]) or 'nothing'}"
    if isinstance(content, list) and content:
        return f"a list of JSON, whose first entry is {_kind_of(content[0]).replace(' of JSON', '')}"
    return f"an array of numbers {list(content.shape)}" if isinstance(content, np.ndarray) else repr(content)[:60]


def _files(path: Path) -> tuple[list[File], list[LeftOut]]:
    """The file, or the files below the folder that may hold walks, in the order of their names; and folders and files that are not looked at."""
    if not is_there(path):
        raise DataError(f"{path} doesn't exist; give a file or a folder of walks")
    if not path.is_dir():
        return [File(path, path)], []
    left_out: list[LeftOut] = []
    below = [file for file in sorted(_below(path, left_out)) if not _is_aside(file, path)]
    found = [file for file in below if file.suffix.lower() in _ENDINGS]
    others = Counter(file.suffix.lower() or "no ending" for file in below if file.suffix.lower() not in _ENDINGS)
    if not found and left_out:
        raise DataError(left_out[0].reason)
    expected = ", ".join(sorted(_ENDINGS))
    if not found:
        heads: dict[Path, bytes] = {}
        for file in below:
            with contextlib.suppress(DataError):
                heads[file] = head_of(file)
        for file, head in heads.items():
            refuse_other(file, head)
        raise DataError(f"{path} has no file of walks; their names end in {expected}")
    if others:
        endings = ", ".join(f"{ending} ({count})" for ending, count in others.most_common(5))
        reason = f"{path} has files with other endings, such as {endings}; names of files of walks end in {expected}"
        left_out.append(LeftOut(f"{others.total()} file(s) of {path.name}", reason))
    return [File(file, path) for file in found], left_out


def _below(top: Path, left_out: list[LeftOut]) -> Iterator[Path]:
    """The files in a folder and in those below it, also where links lead to, but for the folders above it."""
    folders: list[tuple[Path, frozenset[Path]]] = [(top, frozenset())]
    while folders:
        folder, above = folders.pop()
        try:
            with reading(folder):
                real = folder.resolve()
                paths = [] if real in above else list(map(Path, os.scandir(folder)))
        except DataError as error:
            left_out.append(LeftOut(folder.name, str(error)))
            continue
        for path in paths:
            kind = _kind(path)
            if kind == stat.S_IFDIR and not path.name.startswith("."):
                folders.append((path, above | {real}))
            elif kind != stat.S_IFDIR:
                yield path  # also what is no file: who opens it says so


def _kind(path: Path) -> int | None:
    """Folder, file or something else, as `stat` has it; None where nobody can say."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except OSError:
        return None


def _is_aside(file: Path, root: Path) -> bool:
    """Hidden, a list of what was left out the last time, or what AlphaPose writes a second time, a file a frame."""
    if file.name.endswith(".left_out.json") or any(part.startswith((".", "__MACOSX")) for part in file.relative_to(root).parts):
        return True
    return file.parent.name == "sep-json" and any(file.parent.parent.glob("alphapose-results*.json"))


def _with_visible_names(recordings: list[Recording]) -> tuple[list[Recording], list[str]]:
    """The recordings with all that they are called by `visible`, and a note where that changes something."""
    made = [_with_visible_name(recording) for recording in recordings]
    changed = [new for new, old in zip(made, recordings, strict=True) if new is not old]
    if not changed:
        return recordings, []
    example = next((text for recording in changed for text in _called(recording) if "<U+" in text), changed[0].name)
    what = f"names in {len(changed)} recording(s) have characters that can't be seen"
    return made, [f"{what}, for which their codes stand from here on, as in {example}"]


def _with_visible_name(recording: Recording) -> Recording:
    if all(visible(text) == text for text in _called(recording)):
        return recording
    layout = replace(recording.layout, name=visible(recording.layout.name), joints=tuple(map(visible, recording.layout.joints)))
    attributes = {visible(name): visible(value) for name, value in recording.attributes.items()}
    return replace(recording, places=tuple(map(visible, recording.places)), layout=layout, attributes=attributes)


def _called(recording: Recording) -> Iterator[str]:
    """The names of a recording, of what is said of it, and of its joints."""
    return itertools.chain(recording.places, recording.attributes, recording.attributes.values(), (recording.layout.name,), recording.layout.joints)


def _put_frames_together(recordings: list[Recording]) -> tuple[list[Recording], list[LeftOut]]:
    """Files that hold one frame each become the videos that their names tell; those whose names don't are left out."""
    left_out = []
    whole = [recording for recording in recordings if recording.frame_name is None]
    folders: dict[tuple[str, ...], list[Recording]] = defaultdict(list)
    for recording in recordings:
        if recording.frame_name is not None:
            if re.search(HAS_FRAME, recording.frame_name):
                folders[recording.places[:-1]].append(recording)
            elif len(recording.detections):
                reason = f"{recording.source} holds one frame, and its name has no number that says which; number the files of a video"
                left_out.append(LeftOut(recording.name, reason))
            else:
                left_out.append(_nobody(recording))
    for frames in folders.values():
        for video in _videos_of_folder(frames):
            if len(video.detections):
                whole.append(video)
            else:
                left_out.append(_nobody(video))
    return whole, left_out


def _nobody(recording: Recording) -> LeftOut:
    return LeftOut(recording.name, f"{recording.source} has no detection; nobody was found in this video")


def _videos_of_folder(frames: list[Recording]) -> list[Recording]:
    split = split_frames([visible(recording.frame_name or "") for recording in frames])
    assert split is not None  # every name has a number
    names, numbers = split
    kinds = names.indices.to_numpy()
    videos = []
    for kind, name in enumerate(names.dictionary.to_pylist()):
        members = np.flatnonzero(kinds == kind)
        seen = [i for i in members if len(frames[i].detections)] or [members[0]]
        for layout in {frames[i].layout.name: frames[i].layout for i in seen}.values():
            of_layout = [i for i in seen if frames[i].layout.name == layout.name]
            first = frames[of_layout[0]]
            videos.append(
                replace(
                    first,
                    places=_video_places(first, name.replace("\0", "").strip("_-. ")),
                    detections=_joined([frames[i].detections for i in of_layout], numbers[of_layout]),
                    left_out=[left for i in of_layout for left in frames[i].left_out],
                    frame_name=None,
                )
            )
    return videos


def _video_places(frame: Recording, name: str) -> tuple[str, ...]:
    """Where the video is that a frame is of; `name` is what the names of its frames share."""
    folders = (*frame.places[:-1],) or (Path(frame.source).resolve().parent.name,)
    name = name.removesuffix("keypoints").rstrip("_-. ")  # which OpenPose adds
    if folders[-1] == "sep-json":  # where AlphaPose puts the frames, in the video's folder
        folders = folders[:-1] or (Path(frame.source).resolve().parent.parent.name,)
    return (*folders, name) if name else folders


def _joined(parts: list[Detections], frames: np.ndarray) -> Detections:
    """One table of detections; `frames` has the number of each part.  # [parts]"""

    def column(name: str) -> np.ndarray | None:
        arrays = [getattr(part, name) for part in parts]
        return np.concatenate(arrays) if all(array is not None for array in arrays) else None

    columns = {name: column(name) for name in ("confidences", "boxes", "scores", "ids")}
    joints = np.concatenate([part.joints for part in parts])
    return Detections(np.repeat(frames, [len(part) for part in parts]), joints, **columns)


def _of_one_skeleton(recordings: list[Recording]) -> tuple[list[Recording], list[LeftOut]]:
    """The recordings of the most frequent skeleton; the others are left out by name."""

    def kind(recording: Recording) -> tuple[Layout, int]:
        return replace(recording.layout, name=""), recording.detections.joints.shape[2]  # a skeleton may be called by its file

    if not recordings:
        return [], []
    most = Counter(map(kind, recordings)).most_common(1)[0][0]
    common = next(recording.layout for recording in recordings if kind(recording) == most)
    kept, left_out = [], []
    for recording in recordings:
        missing = [joint for joint in common.joints if joint not in recording.layout.joints]
        further = [joint for joint in recording.layout.joints if joint not in common.joints]
        is_alike = recording.layout.name == common.name and kind(recording)[1] == most[1]
        if kind(recording) == most:
            kept.append(recording)
        elif is_alike and len(missing) <= _MOST_MISSING * common.num_joints:
            kept.append(_placed(recording, common))
            words = [f"it has no {', '.join(missing)}, taken as never seen"] if missing else []
            words += [f"its {', '.join(further)}, which most of the walks don't have, is not used"] if further else []
            left_out.append(LeftOut(f"joints of {recording.name}", f"{recording.source}: {'; '.join(words) or 'its joints are in another order'}"))
        else:
            differ = f"; {', '.join(missing + further)} are in one of them only: --drop-joints makes them alike" if is_alike else ""
            reason = f"most of the walks are of {common.name} in {most[1]}D; read one kind at a time{differ}"
            left_out.append(
                LeftOut(recording.name, f"{recording.source}: its skeleton is {recording.layout.name} in {kind(recording)[1]}D, {reason}")
            )
    return kept, left_out


def _placed(recording: Recording, layout: Layout) -> Recording:
    """The recording with the joints of a layout, of which those that it doesn't have are never seen."""
    old = recording.detections
    columns = np.array([recording.layout.joints.index(joint) if joint in recording.layout.joints else -1 for joint in layout.joints])
    joints = np.where((columns < 0)[:, None], np.float32(np.nan), old.joints[:, columns])
    confidences = None if old.confidences is None else np.where(columns < 0, np.float32(0), old.confidences[:, columns])
    return replace(recording, layout=layout, detections=replace(old, joints=joints, confidences=confidences))
