"""Recorded walks from whatever form they are in."""

from __future__ import annotations

from pathlib import Path

from fastst.data.alphapose import read_alphapose
from fastst.data.pose_csv import read_pose_csv
from fastst.data.walks import DataError, WalkSet
from fastst.data.walks_npz import read_walks_npz

_ACCEPTED = "give a pose CSV (.csv), walks in NumPy arrays (.npz) or a folder of AlphaPose results (.json)"


def read_walks(path: str | Path, progress: bool = True) -> WalkSet:
    """Read walks: a folder with `read_alphapose`, a `.csv` file with `read_pose_csv`, a `.npz` file with `read_walks_npz`.

    Raises:
        DataError: nothing is there, it is none of these, or its reader can't use it.
    """
    path = Path(path)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from None
    if path.is_dir():
        return read_alphapose(path, progress)
    if not path.exists():
        raise DataError(f"{path} doesn't exist; {_ACCEPTED}")
    if path.suffix.lower() == ".csv":
        return read_pose_csv(path, progress)
    if path.suffix.lower() == ".npz":
        return read_walks_npz(path)
    raise DataError(f"{path} is of no kind that can be read; {_ACCEPTED}")
