"""For mkdocs: pages that lie beside `docs/` are pages of the site too, the README its first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}


def on_files(files: Files, config: Any) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=of_the_site((ROOT / source).read_text(encoding="utf-8"))))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of `docs/`, to programs and licences, have no page: only their words stay."""
    out = "../" * (page.file.src_uri.count("/") + 1)
    return re.sub(rf"\[([^\]]*)\]\({re.escape(out)}(?!\.)[^)]*\)", r"\1", markdown)


def of_the_site(text: str) -> str:
    """The links of a page beside `docs/`, as from within it."""
    for source, page in PAGES.items():
        text = text.replace(f"]({source})", f"]({page})")
    text = text.replace("](docs/", "](")
    return re.sub(r"\[([^\]]*)\]\((?!http)[^)]*\.cff\)", r"\1", text)
