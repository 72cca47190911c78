"""Files that are often where poses are, and hold none that can be read: called by their names, with what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fastst.data.walks import DataError

_VIDEO = "run a pose estimator on it, such as AlphaPose, MMPose or YOLO-pose, and give what that writes"
_ARCHIVE = "unpack it, and give the folder"


@dataclass(frozen=True)
class _Other:
    """A kind of file: what it is called, how its bytes begin, and what to do."""

    name: str
    beginning: re.Pattern[bytes]
    remedy: str


_OTHERS = tuple(
    _Other(name, re.compile(beginning, re.DOTALL), remedy)
    for name, beginning, remedy in (
        (
            "HDF5 (.h5), as DeepLabCut and SLEAP write it",
            rb"\x89HDF\r\n\x1a\n",
            "give the CSV: DeepLabCut writes it with save_as_csv=True, or by deeplabcut.analyze_videos_converth5_to_csv(folder); "
            "of SLEAP's file write the tracks with numpy.savez",
        ),
        ("MATLAB's .mat", rb"MATLAB \d\.\d MAT-file", "read it with scipy.io.loadmat, and write its arrays with numpy.savez"),
        ("an Excel file", rb"PK\x03\x04.{26}(?:\[Content_Types\]\.xml|_rels/|xl/|docProps/)", "save it as CSV in Excel"),
        ("an Excel file", rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as CSV in Excel"),
        ("Parquet", rb"PAR1", "write it with pandas.read_parquet(...).to_csv(...)"),
        ("Arrow or Feather", rb"ARROW1|FEA1", "write it with pandas.read_feather(...).to_csv(...)"),
        ("SQLite", rb"SQLite format 3\x00", "export its table as CSV"),
        (
            "PyTorch's .pt or .pth",
            rb"PK\x03\x04.{26}[^/]{1,80}/(?:data\.pkl|\.format_version|\.data|byteorder|version)",
            "write its arrays with numpy.savez",
        ),
        ("a zip archive of other files", rb"PK\x03\x04(?!.*\.npy).{26}[^\x00-\x1f]{1,200}\.(?:json|csv|txt|skeleton|pkl|c3d)", _ARCHIVE),
        ("a packed file (gzip)", rb"\x1f\x8b", "unpack it with gunzip or tar"),
        ("a packed file", rb"7z\xbc\xaf|Rar!|BZh[1-9]1AY|\xfd7zXZ|\x28\xb5\x2f\xfd", _ARCHIVE),
        ("a video", rb".{4}ftyp|RIFF.{4}AVI |\x1aE\xdf\xa3|\x00\x00\x01[\xb3\xba]|FLV\x01", _VIDEO),
        ("a picture", rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF.{4}WEBP|BM.{8}\x36\x00\x00\x00", _VIDEO.replace("on it", "on the pictures")),
        ("OpenSim's .trc", rb"PathFileType\s", "export C3D, or a CSV with the columns frame,LASI_x,LASI_y,LASI_z,... for every marker"),
        (
            "OpenSim's .mot or .sto",
            rb"[^\n]{0,200}\n(?:[^\n]{0,200}\n){0,4}(?:nRows|datarows)",
            "these are angles or forces; give positions of joints",
        ),
        ("BVH, which holds angles", rb"HIERARCHY\s", "export the positions of its joints, as C3D or CSV"),
        ("FBX", rb"Kaydara FBX Binary", "export the positions of its joints, as C3D or CSV"),
        ("HTML or XML", rb"\s*<(?:!DOCTYPE|html|\?xml|annotations)", "give the file of poses itself; was a web page saved in its place?"),
    )
)


def refuse_other(path: Path, head: bytes) -> None:
    """Raises a DataError if the first bytes of a file are of a kind that holds no poses, or not in a form that is read."""
    other = next((other for other in _OTHERS if other.beginning.match(head)), None)
    if other is not None:
        raise DataError(f"{path} is {other.name}, which is not read; {other.remedy}")
