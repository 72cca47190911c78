"""Forms of pose files: one module a form, found by what is in a file and not by its name.

A module has `FORM = Form(...)`. `JSON_FORMS` are given the parsed content, `TEXT_FORMS` the first lines of a text, `BINARY_FORMS` the first
bytes; the first that recognises it reads the file.
"""

from __future__ import annotations

from fastst.data.formats import alphapose, c3d, ntu_skeleton, pickles, pose_csv, walks_npz
from fastst.data.formats.form import Form

JSON_FORMS: tuple[Form, ...] = (alphapose.FORM,)
TEXT_FORMS: tuple[Form, ...] = (pose_csv.FORM, ntu_skeleton.FORM)
BINARY_FORMS: tuple[Form, ...] = (walks_npz.FORM, pickles.FORM, c3d.FORM)
