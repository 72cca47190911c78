"""Damage of the kinds that a file suffers, and of the kinds that somebody does to it: by its bytes, and by what its form is made of."""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

_RAW = {"@DIGITS@": "9" * 5000, "@DEEP@": "[" * 5000 + "]" * 5000, "@DEEPER@": '{"a":' * 3000 + "1" + "}" * 3000}  # which json does not write
_TEXTS = (
    "",
    "\x1b[31mred\x1b]0;title\x07",
    "right\u202eleft",
    "\ud800",
    "\x00",
    "\x9b31m",
    "a\nb",
    "zero\u200bwidth",
    "x" * 5000,
    "../../../up",
    "/dev/zero",
    "nan",
    "1,5",
    "王小明",
    "سلام",
    "🚶",
    "\r",
    "=cmd()",
)
_NUMBERS = (0, -1, 1, 0.5, 1e308, -1e308, 1e-320, float("nan"), float("inf"), 2**31, 2**63, 2**64, -(2**63) - 1, 65536, 1_000_000_007)
_VALUES: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"x": 1}, [None], *_RAW, *_TEXTS, *_NUMBERS)
_BOMB = 1 << 26  # bytes of a member that is packed to almost nothing


_SUM = re.compile(rb'"sha256": ?"([0-9a-f]{64})"')


def signed(data: bytes) -> bytes:
    """The file with a checksum that fits, if it carries one: SHA-256 of all of it, with zeros in the checksum's place."""
    field = _SUM.search(data)
    if field is None:
        return data
    start, end = field.span(1)
    return data[:start] + hashlib.sha256(data[:start] + b"0" * 64 + data[end:]).hexdigest().encode() + data[end:]


def mutate(data: bytes, seed: int) -> bytes:
    """The file with some damage, which follows from `seed`. Half of them carry a checksum that fits, so that what is behind it is tried too."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        for change in (_of_form(data), damage):
            changed = _tried(change, data, rng) if change is damage or rng.random() < 0.75 else None
            if changed is not None and changed != data:
                data = changed
                break
    return signed(data) if rng.random() < 0.5 else data


def _tried(change: Callable[[bytes, random.Random], bytes], data: bytes, rng: random.Random) -> bytes | None:
    try:
        return change(data, rng)
    except Exception:  # it is so damaged already that its form is not to be seen
        return None


def _of_form(data: bytes) -> Callable[[bytes, random.Random], bytes]:
    if data[:2] == b"PK":
        return _zip
    if data[8:9] == b"{":
        return _safetensors
    if data.lstrip()[:1] in (b"{", b"["):
        return _json_lines if data.count(b"\n{") else _json
    if data[:1] == b"\x80":
        return _pickle
    return _text if b"\0" not in data[:64] or data[:2] in (b"\xff\xfe", b"\xfe\xff") else damage


def damage(data: bytes, rng: random.Random) -> bytes:
    """Of bytes that are taken for nothing but bytes."""
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 64, 512))
    kind = rng.randrange(8)
    if kind == 0:  # cut off, as by a full disk
        return data[:at]
    if kind == 1 and data:  # a bit, as by a bad disk
        return data[: at - 1] + bytes([data[at - 1] ^ (1 << rng.randrange(8))]) + data[at:]
    if kind == 2:  # a hole, as by a crash
        return data[:at] + bytes(length) + data[at + length :]
    if kind == 3:
        return data[:at] + rng.randbytes(length) + data[at + length :]
    if kind == 4:
        return data[:at] + data[at + length :]
    if kind == 5:
        return data[:at] + data[at : at + length] * rng.choice((2, 2, 100)) + data[at + length :]
    if kind == 6:
        return data[:at] + rng.choice(_TEXTS).encode("utf-8", "surrogatepass") + data[at:]
    return data[:at] + struct.pack("<q", rng.choice((0, -1, 2**31 - 1, 2**63 - 1, 255)))[: rng.choice((2, 4, 8))] + data[at + length :]


def _json(data: bytes, rng: random.Random) -> bytes:
    return _dumped(_changed(json.loads(data), rng))


def _json_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = _json(lines[at], rng)
    return b"\n".join(lines) + b"\n"


def _dumped(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    for name, raw in _RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode("utf-8", "surrogatepass")


def _changed(value: Any, rng: random.Random) -> Any:
    """With another value, or none, or two, at a random place."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key, kind = rng.choice(keys), rng.random()
        if kind < 0.75:
            value[key] = _changed(value[key], rng)
        elif kind < 0.85:
            del value[key]
        elif isinstance(value, list):
            value.insert(key, value[rng.choice(keys)])
        else:
            value[str(rng.choice(_TEXTS))] = value.pop(key)
        return value
    if isinstance(value, (int, float)) and rng.random() < 0.4:
        return rng.choice(_NUMBERS)
    return rng.choice(_VALUES)


