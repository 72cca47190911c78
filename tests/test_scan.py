"""The scanner of JSON against Python's parser."""

from __future__ import annotations

import json
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


def plain(value: Any) -> Any:
    """As Python's parser would give it, with points as columns for itself to be compared."""
    if isinstance(value, np.ndarray):
        return np.where(np.isnan(value), None, value).tolist()
    if isinstance(value, list):
        if value and all(
            isinstance(v, dict) and list(v)[:1] == ["x"] and list(v) == list(value[0]) and all(map(is_number, v.values())) for v in value
        ):
            return {key: [plain(v[key]) for v in value] for key in value[0]}
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    return value


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
@given(value=VALUES, indent=st.sampled_from([None, 1]), ascii=st.booleans())
def test_the_scanner_gives_what_pythons_parser_gives(tmp_path_factory: pytest.TempPathFactory, value: Any, indent: int | None, ascii: bool) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_bytes(json.dumps({"v": value}, indent=indent, ensure_ascii=ascii).encode(errors="replace"))
    assert_close(plain(parse_json(path).first), plain(json.loads(path.read_bytes())))
