"""The parts of a report's page: tables, and pictures that lie in the page itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from fastst.files import open_file

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 100rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
p, figure { max-width: 72rem; }
table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.45rem; border-bottom: 1px solid #ddd; }
td.short { white-space: nowrap; }
th { border-bottom: 2px solid #888; }
.wide { overflow-x: auto; }
tr.yes td:last-child { background: #e3f4e3; }
tr.no td:last-child { background: #fae3e3; }
tr.open td:last-child { background: #f4f4e3; }
figure { margin: 1.5rem 0; }
figcaption { color: #555; font-size: 13px; }
img { max-width: 100%; }
details { border-top: 1px solid #ddd; padding: 0.4rem 0; }
summary { cursor: pointer; font-weight: bold; }
"""

_SHORT = 16  # characters that stay in one line, such as a mean with its deviation


def table(header: Sequence[str], rows: Sequence[Sequence[str]], marks: Sequence[str] | None = None) -> str:
    """A table of texts; `marks` names a class of the style for every row."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = ""
    for row, mark in zip(rows, marks or [""] * len(rows), strict=True):
        cells = "".join(f"<td{' class=short' if len(text) <= _SHORT else ''}>{html.escape(text)}</td>" for text in row)
        body += f'<tr class="{mark}">{cells}</tr>'
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def folded(title: str, body: str) -> str:
    """What a reader opens who wants it."""
    return f"<details><summary>{html.escape(title)}</summary>{body}</details>"


def picture(path: Path, words: str) -> str:
    """A PNG, whose bytes become part of the page."""
    with open_file(path) as file:
        data = base64.b64encode(file.read()).decode()
    said = html.escape(words)
    return f'<figure><img alt="{said}" src="data:image/png;base64,{data}"><figcaption>{said}</figcaption></figure>'


def whole_page(title: str, body: str) -> str:
    said = html.escape(title)
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{said}</title><style>{_STYLE}</style>"
    return f"<!doctype html>\n<html lang='en'><head>{head}</head><body>{body}</body></html>\n"
