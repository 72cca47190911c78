"""The reference of the public names, from their docstrings: `python docs/api.py --write docs/api.md`."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = ("fastst", "fastst.nn", "fastst.ops", "fastst.export")
_SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Examples):$", re.MULTILINE)


def page() -> str:
    text = [
        "# Reference",
        "",
        "Written by `python docs/api.py --write docs/api.md` from the docstrings. Shapes stand as `[B, T, J, C]`: batch, frames, joints, channels.",
    ]
    for name in MODULES:
        module = importlib.import_module(name)
        text += ["", f"## {name}", "", _prose(inspect.getdoc(module) or "")]
        for public in sorted(_public(module), key=str.lower):
            text += ["", *_entry(public, getattr(module, public))]
    return "\n".join(text) + "\n"


def _public(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None) or [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__]
    return [name for name in names if not name.startswith("_")]


def _entry(name: str, thing: Any) -> list[str]:
    if not callable(thing):
        return [f"### {name}", "", f"`{type(thing).__name__}`: {', '.join(map(str, thing)) if hasattr(thing, '__iter__') else thing}"]
    lines = [f"### {name}", "", f"```python\n{name}{_signature(thing)}\n```", "", _prose(inspect.getdoc(thing) or "")]
    if inspect.isclass(thing):
        for method, function in vars(thing).items():
            found = function.__func__ if isinstance(function, (classmethod, staticmethod)) else function
            if not method.startswith("_") and inspect.isfunction(found) and found.__doc__:
                lines += ["", f"#### {name}.{method}", "", f"```python\n{method}{_signature(found)}\n```", "", _prose(inspect.getdoc(found) or "")]
    return lines


def _signature(thing: Any) -> str:
    try:
        return re.sub(r"<object object at 0x\w+>", "…", str(inspect.signature(thing))).replace("'", "")
    except ValueError:
        return "(…)"


def _prose(docstring: str) -> str:
    """The first part as text, its sections as they stand."""
    parts = _SECTION.split(docstring)
    text = [parts[0].strip()]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        text.append(f"**{title}**\n\n```{'python' if title == 'Examples' else 'text'}\n{inspect.cleandoc(body)}\n```")
    return "\n\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page there instead of showing it")
    options = parser.parse_args()
    if options.write:
        options.write.write_text(page())
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()
