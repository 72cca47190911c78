"""The scanner of JSON against Python's parser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastst.data.formats.content import parse_json

NUMBERS = st.one_of(st.integers(-(10**30), 10**30), st.floats(-1e300, 1e300), st.just(float("inf")), st.none())
VALUES = st.recursive(
    st.one_of(NUMBERS, st.booleans(), st.text(max_size=6), st.lists(NUMBERS, max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["x", "y", "a\\", '"', "é"]), inner, max_size=4)),
    max_leaves=20,
)


PLACE = {"x": NUMBERS, "y": NUMBERS}
KINDS_OF_POINTS = [
    st.fixed_dictionaries(members)
    for members in (
        PLACE,
        {"name": st.text(max_size=4), "y": NUMBERS, "x": NUMBERS, "é": NUMBERS},
        {"score": NUMBERS, "part": st.text(max_size=4), "position": st.fixed_dictionaries(PLACE)},
        {"point": st.fixed_dictionaries({**PLACE, "of": st.text(max_size=2)}), "score": NUMBERS},
        {"at": st.fixed_dictionaries(PLACE), "score": NUMBERS},
        {"nose": st.fixed_dictionaries(PLACE), "left_eye": st.fixed_dictionaries(PLACE)},
        {"x": NUMBERS, "name": st.text(max_size=4), "y": st.one_of(NUMBERS, st.booleans())},
    )
]
POINTS = st.one_of(
    st.sampled_from(KINDS_OF_POINTS).flatmap(lambda point: st.lists(point, max_size=4)), st.lists(st.one_of(KINDS_OF_POINTS), max_size=3)
)


def plain(value: Any, ascii: bool) -> Any:
    """As Python's parser would give it, with points as columns for itself to be compared."""
    if isinstance(value, np.ndarray):
        return np.where(np.isnan(value), None, value).tolist()
    if isinstance(value, list):
        return columns(value) if are_points(value, ascii) else [plain(v, ascii) for v in value]
    if isinstance(value, dict):
        return {key: plain(v, ascii) for key, v in value.items()}
    return value


def are_points(value: list[Any], ascii: bool) -> bool:
    shapes = [list(members(v)) if isinstance(v, dict) else [] for v in value]
    if not value or not shapes[0] or any(shape != shapes[0] for shape in shapes):
        return False
    kinds = [kind for _, kind in shapes[0]]
    return (
        {("x", "number"), ("y", "number")} <= set(shapes[0])
        and kinds.count("mapping") < 2
        and {key for key, kind in shapes[0] if kind == "mapping"} <= {"position", "point"}
        and not {"other", "empty"} & set(kinds)
        and not any(key != json.dumps(key, ensure_ascii=ascii)[1:-1] for key, _ in shapes[0] if key)
    )


def members(point: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in point.items():
        kind = "number" if is_number(value) else "string" if isinstance(value, str) else "mapping" if isinstance(value, dict) else "other"
        yield key, "empty" if isinstance(value, dict) and not value else kind
        if isinstance(value, dict):
            yield from members(value)
            yield "", "end"


def columns(points: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: columns([p[key] for p in points]) if isinstance(v, dict) else [p[key] for p in points] for key, v in points[0].items()}


def is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def assert_close(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted) or (is_number(found) and is_number(wanted))
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        found, wanted = list(found.values()), list(wanted.values())
    if isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other)
    elif is_number(wanted) and wanted is not None:
        assert found == pytest.approx(wanted, rel=4e-15, abs=1e-300)
    else:
        assert found == wanted


@settings(max_examples=150, deadline=None)
@given(value=st.one_of(VALUES, POINTS), indent=st.sampled_from([None, 1]), ascii=st.booleans())
def test_the_scanner_gives_what_pythons_parser_gives(tmp_path_factory: pytest.TempPathFactory, value: Any, indent: int | None, ascii: bool) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_bytes(json.dumps({"v": value}, indent=indent, ensure_ascii=ascii).encode(errors="replace"))
    assert_close(plain(parse_json(path).first, ascii), plain(json.loads(path.read_bytes()), ascii))
