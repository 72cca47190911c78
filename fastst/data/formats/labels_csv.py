"""A table of people's labels that lies among the data: recognised, so that it is called by its name."""

from __future__ import annotations

from fastst.data.formats.columns import has_positions
from fastst.data.formats.form import Form
from fastst.data.formats.table import table_of
from fastst.data.recording import File, Recording
from fastst.data.walks import DataError

_WHO = frozenset(("subject", "walk"))


def _recognises(text: str) -> bool:
    table = table_of(text)
    return table is not None and any(name.lower() in _WHO for name in table.columns) and not has_positions(table.columns)


def _read(text: str, file: File, progress: bool) -> list[Recording]:
    table = table_of(text)
    assert table is not None
    columns = ", ".join(name for name in table.columns if name)
    raise DataError(f"{file.path} holds labels ({columns}) and no poses; give it with --labels {file.path}")


FORM = Form(name="labels of people", recognises=_recognises, read=_read, sample="subject,label,split\n001,male,train\n002,female,test")
