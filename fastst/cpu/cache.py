"""Compiled kernels on disk, which can be done without: what is damaged is compiled again, and where nothing can be kept nothing is.

numba's own cache ends a program with an error where a file is damaged, the disk full or no folder can be written; and two processes that fill it at
once can put one kernel's code under another's name, since an index says what is where. Here the name of a file follows from what is in it, which
starts with its SHA-256.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

_LOG = logging.getLogger("fastst")
_DIGEST_BYTES = hashlib.sha256().digest_size


def keep(kernel: Any) -> Any:
    """The numba function, from now on with a cache on disk if there can be one."""
    try:
        kernel._cache = _Cache(kernel.py_func)
    except (RuntimeError, OSError) as error:  # numba's word for "no folder can be written" is the first
        _say_once(f"compiled kernels can't be kept on disk, and are compiled at every start: {error}")
    return kernel


class _Cache(FunctionCache):
    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, (self._impl.locator.get_source_stamp(), _sources()))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever is wrong with it, it can be compiled again
            _LOG.info("a compiled kernel in %s can't be used (%s) and is compiled again", self._cache_path, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _say_once(f"compiled kernels can't be kept in {self._cache_path}, and are compiled at every start: {error}")


class _Files(IndexDataCacheFile):
    """A file for every kernel, kind of arguments and processor."""

    def save(self, key: Any, data: Any) -> None:
        path = self._path(key)
        content = self._dump((os.path.basename(path), key, data))
        with self._open_for_write(path) as file:
            file.write(hashlib.sha256(content).digest() + content)

    def load(self, key: Any) -> Any:
        path = self._path(key)
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
            raise ValueError("its checksum is wrong")
        name, kept_key, data = pickle.loads(content[_DIGEST_BYTES:])
        return data if (name, kept_key) == (os.path.basename(path), key) else None

    def flush(self) -> None:
        """Nothing: what is not wanted any more has other names."""

    def _path(self, key: Any) -> str:
        told = repr((key, self._source_stamp, numba.__version__)).encode()
        return self._data_path(self._data_name_pattern.replace("{number:d}", hashlib.sha256(told).hexdigest()[:24]))


@functools.cache
def _sources() -> str:
    """A digest of all kernels' sources: numba itself looks at a kernel's own file alone, and not at those of the functions in it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _say_once(message: str) -> None:
    _LOG.warning(message)
