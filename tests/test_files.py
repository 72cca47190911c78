"""Files that users name: only regular ones are opened, and whatever is wrong with one is said with its name and a remedy that fits."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastst import files
from fastst.config import TrainConfig
from fastst.data import read
from fastst.data.formats.walks_npz import FORM
from fastst.data.labels import read_labels
from fastst.data.read import read_walks
from fastst.data.splits import read_split
from fastst.data.walks import DataError
from fastst.errors import UserError
from fastst.layouts import get_layout
from fastst.nn import GraphClassifier
from fastst.runs.checksum import NO_CHECKSUM, is_intact, with_checksum
from fastst.runs.comparison import compare
from fastst.runs.folder import load_checkpoint, load_model, read_lines, read_run_config, read_summary, save_checkpoint, save_model, write_summary
from fastst.runs.opened import open_run
from fastst.runs.outcomes import read_outcomes

ARGUMENTS: dict[str, Any] = {
    "layout": {"joints": ["a", "b"], "bones": [[0, 1]]},
    "num_classes": 2,
    "in_channels": 2,
    "hidden": 2,
    "heads": 1,
    "layers": 1,
    "encoder_layers": 0,
    "frames": 4,
    "hops": 1,
}


def model() -> GraphClassifier:
    return GraphClassifier(**ARGUMENTS)


def trained() -> tuple[GraphClassifier, torch.optim.Optimizer]:
    made = model()
    optimizer = torch.optim.AdamW(made.parameters())
    for parameter in made.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return made, optimizer


def untrained_checkpoint(path: Path) -> dict[str, Any]:
    made = model()
    return load_checkpoint(path, made, torch.optim.AdamW(made.parameters()))


def save_walks(path: Path, people: int = 4, **changes: Any) -> Path:
    who = np.repeat(np.arange(people), 2)
    arrays = {
        "poses": np.random.default_rng(0).normal(size=(8 * len(who), 3, 2)).astype(np.float32),
        "lengths": np.full(len(who), 8),
        "subject": np.array([f"p{person}" for person in who]),
        "label": np.where(who % 2, "sick", "well"),
        "joints": np.array(["hips", "left_knee", "right_knee"]),
        "bones": np.array([[0, 1], [0, 2]]),
    }
    np.savez(path, **{**arrays, **changes})
    return path


# Every place in which a file comes in.
DOORS: dict[str, Callable[[Path], Any]] = {
    "walks.json": read_walks,
    "walks.npz": read_walks,
    "labels.csv": read_labels,
    "split.json": lambda path: read_split(path, ["a"]),
    "split.csv": lambda path: read_split(path, ["a"]),
    "layout.json": lambda path: get_layout(str(path)),
    "model.safetensors": load_model,
    "checkpoint.safetensors": untrained_checkpoint,
    "summary.json": lambda path: read_summary(path.parent),
    "config.json": lambda path: read_run_config(path.parent),
    "metrics.jsonl": read_lines,
    "predictions.csv": read_outcomes,
}


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket", "a folder"])
@pytest.mark.parametrize("name", DOORS)
def test_what_is_no_regular_file_is_refused_at_once(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    path = tmp_path / name
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a socket":
        socket.socket(socket.AF_UNIX).bind(name)
    else:
        path.mkdir()
    if kind == "a folder" and name.startswith("walks"):
        return  # of walks, which may be called so
    with pytest.raises(UserError, match=f"{name} is {kind}, and no regular file; give a file"):
        DOORS[name](path)


def opens(call: ast.Call) -> bool:
    """Whether it reads a file by another door: `path.open()`, `path.open("rb")`, `open(path)`, `path.read_text()`."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    mode = call.args[1 if isinstance(call.func, ast.Name) else 0 :][:1]
    writes = bool(mode) and isinstance(mode[0], ast.Constant) and not str(mode[0].value).strip("bt").startswith("r")
    changes = bool(mode) and isinstance(mode[0], ast.Constant) and "+" in str(mode[0].value)
    of_archive = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") in ("archive", "os")
    return name in ("read_text", "read_bytes", "safe_open", "memmap") or (name == "open" and not (writes or changes or of_archive))


