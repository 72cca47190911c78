"""What is left out is said in a few lines, reason by reason, and listed whole in a file."""

import json
from pathlib import Path

import pytest

from fastst.data.walks import LeftOut
from fastst.errors import UserError
from fastst.runs.left_out import check_left_out_file, left_out_file, report_left_out


def test_little_is_said_as_it_is(tmp_path: Path):
    items = [LeftOut("a", "never shows head"), LeftOut("b", "has no extent")]
    assert report_left_out(items, tmp_path / "left_out.json") == ["left out: a: never shows head", "left out: b: has no extent"]
    assert [item["name"] for item in json.loads((tmp_path / "left_out.json").read_text())] == ["a", "b"]
    assert report_left_out([], tmp_path / "none.json") == []
    assert not (tmp_path / "none.json").exists()


def test_one_reason_is_one_line_whatever_names_paths_and_numbers_it_has(tmp_path: Path):
    cut = [LeftOut(f"w{i}.json", f"/data/my walks/w{i}.json, line {i}: {i} numbers, expected '{i}'") for i in range(300)]
    short = [LeftOut(f"s{i}", f"has {i} frame(s), at least 4 (hops + 1) are needed") for i in range(2)]
    lines = report_left_out([*short, *cut], tmp_path / "left_out.json")
    assert lines == [
        "left out: w0.json: /data/my walks/w0.json, line 0: 0 numbers, expected '0' (300 are left out for such a reason, also w1.json, w2.json, "
        "w3.json and 296 more)",
        f"left out: s0: has 0 frame(s), at least 4 (hops + 1) are needed (2 are left out for such a reason, also s1); all 302 are listed in "
        f"{tmp_path / 'left_out.json'}",
    ]
    assert len(json.loads((tmp_path / "left_out.json").read_text())) == 302


def test_ten_lines_at_most():
    items = [LeftOut(f"w{i}", f"reason {'x' * i}") for i in range(30)]
    lines = report_left_out(items, None)
    assert len(lines) == 10
    assert lines[8] == f"left out: w8: reason {'x' * 8}"
    assert lines[9] == "left out: 21 more, for 21 other reasons; --out writes the list of all 30 beside its file"


def test_the_list_lies_beside_the_results(tmp_path: Path):
    assert left_out_file(tmp_path / "said.csv") == tmp_path / "said.left_out.json"
    assert left_out_file(None) is None


def test_the_list_replaces_only_a_list(tmp_path: Path):
    out, file = tmp_path / "said.csv", tmp_path / "said.left_out.json"
    check_left_out_file(None)
    check_left_out_file(out)
    report_left_out([LeftOut("a", "never shows head")], file)
    check_left_out_file(out, tmp_path)  # in a folder of walks, where it isn't read
    with pytest.raises(UserError, match=r"said\.left_out\.json is what is read, and would be lost"):
        check_left_out_file(out, file)
    for mine in ("mine", '{"name": "a", "reason": "b"}', '[{"name": "a"}]', '["a"]'):
        file.write_text(mine)
        with pytest.raises(
            UserError, match=r"goes beside .*said\.csv, but .*said\.left_out\.json is there already, and not a file that fastst wrote"
        ):
            check_left_out_file(out)
        assert file.read_text() == mine
