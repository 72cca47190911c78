"""What somebody takes away of one walk: a video, a sheet of frames for print, and its kept edges as a table or a graph."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import animation
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image

from fastst.errors import UserError
from fastst.explanation.text import readable, save, with_fonts
from fastst.explanation.views import View, seen_from
from fastst.explanation.walk_figures import LIKELY, bones, tapers_of
from fastst.files import open_file, write_atomically
from fastst.graph import SkeletonGraph
from fastst.runs.graphs import KeptGraph

VIDEOS, SHEETS, TABLES = (".gif", ".mp4"), (".png", ".svg", ".pdf"), (".csv", ".graphml", ".json")
_SIGN = "made by fastst"  # in videos
# What no other file of that ending is likely to have.
_SIGNS = {
    **dict.fromkeys(VIDEOS, _SIGN.encode()),
    **dict.fromkeys(SHEETS, b"atplotlib"),
    ".csv": b"frame,from,to,offset,probability",
    ".graphml": b'attr.name="slot"',
    ".json": b'"slot"',
}
_COLUMNS = 6
_APART = 0.5  # of a body's width, that successive frames stand apart
_DPI = 80
_RATE = 25.0  # frames a second, where the walk doesn't say


@dataclass(frozen=True, eq=False)
class ShownWalk:
    """One walk with its kept edges.

    Attributes:
        poses: `[T, J, D]`, as the model gets them; 3D is seen from `view`.
        kept, probability: `[P, T]`.
        said: of this walk, and `below` what may be said of all.
        fps: frames a second, None where that is not known.
    """

    name: str
    graph: SkeletonGraph
    poses: np.ndarray
    kept: np.ndarray
    probability: np.ndarray
    said: str
    below: str
    fps: float | None = None
    view: View = View()  # noqa: RUF009 - frozen

    @property
    def title(self) -> str:
        return f"{readable(self.name)}: {self.said}"


def write_video(path: Path, walk: ShownWalk) -> None:
    """All frames, in real time where the frame rate is known, else 25 a second: .gif, or .mp4 where ffmpeg is installed.

    Raises:
        UserError: another ending, no ffmpeg, or the file can't be written.
    """
    check_ending(path, VIDEOS, "a video")
    figure = Figure(figsize=(6, 5.4))
    axes = figure.add_axes((0.02, 0.2, 0.96, 0.7))
    figure.suptitle("\n".join(textwrap.wrap(walk.title, 75)), fontsize=10)
    figure.text(0.02, 0.02, "\n".join(textwrap.wrap(walk.below, 95)), fontsize=7, va="bottom")
    with_fonts(figure)
    flat = seen_from(walk.poses, walk.graph.layout, walk.view)
    limits = _limits(flat, walk.graph)

    def draw() -> Iterator[None]:
        for t in range(len(flat)):
            axes.clear()
            _draw(axes, walk, flat, t, limits)
            yield

    write_frames = _write_mp4 if path.suffix.lower() == ".mp4" else _write_gif
    write_atomically(path, lambda part: write_frames(part, figure, draw(), walk.fps or _RATE))


def _write_mp4(part: Path, figure: Figure, drawn: Iterator[None], fps: float) -> None:
    writer = animation.FFMpegWriter(fps=fps, metadata={"comment": _SIGN})  # type: ignore[arg-type]
    with writer.saving(figure, str(part), _DPI):
        for _ in drawn:
            writer.grab_frame()


def _write_gif(part: Path, figure: Figure, drawn: Iterator[None], fps: float) -> None:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    pictures = []
    for _ in drawn:
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(64))
    first, *others = pictures
    first.save(part, "GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0, comment=_SIGN)


def write_sheet(path: Path, walk: ShownWalk, frames: int = 24) -> None:
    """So many frames, evenly spread over the walk, on a sheet for print: .png, .svg or .pdf.

    Raises:
        UserError: another ending, or the file can't be written.
    """
    check_ending(path, SHEETS, "a sheet of frames")
    flat = seen_from(walk.poses, walk.graph.layout, walk.view)
    shown = np.unique(np.linspace(0, len(flat) - 1, min(frames, len(flat))).round().astype(int)).tolist()
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(11.7, 1.2 + 2.2 * rows), layout="constrained")
    places = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    limits = _limits(flat, walk.graph)
    for axes in places:
        axes.set_axis_off()
    for axes, t in zip(places, shown, strict=False):
        _draw(axes, walk, flat, t, limits)
    figure.suptitle("\n".join([*textwrap.wrap(walk.title, 120), *textwrap.wrap(walk.below, 150)]), fontsize=10)
    save(figure, path)


def write_kept_edges(path: Path, walk: ShownWalk) -> None:
    """The kept edges: .csv with frame, from, to, offset, probability; or .graphml or .json as of `KeptGraph.save`.

    Raises:
        UserError: another ending, or the file can't be written.
    """
    check_ending(path, TABLES, "kept edges")
    if path.suffix.lower() == ".csv":
        write_atomically(path, lambda part: _write_rows(part, walk))
        return
    kept, probability = torch.from_numpy(walk.kept), torch.from_numpy(np.nan_to_num(walk.probability))
    KeptGraph(walk.name, walk.graph, kept, probability).save(path)


def check_ending(path: Path, endings: tuple[str, ...], what: str) -> None:
    """That it can be written as that.

    Raises:
        UserError: the name ends in anything else, or .mp4 takes ffmpeg, which is not there.
    """
    if path.suffix.lower() not in endings:
        raise UserError(f"{path} is of no kind that {what} can be written as; name a file that ends in {', '.join(endings[:-1])} or {endings[-1]}")
    if path.suffix.lower() == ".mp4" and not animation.FFMpegWriter.isAvailable():
        raise UserError(f"{path} takes ffmpeg, which is not installed: install it, or name a file that ends in .gif")


def is_export(path: Path) -> bool:
    """Whether a file that is there was written here, and may be replaced by a newer one."""
    sign = _SIGNS.get(path.suffix.lower(), b"")
    with open_file(path) as file:
        head = file.read(1 << 16)
        file.seek(max(path.stat().st_size - (1 << 16), 0))
        return sign != b"" and (sign in head or sign in file.read())


def _write_rows(part: Path, walk: ShownWalk) -> None:
    joints, graph = walk.graph.layout.joints, walk.graph
    src, dst, offset = graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist()
    with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", "from", "to", "offset", "probability"])
        for t, p in np.argwhere(walk.kept.T).tolist():
            writer.writerow([t, joints[src[p]], joints[dst[p]], offset[p], f"{walk.probability[p, t]:.6g}"])


def _limits(flat: np.ndarray, graph: SkeletonGraph) -> tuple[float, float, float, float, float]:
    """Left, right, bottom and top of all frames with those beside them, and how far these are shifted for each frame."""
    points = flat.reshape(-1, 2)
    (left, bottom), (right, top) = np.nanmin(points, 0), np.nanmax(points, 0)
    shift = _APART * max(right - left, 0.35 * (top - bottom), 1e-6)
    reach = int(graph.offset.abs().max()) * shift if graph.num_slots else 0.0
    room = 0.05 * max(top - bottom, right - left, 1e-6)
    return left - reach - room, right + reach + room, bottom - room, top + room, shift


def _draw(axes: Axes, walk: ShownWalk, flat: np.ndarray, t: int, limits: tuple[float, float, float, float, float]) -> None:
    """One frame: its bones, and its kept edges, those through time from where the body is in their frame, a step aside."""
    left, right, bottom, top, shift = limits
    graph = walk.graph
    edges = [
        (flat[t + offset, src] + (offset * shift, 0), flat[t, dst], float(walk.probability[p, t]))
        for p, (src, dst, offset) in enumerate(zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True))
        if walk.kept[p, t]
    ]
    bones(axes, graph.layout, [flat[t]], 4)
    tapers, likely = tapers_of(edges, top - bottom)
    axes.add_collection(PolyCollection(tapers, facecolors=LIKELY(np.array(likely)), linewidths=0, zorder=2), autolim=False)
    axes.plot(flat[t, :, 0], flat[t, :, 1], ".", color="black", markersize=3, zorder=3)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.set_axis_off()
    axes.set_title(f"frame {t}", fontsize=8)
