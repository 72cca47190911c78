"""`python -m fastst.info`: which backends there are, which can run here, and why not."""

from __future__ import annotations

import os
import platform

import numpy
import torch
from rich.console import Console
from rich.table import Table

import fastst
from fastst.errors import UserError, run_command
from fastst.ops.backends import BACKENDS, current_backend, why_not


def main() -> None:
    console = Console(soft_wrap=True)
    versions = f"fastst {fastst.__version__}, torch {torch.__version__}, numpy {numpy.__version__}, python {platform.python_version()}"
    console.print(f"{versions}, {torch.get_num_threads()} threads", highlight=False)
    table = Table("backend", "can run", "what it is")
    for name, description in BACKENDS.items():
        reason = why_not(name)
        table.add_row(name, "yes" if reason is None else f"no: {reason}", description)
    console.print(table)
    try:
        chosen = current_backend()
    except (ValueError, RuntimeError) as error:
        raise UserError(str(error)) from None
    by = " (FASTST_BACKEND)" if os.environ.get("FASTST_BACKEND") else ""
    console.print(f"operations run on: {chosen}{by}", highlight=False)


if __name__ == "__main__":
    run_command(main)
