"""The page as one file: a skeleton, a style and a script that are source files of their own, and what they show as data that can't become either."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastst import __version__, files
from fastst.data.planted import Planted
from fastst.explanation.page.entries import Entry, class_means
from fastst.explanation.page.packing import Packed, likely_bytes, pack
from fastst.explanation.page.words import of_walk
from fastst.explanation.views import sides, standing_body
from fastst.graph import SkeletonGraph

# In the order in which they need each other; as one script, since a page on a disk can't import.
SCRIPTS = ("dom.js", "decode.js", "geometry.js", "colors.js", "figure.js", "raster.js", "body.js", "walks.js", "words.js", "exports.js", "page.js")
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let) )", re.MULTILINE)
_PLACE = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Told:
    """What stands on the page beside the walks.

    Attributes:
        run: name of the run's folder.
        seed: of its training.
        data: fingerprint of the walks.
        verdict: of `words.of_run`.
        no_edges: why there are none to be seen; None where there are.
        notes: what else is to be known.
    """

    run: str
    seed: int
    data: str
    verdict: dict[str, Any]
    no_edges: str | None = None
    notes: tuple[str, ...] = ()


class Beside(NamedTuple):
    """The same walks as another run has them, in the same order; its graph has the same slots."""

    told: Told
    entries: Sequence[Entry]


def page(
    entries: Sequence[Entry], graph: SkeletonGraph, class_names: list[str], told: Told, planted: Planted | None = None, beside: Beside | None = None
) -> str:
    """The whole page."""
    packed = [_packed(entry) for entry in (*entries, *(beside.entries if beside else ()))]
    same = _same_as_class(entries, class_names)
    shown: dict[str, Any] = {
        **_about(told),
        "classes": class_names,
        "skeleton": _skeleton(entries, graph, planted),
        "means": _means(entries, class_names),
        "walks": [_walk(entry, class_names, same) | one.form | {"run": None} for entry, one in zip(entries, packed, strict=False)],
        "beside": None if beside is None else _beside(beside, class_names, same, packed[len(entries) :]),
    }
    style, script = _source("page.css"), script_of_page()
    parts = {
        "title": html.escape(f"{told.run}: {entries[0].name if len(entries) == 1 else f'{len(entries)} walks'}"),
        "version": html.escape(__version__),
        "policy": html.escape(policy(style, script)),
        "style": style,
        "script": script,
        "data": as_data(shown),
        "walks": "\n".join(f'<script type="text/plain" class="walk">{one.content}</script>' for one in packed),
    }
    return _PLACE.sub(lambda place: parts[place[1]], _source("page.html"))


def script_of_page() -> str:
    """All modules as one; their names don't clash, which the tests see to."""
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", _source(name))) for name in SCRIPTS)


def policy(style: str, script: str) -> str:
    """A content security policy under which nothing is loaded and nothing runs but these two."""
    hashes = {name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for name, text in (("style", style), ("script", script))}
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )


def as_data(value: Any) -> str:
    """JSON that can stand in a script element: whatever a text in it says, nothing in it begins or ends an element. What is no number is null."""
    text = json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value


def _source(name: str) -> str:
    """As a browser reads it, for which every line ends alike."""
    return files.read_text(Path(__file__).with_name(name), "it is a part of fastst: install that again").replace("\r\n", "\n")


def _about(told: Told) -> dict[str, Any]:
    return {
        "version": __version__,
        "run": told.run,
        "seed": told.seed,
        "data": told.data,
        "verdict": told.verdict,
        "noEdges": told.no_edges,
        "notes": told.notes,
    }


def _skeleton(entries: Sequence[Entry], graph: SkeletonGraph, planted: Planted | None) -> dict[str, Any]:
    """Joints and slots; `order` has the joints along the limbs, so that those of a part of the body stand together."""
    layout = graph.layout
    left, right = sides(layout)
    return {
        "joints": layout.joints,
        "bones": layout.bones,
        "left": left,
        "right": right,
        "order": _along_limbs(layout.bones, layout.root, layout.num_joints),
        "planted": [layout.index(joint) for joint in planted.joints] if planted else [],
        "body": _body(entries, graph),
        "slots": [graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist()],
    }


def _body(entries: Sequence[Entry], graph: SkeletonGraph) -> list[list[float]]:
    """A standing body; joints that were never seen are at its middle."""
    walks = [np.where(np.isfinite(entry.poses), entry.poses, 0.0) for entry in entries]
    if walks[0].shape[2] == 2:
        walks = [poses * (1, -1) for poses in walks]  # as in an image again
    body = standing_body(walks, graph.layout)
    return body.astype(float).round(5).tolist()


def _along_limbs(bones: Sequence[tuple[int, int]], root: Sequence[int], joints: int) -> list[int]:
    """From the root down one limb after the other; joints that no bone reaches come last."""
    beside: list[list[int]] = [[] for _ in range(joints)]
    for a, b in bones:
        beside[a].append(b)
        beside[b].append(a)
    order: dict[int, None] = {}
    for start in (*root, *range(joints)):
        waiting = [start]
        while waiting:
            joint = waiting.pop()
            if joint not in order:
                order[joint] = None
                waiting += sorted((other for other in beside[joint] if other not in order and other not in root), reverse=True)
    return list(order)


def _packed(entry: Entry) -> Packed:
    return pack(entry.poses, *(entry.edges or (None, None)))


def _beside(beside: Beside, class_names: list[str], same: set[str], packed: Sequence[Packed]) -> dict[str, Any]:
    told, entries = beside
    walks = [_walk(entry, class_names, same) | one.form | {"run": told.run} for entry, one in zip(entries, packed, strict=True)]
    return {**_about(told), "means": _means(entries, class_names), "walks": walks}


def _means(entries: Sequence[Entry], class_names: list[str]) -> list[dict[str, Any] | None]:
    return [None if mean is None else _mean(mean) for mean in class_means(entries, len(class_names))]


def _mean(mean: Any) -> dict[str, Any]:
    bytes_of = {name: base64.b64encode(likely_bytes(getattr(mean, name)).tobytes()).decode() for name in ("probability", "kept")}
    return {"walks": mean.walks, "people": mean.people, **bytes_of}


def _same_as_class(entries: Sequence[Entry], class_names: list[str]) -> set[str]:
    """Attributes that say nothing beside the class."""
    names = {name for entry in entries for name in entry.attributes}
    of = [(entry.attributes, None if entry.of_class is None else class_names[entry.of_class]) for entry in entries]
    return {name for name in names if all(attributes.get(name) == known for attributes, known in of)}


def _walk(entry: Entry, class_names: list[str], same: set[str]) -> dict[str, Any]:
    said = of_walk(entry, class_names)
    kept, random = entry.said["kept"], entry.said["random"]
    return {
        "name": entry.name,
        "subject": entry.subject,
        "ofClass": entry.of_class,
        "predicted": entry.predicted,
        "probability": kept[entry.predicted],
        "ofOwn": None if entry.of_class is None else kept[entry.of_class],
        "moved": max(abs(a - b) for a, b in zip(kept, random, strict=True)),
        "attributes": {name: value for name, value in entry.attributes.items() if name not in same},
        "fps": entry.fps,
        "cycle": entry.cycle,
        "nearest": entry.nearest,
        "keptShare": entry.kept_share,
        "agreement": entry.agreement,
        "sentences": said.sentences,
        "rows": said.rows,
    }
