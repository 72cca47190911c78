"""The pictures of a page in the docs: `python tests/browser/pictures.py runs/demo/walks.html docs`, of the page that `make train` writes."""

from __future__ import annotations

import argparse
from pathlib import Path

from reader import Reader, in_a_browser

SIZES = {"wide": (1440, 1000, "light"), "medium": (900, 1300, "dark"), "phone": (390, 844, "light")}  # width, height, theme


def take(reader: Reader, page: Path, link: str, out: Path) -> None:
    """Writes `page_<size>.png` of every size; the widest with the nearest walk of another class beside."""
    for name, (width, height, theme) in SIZES.items():
        reader.open(page, link, width, height, theme)
        if name == "wide":
            reader.set("beside", "nearest")
            reader.until("return !document.getElementById('second').hidden")
        (out / f"page_{name}.png").write_bytes(reader.shot())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="a page that fastst.explain wrote")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--link", default="", help="what is shown, as #walk=NAME&frame=NUMBER; left out, the first walk where most is kept")
    arguments = parser.parse_args()
    with in_a_browser("--hide-scrollbars") as reader:
        take(reader, arguments.page.resolve(), arguments.link, arguments.out)


if __name__ == "__main__":
    main()