def test_there_is_no_other_door():
    """But those for what fastst itself keeps: its compiled kernels, its sources, and a lock, of which not every byte may be read; and for what the
    system says of the process."""
    package = Path(files.__file__).parent
    others = {
        f"{path.relative_to(package)}: {ast.unparse(node)}"
        for path in package.rglob("*.py")
        if path.relative_to(package).as_posix() not in ("files.py", "cpu/cache.py", "cpu/memory.py", "runs/lock.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens(node) and not ast.unparse(node).startswith("files.")
    }
    assert not others


@contextmanager
def as_nobody() -> Iterator[None]:
    """As somebody who may not read everything, as root may."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may enter, which pytest's are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", DOORS)
def test_a_file_without_the_right_to_read_it(name: str, shared: Path):
    (shared / name).write_text("x")
    (shared / name).chmod(0)
    with as_nobody(), pytest.raises(UserError, match=rf"{name} can't be read: Permission denied; get the right to read it") as raised:
        DOORS[name](shared / name)
    assert "delete" not in str(raised.value)


@pytest.mark.parametrize("name", DOORS)
def test_a_file_in_a_folder_that_may_not_be_entered(name: str, shared: Path):
    folder = shared / "locked"
    folder.mkdir()
    (folder / name).write_text("x")
    folder.chmod(0)
    with as_nobody(), pytest.raises(UserError, match=r"locked.* can't be read: Permission denied; get the right to read it"):
        DOORS[name](folder / name)


def test_a_run_without_the_right_to_look(shared: Path):
    (shared / "run").mkdir()
    (shared / "run").chmod(0)
    with as_nobody(), pytest.raises(UserError, match=r"config\.json can't be read: Permission denied"):
        open_run(shared / "run")


def test_a_file_that_goes_while_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.npz", "b.npz"):
        save_walks(tmp_path / name)
    monkeypatch.setattr(read, "track", lambda found, *_: [(tmp_path / "a.npz").unlink(), found][1])
    [left] = read_walks(tmp_path, progress=False).left_out
    assert (left.name, left.reason) == ("a", f"{tmp_path / 'a.npz'} can't be read: No such file or directory; check the name, or bring it back")


def test_what_lies_in_a_folder_and_is_no_file_is_left_out(tmp_path: Path):
    save_walks(tmp_path / "a.npz")
    os.mkfifo(tmp_path / "b.json")
    (tmp_path / "c.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "d.json").symlink_to("d.json")
    reasons = [left.reason for left in read_walks(tmp_path, progress=False).left_out]
    assert len(reasons) == 3
    for name, words in (("b", "is a pipe"), ("c", "No such file"), ("d", "links lead round in a circle; mend them")):
        assert any(f"{name}.json" in reason and words in reason for reason in reasons)


def test_an_array_of_nothing_a_million_million_times(tmp_path: Path):
    """Texts of no letters take no room in a file, and all memory as a list."""
    save_walks(tmp_path / "walks.npz")
    with zipfile.ZipFile(tmp_path / "walks.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = b"{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    members["joints.npy"] = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "walks.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=r"array 'joints' says that it is <U0 \[1000000000000\], 0 bytes, but has 0"):
        read_walks(tmp_path / "walks.npz")


# ------------------------------------------------------------------------------------------------------------- what nobody foresaw


def fails(content: object, file: object, progress: bool) -> list[Any]:
    raise KeyError("a thing\nin two lines")


def test_what_nobody_foresaw_is_a_bug_report_and_ends_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = tmp_path / "data"
    data.mkdir()
    save_walks(data / "good.npz")
    (data / "bad.npz").write_bytes(b"PK bad")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files._report.cache_clear()
    files._noted.clear()
    reads = FORM.read

    def read_or_fail(content: bytes, file: Any, progress: bool) -> list[Any]:
        return (reads if file.path.stem == "good" else fails)(content, file, progress)

    try:
        monkeypatch.setattr(read, "BINARY_FORMS", (type(FORM)(FORM.name, FORM.recognises, read_or_fail, FORM.sample),))
        walks = read_walks(data, progress=False)
        assert len(walks) == 8
        with pytest.raises(DataError) as raised:
            read_walks(data / "bad.npz")
        [report] = tmp_path.glob("fastst-*.txt")
        for message in (walks.left_out[0].reason, str(raised.value)):
            assert message.startswith(f"{data / 'bad.npz'} can't be read (KeyError: 'a thing\\nin two lines'); that nothing better")
            assert f"please report it with {report}, and leave the file out until then" in message
        text = report.read_text()
        assert text.count("Traceback") == 1  # the second is the same
        assert "in fails" in text
    finally:
        files._report.cache_clear()
        files._noted.clear()


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError, SystemExit])
def test_an_interruption_is_none_of_a_file_s_errors(error: type[BaseException]):
    with pytest.raises(error), files.reading("x"):
        raise error


def test_too_little_memory_is_said():
    with pytest.raises(DataError, match=r"x takes more memory than there is"), files.reading("x"):
        raise MemoryError


# --------------------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", ["split.json", "layout.json", "summary.json", "config.json", "walks.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": ' * 100_000, b"1" * 5000, b"\xff\xfe\xff", b'{"a"', b"\0" * 9, b'"\\ud800"', b"[1e999]"])
def test_json_that_can_t_be_used(name: str, content: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as raised:  # a UserError but for layouts, which are also made in Python
        DOORS[name](tmp_path / name)
    assert "mistake" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_too_large_for_its_kind(tmp_path: Path):
    with (tmp_path / "layout.json").open("wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no room on a disk
    with pytest.raises(ValueError, match=r"layout\.json is larger than 256 MiB"):
        get_layout(str(tmp_path / "layout.json"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("hops", [1]), ("hops", True), ("layers", 2.5), ("data", 3), ("planted", "nose"), ("mirror", 1), ("image_size", [1, 2, 3]), ("labels", {})],
)
def test_a_configuration_with_a_value_of_the_wrong_type(name: str, value: Any, tmp_path: Path):
    fields = json.loads(TrainConfig().to_json())
    (tmp_path / "config.json").write_text(json.dumps(fields))
    read_run_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**fields, name: value}))
    with pytest.raises(UserError, match=rf"config\.json is not the configuration of a run: {name} is .*; bring it back from a copy"):
        read_run_config(tmp_path)


@pytest.mark.parametrize("fields", [{"joints": 3, "bones": []}, {"joints": ["a", "b"], "bones": [[0, []]]}, {"joints": ["a"], "bones": 1, "name": 2}])
def test_a_layout_with_a_value_of_the_wrong_type(fields: dict[str, Any], tmp_path: Path):
    (tmp_path / "mine.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"mine\.json is no layout"):
        get_layout(str(tmp_path / "mine.json"))


# ---------------------------------------------------------------------------------------------------------------------- checksums


def flipped(content: bytes, bit: int) -> bytes:
    return content[: bit // 8] + bytes([content[bit // 8] ^ (1 << bit % 8)]) + content[bit // 8 + 1 :]


def test_every_flipped_bit_is_found():
    content = with_checksum(json.dumps({**NO_CHECKSUM, "of a class": '"sha256":"' + "0" * 64, "score": 0.25}).encode())
    assert is_intact(content)
    assert not any(is_intact(flipped(content, bit)) for bit in range(8 * len(content)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_model(folder / "model.safetensors", model(), ARGUMENTS, ["a", "b"])
    save_checkpoint(folder / "checkpoint.safetensors", *trained(), {"epoch": 1})
    write_summary(folder, {"macro_f1": 0.25, "classes": ["a", "0" * 64, "健康"]})
    return folder


def test_what_was_written_is_read(run: Path):
    _, arguments, classes = load_model(run / "model.safetensors")
    assert (arguments, classes) == (ARGUMENTS, ["a", "b"])
    assert untrained_checkpoint(run / "checkpoint.safetensors") == {"epoch": 1}
    assert read_summary(run) == {"macro_f1": 0.25, "classes": ["a", "0" * 64, "健康"]}
    assert read_summary(run / "nowhere") is None


def test_others_can_read_the_weights(run: Path):
    weights = load_file(run / "model.safetensors")
    assert weights.keys() == model().state_dict().keys()


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.safetensors", "summary.json"])
def test_a_flipped_bit_in_a_file_of_a_run_is_said_with_the_remedy(name: str, run: Path, tmp_path: Path):
    content = (run / name).read_bytes()
    rng = np.random.default_rng(0)
    for bit in sorted({*rng.integers(8 * len(content), size=100).tolist(), *range(64), *(8 * len(content) - 1 - np.arange(64)).tolist()}):
        (tmp_path / name).write_bytes(flipped(content, bit))
        with pytest.raises(UserError, match=rf"{name} .*; copy it again from where it was written, or delete it") as raised:
            DOORS[name](tmp_path / name)
        assert "mistake" not in str(raised.value)
        assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.safetensors", "summary.json"])
@pytest.mark.parametrize("length", [0, 5, 8, 100, -1])
def test_a_file_of_a_run_that_is_cut_off(name: str, length: int, run: Path, tmp_path: Path):
    (tmp_path / name).write_bytes((run / name).read_bytes()[:length])
    with pytest.raises(UserError, match=rf"{name} .*; copy it again"):
        DOORS[name](tmp_path / name)


def test_a_file_without_a_checksum_is_called_so(tmp_path: Path):
    for text in ('{"macro_f1": 0.25}', "null", "-1", "[]"):
        (tmp_path / "summary.json").write_text(text)
        with pytest.raises(UserError, match=r"summary\.json has no checksum: fastst\.train did not write it; copy it again"):
            read_summary(tmp_path)
    save_file(model().state_dict(), tmp_path / "model.safetensors", {"format": "fastst model 1", "model": "{}", "classes": "[]"})
    with pytest.raises(UserError, match=r"model\.safetensors has no checksum: it is damaged, or fastst\.train did not write it"):
        load_model(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    save_file(model().state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"is a safetensors file, but not a model of fastst \(its format is None\)"):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "arguments", [[], {"hidden": [1]}, {**ARGUMENTS, "hidden": "wide"}, {**ARGUMENTS, "layout": 3}, {**ARGUMENTS, "num_classes": -1}]
)
def test_a_model_with_arguments_of_the_wrong_type(arguments: Any, tmp_path: Path):
    save_model(tmp_path / "model.safetensors", model(), arguments, ["a", "b"])
    with pytest.raises(UserError, match=r"is a model of fastst that can't be built: .*; copy it again"):
        load_model(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"is not a checkpoint of fastst, but 'fastst model 1'"):
        untrained_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize("summary", [{}, {"kept_share": [0.5]}])
def test_a_summary_without_what_is_asked_of_it(summary: dict[str, Any], tmp_path: Path):
    """Of another version, or signed anew by somebody who changed it."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        (folder / "config.json").write_text(TrainConfig().to_json())
        write_summary(folder, summary)
    with pytest.raises(UserError, match=r"summary\.json is not as fastst\.train writes it \((Key|Type)Error.*\); copy it again"):
        compare([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("classes", [[], ["a"], ["a", "b", "c"], "ab", 2, [["a"], "b"]])
def test_a_model_that_names_other_classes_than_it_has(classes: Any, tmp_path: Path):
    save_model(tmp_path / "model.safetensors", model(), ARGUMENTS, classes)
    with pytest.raises(UserError, match=r"is a model of fastst that can't be built: (Value|Type)Error: it.* class"):
        load_model(tmp_path / "model.safetensors")


def test_a_checkpoint_of_something_else(tmp_path: Path):
    other = torch.nn.Linear(2, 2)
    save_checkpoint(tmp_path / "a.safetensors", other, torch.optim.AdamW(other.parameters()), {})
    with pytest.raises(UserError, match=r"is a checkpoint of another model: .*; copy it again from where it was written, or delete it, and"):
        untrained_checkpoint(tmp_path / "a.safetensors")