def _text(data: bytes, rng: random.Random) -> bytes:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = data.decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    lines = text.split("\n")
    at, kind = rng.randrange(len(lines)), rng.randrange(8)
    if kind < 4:  # another cell
        separator = max(",;\t ", key=lines[0].count)
        cells = lines[at].split(separator)
        cells[rng.randrange(len(cells))] = str(rng.choice((*_TEXTS, *_NUMBERS, _RAW["@DIGITS@"], '"', "'", "1e400", "1.234,5")))
        lines[at] = separator.join(cells)
    elif kind == 4:
        del lines[at]
    elif kind == 5:
        lines.insert(at, rng.choice(lines))
    elif kind == 6:
        lines[at] = rng.choice(_TEXTS)
    else:
        encoding = rng.choice(("utf-16", "utf-16-be", "utf-8-sig", "latin-1", "utf-32"))
    return "\n".join(lines).encode(encoding, "replace" if encoding == "latin-1" else "surrogatepass")


def _zip(data: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist() if info.file_size <= _BOMB]
    at, kind = rng.randrange(len(members)), rng.randrange(9)
    name, content = members[at]
    if kind < 3:
        members[at] = name, _npy(content, rng)
    elif kind == 3:
        members[at] = name, damage(content, rng)
    elif kind == 4:
        members[at] = rng.choice(("../../up.npy", "/tmp/x.npy", "poses", "a\x1b[31m.npy", "x.txt", "lengths.npy")), content
    elif kind == 5:
        del members[at]
    elif kind == 6:
        members.append((rng.choice(("notes.txt", "split.npy", "__MACOSX/poses.npy")), rng.choice((b"", b"hello", content))))
    elif kind == 7:
        members[at] = name, content[:128] + bytes(_BOMB)
    packed = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if kind == 7 or rng.random() < 0.5 else zipfile.ZIP_STORED
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(packed, "w", method) as archive:  # of two members with one name
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)  # of no time
    result = bytearray(packed.getvalue())
    if kind == 8:  # encrypted, it says, or of another size or method
        directory = result.index(b"PK\x01\x02")
        flags, method, size = directory + 8, directory + 10, directory + 24
        place, value = rng.choice(((flags, b"\1\0"), (method, b"\x63\0"), (size, b"\xff\xff\xff\x7f"), (size - 4, b"\xff\xff\xff\x7f")))
        result[place : place + len(value)] = value
    return bytes(result)


def _npy(content: bytes, rng: random.Random) -> bytes:
    """An array's file with another header."""
    length = struct.unpack_from("<H", content, 8)[0]
    header = content[10 : 10 + length].decode("latin-1")
    words = [("'<f4'", "'|O'"), ("'<f4'", "'<U5'"), ("'<f4'", "'<c8'"), ("'<f4'", "[('a','<f4')]"), ("(", "(99999999999,"), ("(", "(-1,")]
    words += [("False", "True"), ("'<i8'", "'<M8[s]'"), ("'<i8'", "'<f8'"), ("'<U", "'<S"), ("'shape'", "'shapes'"), ("(", "(0,")]
    words += [("{", "__import__('os')")]
    before, after = rng.choice([pair for pair in words if pair[0] in header])
    changed = header.replace(before, after, 1).rstrip("\n ").ljust(length - 1) + "\n"
    return content[:8] + struct.pack("<H", len(changed)) + changed.encode("latin-1") + content[10 + length :]


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    """Another header; what it says of the model, the classes or the training is JSON in JSON."""
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    texts = [key for key, value in header.get("__metadata__", {}).items() if value[:1] in ("{", "[")]
    if texts and rng.random() < 0.7:
        key = rng.choice(texts)
        header["__metadata__"][key] = _dumped(_changed(json.loads(header["__metadata__"][key]), rng)).decode("utf-8", "replace")
    else:
        header = _changed(header, rng)
    text = _dumped(header)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _pickle(data: bytes, rng: random.Random) -> bytes:
    """The program with a step left out, taken twice, or with another number or text."""
    steps = [place for _, _, place in pickletools.genops(data)] + [len(data)]
    at = rng.randrange(len(steps) - 1)
    step, other = data[steps[at] : steps[at + 1]], rng.randrange(len(steps) - 1)
    call = b"cposix\nsystem\n(X\x21\x00\x00\x00echo run > /tmp/fastst-fuzzed-codetR"
    text = rng.choice(_TEXTS).encode("utf-8", "surrogatepass")
    text = b"X" + struct.pack("<I", len(text)) + text
    new = rng.choice((b"", step * 2, data[steps[other] : steps[other + 1]], call, b"N", b"}", b"]", b"K\xff", text))
    return data[: steps[at]] + new + data[steps[at + 1] :]
