"""Names in figures, whatever their script: a font for every character, and the code of those that no font has."""

from __future__ import annotations

import unicodedata
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from fastst.files import write_atomically

_BASE = "DejaVu Sans"  # comes with Matplotlib
# Looked into before all other fonts of a system: plain ones of Linux, Windows and macOS that have many characters.
_FIRST = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans Devanagari",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Nirmala UI",
    "Segoe UI",
    "Segoe UI Symbol",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Kohinoor Devanagari",
    "Arial Unicode MS",
)
_LAST_RESORT = "Last Resort"  # has a box for every character, and says nothing by it
_LONGEST = 60
_JOINERS = "\u200c\u200d"  # shape the letters beside them

_unsaid: set[str] = set()
_said: set[str] = set()


def readable(name: str) -> str:
    """The name of a walk, a class or a joint, as it is drawn.

    Control characters and line breaks become spaces; marks that turn the direction of what follows, and others without a shape of their own, are
    dropped; a character that no font of this system has becomes its code (U+5065); what is longer than 60 letters is shortened in the middle.
    That Arabic letters are joined and run from right to left is Matplotlib's work.
    """
    words = " ".join("".join(_drawn(character) for character in name).split())
    wide = any(unicodedata.east_asian_width(character) in "WF" for character in words)  # twice as wide as a Latin letter
    longest = _LONGEST // 2 if wide else _LONGEST
    return words if len(words) <= longest else f"{words[: longest // 2 - 1]}…{words[-longest // 2 :]}"


def save(figure: Figure, path: Path, **options: Any) -> None:
    """Writes the figure, with fonts for all characters in it. Characters that no font has are named in a warning, once.

    Args:
        options: of Matplotlib's `savefig`.

    Raises:
        WriteError: the file can't be written.
    """
    with_fonts(figure)
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)  # how much room a title has is known when axes of a fixed shape have found their place, and used the second time
    write_atomically(path, lambda part: figure.savefig(part, **{"dpi": 130, **options}))


def with_fonts(figure: Figure) -> None:
    """Gives the texts of a figure fonts for all their characters; those that no font has are named in a warning, once."""
    texts = figure.findobj(Text)
    families = {_family(character) for text in texts for character in text.get_text()} - {None, _BASE}
    for text in texts:
        text.set_parse_math(False)  # names of classes, walks and joints are no formulas
        text.set_fontfamily([_BASE, *sorted(filter(None, families))])
    _warn_of_missing()


def _drawn(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    if (category == "Cf" and character not in _JOINERS) or unicodedata.name(character, "").startswith("VARIATION SELECTOR"):
        return ""
    if character.isspace() or _family(character):
        return character
    if character not in _said:
        _unsaid.add(character)
    return f" U+{ord(character):04X} "


@cache
def _family(character: str) -> str | None:
    """The first font that has the character, if there is one."""
    if ord(character) in _characters(_BASE):
        return _BASE
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    others = [*(name for name in _FIRST if name in installed), *sorted(installed)]
    return next((name for name in others if not name.startswith(_LAST_RESORT) and ord(character) in _characters(name)), None)


@cache
def _characters(family: str) -> frozenset[int]:
    """Codes of the characters that the font has; none where it can't be opened."""
    entry = next(entry for entry in font_manager.fontManager.ttflist if entry.name == family)
    try:
        return frozenset(FT2Font(entry.fname, face_index=entry.index).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _warn_of_missing() -> None:
    if _unsaid:
        signs = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in sorted(_unsaid))
        advice = f"install one that has them, such as Noto Sans CJK, and delete {matplotlib.get_cachedir()}, where the fonts of before are listed"
        warnings.warn(f"no font of this system has {signs}: in figures their codes stand in place of them; {advice}", stacklevel=4)
    _said.update(_unsaid)
    _unsaid.clear()
