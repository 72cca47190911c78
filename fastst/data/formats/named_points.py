"""Points that say which joints they are: a list of them, each with its name, or a mapping of names to points or to [x, y] or [x, y, confidence]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from fastst.data.formats.columns import layout_of, plain
from fastst.layouts import LAYOUTS, Layout

SCORES = ("score", "confidence", "visibility")
_MORE_SCORES = ("conf", "likelihood", "prob", "c", "v")  # of points that stand below their names
_NAMES = ("name", "part", "class")
_PLACES = ("position", "point")
_LAYOUTS = (LAYOUTS["coco17"], LAYOUTS["mediapipe33"])  # of MoveNet and PoseNet, and of BlazePose
_FEWEST_JOINTS = 3  # known ones, that make a pose of what may be anything
_KNOWN = frozenset(plain(joint) for layout in LAYOUTS.values() for joint in layout.joints)


def place_of(point: Any) -> Mapping[str, Any] | None:
    """What has the x and y of a point."""
    if not isinstance(point, dict):
        return None
    place = next((point[key] for key in _PLACES if key in point), point)
    return place if isinstance(place, dict) and all(isinstance(place.get(axis), int | float) for axis in "xy") else None


def are_below_names(value: Any) -> bool:
    """Whether it is a mapping of names of joints, one of them known, to points."""
    return (
        isinstance(value, dict)
        and bool(value)
        and any(plain(name) in _KNOWN for name in value)
        and all(point is None or place_of(point) is not None or _is_short(point) for point in value.values())
    )


def points_among(frame: dict[str, Any]) -> dict[str, Any] | None:
    """The points that stand below their names in a frame, beside its number and whatever else is said of it; None if no joint is among them."""
    points = {name: value for name, value in frame.items() if place_of(value) is not None or _is_short(value)}
    return points if sum(plain(name) in _KNOWN for name in points) >= _FEWEST_JOINTS else None


def _is_short(point: Any) -> bool:
    return isinstance(point, np.ndarray) and point.ndim == 1 and point.size in (2, 3)


def are_columns(points: Any) -> bool:
    """Whether they are a mapping of arrays x and y, which is how points with the same keys come; `x` and `y` may stand below a key."""
    return isinstance(points, dict) and type(_inner(points).get("x")) is np.ndarray and type(_inner(points).get("y")) is np.ndarray


def _inner(point: dict[str, Any]) -> dict[str, Any]:
    """The mapping in which a point has its place: itself, or one in it."""
    for key in _PLACES:
        if key in point:
            return point[key] if isinstance(point[key], dict) else point
    return point


def as_list(points: Any) -> Any:
    """Points below their names as a list of points that have them; anything else as it is."""
    if are_columns(points) or not are_below_names(points):
        return points
    found = []
    for name, point in points.items():
        if isinstance(point, np.ndarray):
            found.append({"name": name, "x": float(point[0]), "y": float(point[1]), **({"score": float(point[2])} if point.size == 3 else {})})
        elif point is not None:
            score = next((point[key] for key in (*SCORES, *_MORE_SCORES) if key in point), None)
            found.append({"name": name, **{axis: place_of(point)[axis] for axis in "xy"}, **({} if score is None else {"score": score})})  # type: ignore[index]
    return found


def names_of(points: Any) -> tuple[str, ...]:
    """Names of points, in columns or in a list, where they have some."""
    first = points[0] if isinstance(points, list) and points else points
    key = next((key for key in _NAMES if key in first), None) if isinstance(first, dict) else None
    if key is None or points is first:
        return () if key is None or not isinstance(points[key], list) else tuple(points[key])
    return tuple([str(point.get(key)) for point in points if isinstance(point, dict)])


def layout_of_names(names: Iterable[str]) -> Layout:
    """The skeleton of the models that has all of the names, of which those that were seen badly may be left out; else the one that the names make."""
    known = {plain(name): name for name in names}
    fitting = next((layout for layout in _LAYOUTS if known.keys() <= set(map(plain, layout.joints))), None)
    return fitting or layout_of(sorted(known.values()))[0]


def columns_of_points(points: Any, layout: Layout | None) -> Any:
    """x, y and, where there are scores, these, of all joints of the skeleton; NaN where a joint is not among the points. Others as they are.

    Args:
        points: columns, or a list of points.
    """
    columns = _columns(points) if are_columns(points) else _columns_of_list(points)
    if columns is None:
        return points
    names = names_of(points)
    if layout is not None and len(names) == len(columns["x"]):
        joints = _joints(names, layout)
        return columns if joints is None else {axis: _placed(values, joints, layout.num_joints) for axis, values in columns.items()}
    return columns


def _columns(points: dict[str, Any]) -> dict[str, np.ndarray]:
    place = _inner(points)
    columns = {"x": place["x"], "y": place["y"]}
    for key in SCORES:
        if type(points.get(key)) is np.ndarray:
            return columns | {"score": points[key]}
    return columns


def _columns_of_list(points: Any) -> dict[str, np.ndarray] | None:
    """None if they are no list of points."""
    if not isinstance(points, list) or not points or place_of(points[0]) is None:
        return None
    score = next((key for key in SCORES if key in points[0]), None)
    try:
        places = [_inner(point) for point in points]
        columns = {axis: np.array([place[axis] for place in places], float) for axis in "xy"}
        return columns | ({"score": np.array([point[score] for point in points], float)} if score else {})
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError):
        return None


def _placed(values: np.ndarray, joints: np.ndarray, num_joints: int) -> np.ndarray:
    """The values at the places `joints`, those of -1 left out, and NaN elsewhere.  # [num_joints]"""
    placed = np.full(num_joints, np.nan)
    placed[joints[joints >= 0]] = values[joints >= 0]
    return placed


def in_order(points: Any, layout: Layout) -> Any:
    """Points below their names as an array of x, y and confidence of one joint after the other; anything else as it is."""
    columns = columns_of_points(as_list(points), layout) if are_below_names(points) else None
    if not isinstance(columns, dict):
        return points
    scores = columns.get("score", np.where(np.isnan(columns["x"]), np.nan, 1.0))
    return np.stack([columns["x"], columns["y"], scores], axis=1).ravel()


@lru_cache(maxsize=256)  # nearly all poses have the same names
def _joints(names: tuple[str, ...], layout: Layout) -> np.ndarray | None:
    """Which joint of the skeleton each name is, -1 for none; None where they are all of them in their order.  # [names]"""
    joint_of = {plain(joint): j for j, joint in enumerate(layout.joints)}
    joints = [joint_of.get(plain(name), -1) for name in names]
    return None if joints == [*range(layout.num_joints)] else np.array(joints)
