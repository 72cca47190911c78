"""Pages as a reader finds them: their parts, and walks unpacked by other code than the page's own."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from typing import Any

import numpy as np

from fastst import SkeletonGraph
from fastst.explanation.page.build import Beside, Told, page
from fastst.explanation.page.entries import Edges, Entry
from fastst.explanation.page.words import of_run
from fastst.layouts import Layout

VERDICT = {"verdict": {"code": "edges_decide", "sentence": "The decision rests on these edges."}}


class Parts(HTMLParser):
    """Every element of a page with its attributes and the text in it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self._inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))
        self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            tag, attributes, text = self.found[-1]
            self.found[-1] = tag, attributes, text + data

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """Of the elements that have these attributes; `class_` stands for class."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [text for name, has, text in self.found if name == tag and wanted.items() <= has.items()]

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.texts("script", id="data")[0])


def unpacked(form: dict[str, Any], content: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses `[T, J, D]`, probabilities and kept edges `[P, T]`, number by number as the format says."""
    bytes_ = zlib.decompress(base64.b64decode(content, validate=True), -15)
    T, J, D, P = (form[name] for name in ("frames", "joints", "dimensions", "slots"))
    count, poses = T * J * D, np.full((T, J, D), np.nan)
    for j in range(J):
        for d in range(D):
            place = speed = 0
            for t in range(T):
                at = (j * D + d) * T + t
                small = bytes_[at] * 256 + bytes_[count + at]
                speed += -(small + 1) // 2 if small % 2 else small // 2
                place = (place + speed) % 65536
                if place != 65535:
                    poses[t, j, d] = form["origin"][d] + form["step"] * place
    probability, kept = np.full((P, T), np.nan), np.zeros((P, T), bool)
    for p in range(P):
        byte = 0
        for t in range(T):
            byte = (byte + bytes_[2 * count + p * T + t]) % 256
            if byte:
                probability[p, t] = (byte - 1) / 254
            bit = p * T + t
            kept[p, t] = bytes_[2 * count + P * T + bit // 8] >> bit % 8 & 1
    return poses, probability, kept


def entry(graph: SkeletonGraph, T: int = 20, D: int = 2, seed: int = 0, **other: Any) -> Entry:
    """A made-up walk with edges."""
    rng = np.random.default_rng([seed, T, D, graph.num_joints])
    probability = rng.random((graph.num_slots, T)).astype(np.float32)
    probability[~graph.edge_mask(T).numpy()] = np.nan
    kept = rng.random(probability.shape) < np.nan_to_num(probability)
    poses = rng.standard_normal((1, graph.num_joints, D)) + 0.1 * rng.standard_normal((T, graph.num_joints, D)).cumsum(0)
    said = {"kept": [0.9, 0.1], "no_edges": [0.6, 0.4], "all_edges": [0.8, 0.2], "random": [0.3, 0.7], "complement": [0.5, 0.5]}
    values: dict[str, Any] = {
        "walk": seed,
        "name": f"walk {seed}",
        "subject": f"person {seed // 2}",
        "of_class": seed % 2,
        "attributes": {"view": "090" if seed % 3 else "000"},
        "fps": 25.0,
        "poses": poses,
        "said": said,
        "edges": Edges(probability, kept),
        "agreement": None,
        "model": None,
        "trained_on": False,
        "cycle": None,
    }
    return Entry(**(values | other))


def page_of(entries: list[Entry], graph: SkeletonGraph, classes: list[str] | None = None, beside: list[Entry] | None = None, **told: Any) -> str:
    about = {"run": "demo", "seed": 0, "data": "0123abcd", "verdict": of_run(VERDICT)} | told
    other = None if beside is None else Beside(Told(**(about | {"run": "other run"})), beside)
    return page(entries, graph, classes or ["ill", "well"], Told(**about), beside=other)


def stick(joints: int) -> SkeletonGraph:
    """A skeleton of so many joints, one below the other."""
    names = [f"joint {j}" for j in range(joints)]
    return SkeletonGraph(Layout.custom(names, bones=[(names[j], names[j + 1]) for j in range(joints - 1)], name="stick"), 1)
