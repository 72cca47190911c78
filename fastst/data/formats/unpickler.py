"""Unpickling without running code: arrays, scalars and plain containers come out of a pickle, and nothing else does.

A pickle is a program. Of what it may call there is nothing left here but the makers of arrays and containers, and these are not NumPy's own: NumPy's
take state on trust (an array of pointers, say, that are the file's bytes). Stand-ins note what the file says, check it, and make the array at last.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from fastst.data.walks import DataError
from fastst.files import open_file

_ADMITTED = "arrays, numbers, texts, lists, tuples, dicts and sets"
_DTYPE = re.compile(r"[<>=|]?(?:[?bBhHiIlLqQefd]|b1|[iu][1248]|f[248]|[US]\d{1,4})", re.ASCII)


class _Refused(pickle.UnpicklingError):
    """A file that asks for more than data."""


class Array:
    """An array of the file, made when it is `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, is_fortran, data = state
        self.value = _made(data, dtype, shape, "F" if is_fortran else "C")


class _DType:
    """A dtype of plain numbers or texts; a file changes its byte order after it has made it."""

    __slots__ = ("value",)

    def __init__(self, code: str) -> None:
        if not isinstance(code, str) or _DTYPE.fullmatch(code) is None:
            raise _Refused(f"it has an array of dtype {str(code)[:40]!r}; expected plain numbers or texts, no Python objects")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, byte_order, subarray, names, fields = state[:5]
        if byte_order not in ("<", ">", "=", "|") or not subarray is names is fields is None:
            raise _Refused("it has an array with fields; expected plain numbers or texts")
        self.value = self.value.newbyteorder(byte_order)


class _Admitted:
    """Something that a file may call. It is no class and takes no state, so that a file can't change it or make something else with it."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: object) -> None:
        raise _Refused(f"it sets {name!r} of a callable")

    def __setstate__(self, state: object) -> None:
        raise _Refused("it sets the state of a callable")


def _made(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise _Refused("it has an array without shape or dtype")
    if isinstance(data, str):  # bytes, as Python 2 writes them
        data = data.encode("latin-1")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise _Refused(f"it has an array whose numbers are of type {type(data).__name__}, expected bytes")
    announced = math.prod(shape) * dtype.value.itemsize
    if announced != len(data):
        raise _Refused(f"it has an array that says it is {dtype.value} {list(shape)}, {announced} bytes, but has {len(data)}")
    return np.frombuffer(data, dtype.value).reshape(shape, order="F" if order == "F" else "C") if data else np.zeros(shape, dtype.value)


def _begin_array(kind: Any, *_shape_and_dtype: Any) -> Array:
    if kind is not _NDARRAY:
        raise _Refused(f"it has an array of type {type(kind).__name__}, expected numpy.ndarray")
    return Array()


def _array_of_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.value = _made(data, dtype, shape, order)
    return array


def _scalar(dtype: Any, data: Any = None) -> Any:
    return _made(data, dtype, (), "C").item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes in the protocols that have none."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("it encodes something that is no text")
    return text.encode("latin-1")


def _no_array(*_arguments: Any) -> None:
    raise _Refused("it calls numpy.ndarray, which no pickle of an array does")


def _dtype(code: Any = None, *_align_and_copy: Any) -> _DType:
    return _DType(code)


def _items(items: Any = ()) -> Any:
    if not isinstance(items, list | tuple):
        raise _Refused(f"it has a container made of a {type(items).__name__}")
    return items


_NDARRAY = _Admitted(_no_array)
_CALLABLES = {
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Admitted(_dtype),
    "numpy.multiarray._reconstruct": _Admitted(_begin_array),
    "numpy.multiarray.scalar": _Admitted(_scalar),
    "numpy.numeric._frombuffer": _Admitted(_array_of_buffer),
    "_codecs.encode": _Admitted(_encode),
    "builtins.bytes": _Admitted(lambda: b""),
    "builtins.bytearray": _Admitted(lambda *text: bytearray(text[0] if text and isinstance(text[0], bytes) else _encode(*text) if text else b"")),
    "builtins.set": _Admitted(lambda *items: set(_items(*items))),
    "builtins.frozenset": _Admitted(lambda *items: frozenset(_items(*items))),
    "collections.OrderedDict": _Admitted(lambda *items: dict(_items(*items))),
}


class _Unpickler(pickle._Unpickler):
    """Python's own, and not the one in C, which makes room for as many remembered things as five bytes of a file ask for."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    for code in (pickle.EXT1, pickle.EXT2, pickle.EXT4):  # what others have registered with copyreg is not for a file to take
        del dispatch[code[0]]
    read: Callable[[int], bytes]
    append: Callable[[Any], None]

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 has moved its core to _core, and Python 3 Python 2's __builtin__.
        known = f"{module}.{name}".replace("__builtin__.", "builtins.", 1).replace("numpy._core.", "numpy.", 1).replace("numpy.core.", "numpy.", 1)
        if known not in _CALLABLES:
            raise _Refused(f"it names {f'{module}.{name}'[:80]!r}, and what a pickle names it may run; expected {_ADMITTED} and nothing else")
        return _CALLABLES[known]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"it refers to something outside the file; expected {_ADMITTED}")

    def load_bytearray8(self) -> None:
        """As it is inherited, but without making room for more bytes than there are."""
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(min(count, sys.maxsize))))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


class _File:
    """A file that can't make a read larger than it is itself. (A mapped one would end the process if it is cut off meanwhile.)"""

    def __init__(self, file: BinaryIO) -> None:
        self._read, self._size, self.readline = file.read, os.fstat(file.fileno()).st_size, file.readline

    def read(self, count: int) -> bytes:
        return self._read(min(count, self._size))


def unpickle(path: Path) -> Any:
    """What a pickle holds: plain containers, numbers, texts and `Array`. No code of the file's choice runs.

    Raises:
        DataError: the file is damaged, or asks for anything else.
    """
    advice = f"write it anew with {_ADMITTED}"
    try:
        with open_file(path) as file:
            return _Unpickler(_File(file), encoding="latin-1").load()
    except (DataError, OSError):
        raise
    except _Refused as error:
        raise DataError(f"{path} is not read: {error}; {advice}") from None
    except Exception as error:  # a damaged pickle is a program gone wild and can raise anything
        raise DataError(f"{path} is not a complete pickle ({type(error).__name__}: {str(error)[:200]}); copy it again, or {advice}") from None
