"""No pickle runs code, fills the memory or gets anything but data through; what is data comes out as it went in."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import functools
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastst.data.formats import pickles, unpickler
from fastst.data.formats.unpickler import Array, unpickle
from fastst.data.walks import DataError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ALARM = "the file's code has run"


def plain(value: Any) -> Any:
    """Arrays as dtype and lists, so that they compare."""
    if isinstance(value, Array):
        value = value.value
    if isinstance(value, np.ndarray):
        return str(value.dtype.newbyteorder("=")), value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


DATA = {
    "rows": np.arange(6.0).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
    "part": np.arange(12, dtype=np.int64)[::2],
    "big end first": np.arange(3, dtype=">i4"),
    "yes and no": np.array([True, False]),
    "texts": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "nothing": np.zeros((0, 17, 3)),
    "scalar": np.array(3.5),
    "containers": [
        (1, 2),
        {3},
        frozenset([4]),
        collections.OrderedDict(five=6),
        b"",
        b"\xff\0",
        bytearray(b"\xff"),
        bytearray(),
        None,
        True,
        -(2**70),
    ],
    "ä/b": "健康",
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_data_comes_out_as_it_went_in(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(DATA, protocol))
    assert pickles.FORM.recognises(path.read_bytes())
    assert plain(unpickle(path)) == plain(DATA)
    for value in (np.float32(1.5), np.int64(-3), np.str_("hä"), np.bool_(True)):
        path.write_bytes(pickle.dumps(value, protocol))
        read = unpickle(path)
        assert read == value.item()
        assert type(read) is type(value.item())


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray", b"numpy.multiarray"])
def test_names_of_both_numpys(tmp_path: Path, module: bytes) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(np.arange(3.0), 2).replace(b"cnumpy._core.multiarray\n", b"c" + module + b"\n"))
    assert plain(unpickle(path)) == ("float64", [0, 1, 2])


def test_python_2(tmp_path: Path) -> None:
    """There strings are bytes, and so are the numbers of an array."""
    state = b"(I1\n(I2\ntp1\ncnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x00\\x80?\\x00\\x00\\x00@'\ntb."
    content = b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" + state
    assert pickle.loads(content, encoding="latin-1").tolist() == [1, 2]
    assert pickles.FORM.recognises(content)
    path = tmp_path / "data.pkl"
    path.write_bytes(content)
    assert plain(unpickle(path)) == ("float32", [1, 2])


class Reduced:
    """Pickled as a call of anything with anything."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def alarm() -> None:
    raise AssertionError(ALARM)


CALLS: dict[str, Any] = {
    "system": Reduced(os.system, f"touch {ALARM}"),
    "eval": Reduced(eval, "alarm()"),
    "exec": Reduced(exec, "raise AssertionError"),
    "partial": Reduced(functools.partial, alarm),
    "getattr": Reduced(getattr, "x", "join"),
    "import": Reduced(__import__, "os"),
    "popen": Reduced(subprocess.Popen, ["touch", ALARM]),
    "own": Reduced(alarm),
    "numpy.load": Reduced(np.load, "x.npy"),
    "numpy.fromfile": Reduced(np.fromfile, "/etc/passwd", "u1"),
    "memmap": Reduced(np.memmap, "/etc/passwd"),
    "path": Path("/etc"),
    "class": np.float32,
    "object": object(),
    "type": type,
    "in a list": [1, {"a": (Reduced(os.system, f"touch {ALARM}"),)}],
    "as a key": {Reduced(os.getcwd): 1},
    "masked": np.ma.array([1.0]),
    "with a name of an attribute": Reduced(os.path.join, "a"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(CALLS[name], protocol))
    with pytest.raises(DataError, match=r"data\.pkl is not read: it names '[\w.]+', and what a pickle names it may run; expected arrays") as caught:
        unpickle(path)
    assert "write it anew" in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n"
NDARRAY = b"cnumpy\nndarray\n"


def with_state(state: Any) -> bytes:
    """An array with a state of any kind."""
    return RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntS'b'\ntR" + pickle.dumps(state, 0)[:-1] + b"b."


def dtype_state(dtype: bytes, change: bytes, shape: bytes = b"(I1\nt", data: bytes = b"S'\\x00'\n") -> bytes:
    """An array of a dtype that the file changes after it was made."""
    return RECONSTRUCT + b"(" + NDARRAY + b"(I0\ntS'b'\ntR(I1\n" + shape + DTYPE + b"(" + dtype + b"tR" + change + b"I00\n" + data + b"tb."


HUGE = struct.pack("<Q", 1 << 62)
BY_HAND: dict[str, bytes] = {
    "system, no magic": b"cos\nsystem\n(S'touch x'\ntR.",
    "system as an instance": b"(S'touch x'\nios\nsystem\n.",
    "system as an object": b"(cos\nsystem\nS'touch x'\no.",
    "eval of Python 2": b"c__builtin__\neval\n(S'alarm()'\ntR.",
    "execfile": b"c__builtin__\nexecfile\n(S'/etc/passwd'\ntR.",
    "attribute of an admitted one": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile.f\x93.",
    "an admitted class is no class": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "new with keywords": b"\x80\x04cnumpy\nndarray\n)}\x92.",
    "ndarray is called": NDARRAY + b"(I1000000000000\ntR.",
    "state of a callable": RECONSTRUCT + b"(S'__code__'\nS'x'\ndb.",
    "slots of a callable": RECONSTRUCT + b"(N(S'_make'\nS'x'\ndtb.",
    "another class's array": RECONSTRUCT + b"(S'x'\n(I0\ntS'b'\ntR.",
    "a dtype for a class": RECONSTRUCT + b"(" + DTYPE + b"(I0\ntS'b'\ntR.",
    "array without state elements": with_state((1, 2)),
    "array with a dict for a state": with_state({"a": 1}),
    "lying shape": dtype_state(b"S'f4'\n", b"", b"(I1000\nI1000\nt"),
    "negative shape": dtype_state(b"S'u1'\n", b"", b"(I-1\nI-1\nt"),
    "shape of texts": dtype_state(b"S'u1'\n", b"", b"(S'a'\nt"),
    "objects": dtype_state(b"S'O'\n", b""),
    "objects by another name": dtype_state(b"S'O8'\n", b""),
    "fields": dtype_state(b"S'V8'\n", b""),
    "fields set later": dtype_state(b"S'u1'\n", b"(I3\nS'|'\nN(S'a'\nt(S'a'\nS'O'\ndI8\nI1\nI63\ntb"),
    "a subarray": dtype_state(b"S'u1'\n", b"(I3\nS'|'\n(S'O'\n(I1\ntt" + b"NNI-1\nI-1\nI0\ntb"),
    "a list of dtypes": dtype_state(b"(lS'O'\na", b""),
    "a date": dtype_state(b"S'M8[s]'\n", b""),
    "a comma": dtype_state(b"S'f4,O'\n", b""),
    "numbers of another kind": dtype_state(b"S'u1'\n", b"", data=b"(lI1\na"),
    "encoded numbers": b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
    "decoded numbers": b"c_codecs\ndecode\n(S'x'\nS'zlib'\ntR.",
    "a set of a number": b"c__builtin__\nset\n(I1000000000\ntR.",
    "a bytearray of a number": b"c__builtin__\nbytearray\n(I100000000000\ntR.",
    "bytes of a number": b"c__builtin__\nbytes\n(I100000000000\ntR.",
    "persistent": b"P123\n.",
    "persistent, binary": b"\x80\x02K\x01Q.",
    "out of band": b"\x80\x05\x97.",
    "out of band, read only": b"\x80\x05\x97\x98.",
    "extension": b"\x80\x02\x82\x01.",
    "bytes without end": b"\x80\x04\x8e" + HUGE + b"x.",
    "bytearray without end": b"\x80\x05\x96" + HUGE + b"x.",
    "more than a size can be": b"\x80\x05\x96" + b"\xff" * 8 + b"x.",
    "bytearray of 100 GB": b"\x80\x05\x96" + struct.pack("<Q", 10**11) + b"x.",
    "text without end": b"\x80\x04\x8d" + HUGE + b"x.",
    "frame without end": b"\x80\x04\x95" + HUGE + b"K\x01",
    "number without end": b"\x80\x02\x8b\xff\xff\xff\x7fx.",
    "5,000 digits": b"I" + b"9" * 5000 + b"\n.",
    "5,000 digits and an L": b"L" + b"9" * 5000 + b"L\n.",
    "a protocol to come": b"\x80\x63K\x01.",
    "nothing remembered": b"\x80\x02h\x09.",
    "nothing on the stack": b"\x80\x02.",
    "an unknown instruction": b"\x80\x02\xfe.",
    "no end": b"\x80\x02K\x01",
    "a list is no key": b"(](I1\nd.",
    "appended to a number": b"I1\nI2\na.",
    "a number is called": b"I1\n(tR.",
    "no utf-8": b"\x80\x04\x8c\x02\xff\xfe.",
    "no module": b"c\nsystem\n(tR.",
}


@pytest.mark.parametrize("name", BY_HAND)
def test_no_pickle_gets_anything_else_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In an empty folder, where `touch` would be seen, and with room for little, where what a file announces would not fit."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.pkl"
    path.write_bytes(BY_HAND[name])
    with pytest.raises(DataError, match=r"data\.pkl is not (read: it|a complete pickle \(\w+:)"):
        unpickle(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_objects(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(np.array([1, "a", None], dtype=object), protocol))
    with pytest.raises(DataError, match="it has an array of dtype 'O8'; expected plain numbers or texts, no Python objects"):
        unpickle(path)


def test_what_others_have_registered_is_not_taken(tmp_path: Path) -> None:
    copyreg.add_extension("os", "system", 77)
    try:
        for is_cached in (False, True):
            if is_cached:
                assert pickle.loads(b"\x80\x02\x82\x4d.") is os.system  # from now on it is kept where a file could reach it
            path = tmp_path / "data.pkl"
            path.write_bytes(b"\x80\x02\x82\x4dX\x01\x00\x00\x00x\x85R.")
            with pytest.raises(DataError, match="is not a complete pickle"):
                unpickle(path)
    finally:
        copyreg.remove_extension("os", "system", 77)
        copyreg.clear_extension_cache()


SMALL = [
    b"\x80\x02K\x01r\xff\xff\xff\x7f0K\x02.",  # remembered as the two billionth thing
    b"I1\np2147483647\n0I2\n.",
    b"\x80\x05\x96" + struct.pack("<Q", 1 << 32) + b"x0K\x02.",
    b"\x80\x04\x8e" + struct.pack("<Q", 1 << 32) + b"x0K\x02.",
    b"\x80\x02]q\x01(" + b"h\x01" * 1000 + b"e" + b"2\x86" * 200 + b"0K\x02.",  # a list of itself, in pairs of pairs
    RECONSTRUCT + b"(" + NDARRAY + b"(I1000000000000\ntS'b'\ntR0I2\n.",
]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the memory used")
def test_small_files_take_little_memory(tmp_path: Path) -> None:
    """In a process of its own, whose peak is told by the system."""
    for number, content in enumerate(SMALL):
        (tmp_path / f"{number}.pkl").write_bytes(content)
    code = (
        "import pathlib, sys; from fastst.cpu.memory import peak_memory; from fastst.data.formats.unpickler import unpickle, DataError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    before = peak_memory()\n"
        "    try: unpickle(path)\n"
        "    except DataError: pass\n"
        "    print(peak_memory() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert [int(line) < 20_000_000 for line in done.stdout.splitlines()] == [True] * len(SMALL)  # bytes


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mapped file the system would end the process."""
    path = tmp_path / "walks.pkl"
    path.write_bytes(pickle.dumps([np.zeros(100_000), np.ones(100_000)]))

    class CutOff(unpickler._File):
        def __init__(self, file: BinaryIO) -> None:
            super().__init__(file)
            os.truncate(path, 900_000)

    monkeypatch.setattr(unpickler, "_File", CutOff)
    with pytest.raises(DataError, match=r"walks\.pkl is not a complete pickle .*; copy it again"):
        unpickle(path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 10_000), at=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), protocol=st.sampled_from(PROTOCOLS)
)
@example(cut=0, at=[], protocol=4)
def test_damaged_pickles(tmp_path: Path, cut: int, at: list[tuple[int, int]], protocol: int) -> None:
    """Whatever is changed of a file, it is read or refused."""
    content = bytearray(pickle.dumps(DATA, protocol))
    for place, byte in at:
        content[place % len(content)] = byte
    path = tmp_path / "data.pkl"
    path.write_bytes(content[: max(len(content) - cut % len(content), 1)])
    with contextlib.suppress(DataError):
        unpickle(path)


def test_text_is_no_pickle() -> None:
    for head in (b'{"a": 1}', b"[1, 2]", b"image_name,nose_x\n", b"20\n0\n0\n", b"col\n1\n2\n", b"PK\3\4", b"c3d\n", b"(a, b)\n1\n", b"l\n"):
        assert not pickles.FORM.recognises(head), head
