"""`python -m fastst.convert`: recorded walks of any form as an .npz file or a pickle as pyskl has them; or a look at what was understood of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fastst.data.formats.pickles import write_clips
from fastst.data.formats.walks_npz import write_walks_npz
from fastst.data.options import ReadOptions
from fastst.data.prepare import drop_joints
from fastst.data.read import read_walks
from fastst.data.walks import WalkSet
from fastst.errors import UserError, run_command, visible
from fastst.explanation import preview
from fastst.files import is_there
from fastst.runs.left_out import check_left_out_file, left_out_file, report_left_out
from fastst.runs.lock import owned_around
from fastst.runs.tables import PICTURES, check_not_needed

_ENDINGS = (".npz", ".pkl", ".pickle")


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(ReadOptions):
    """Write recorded walks of any form that can be read as arrays (.npz) or as a pickle of pyskl and MMAction2 (.pkl), or see what is understood."""

    data: tyro.conf.Positional[Path]
    """A file or a folder of walks, in any form that fastst.train reads."""
    out: Path | None = None
    """The file to write, .npz or .pkl. A file that is there is never replaced."""
    preview: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Say what was understood: people, walks, frames, joints, what is missing, whose walks they are, what is left out; and draw some poses."""
    picture: Path | None = None
    """Where --preview draws the poses (.png, .svg or .pdf); left out, into <data>.preview.png beside the data."""
    # Walks are written as they were recorded; both belong to what a model is given.
    fps: tyro.conf.Suppress[float] = 0.0
    scale: tyro.conf.Suppress[Literal["body", "none"]] = "body"


def main(arguments: Sequence[str] | None = None) -> None:
    config = tyro.cli(ConvertConfig, prog="python -m fastst.convert", args=arguments)
    if config.out is None and not config.preview:
        raise UserError("give --out FILE.npz or --out FILE.pkl to write the walks, or --preview to see what is understood of them")
    if config.out is not None:
        _check_out(config.out, config.data)
    picture = config.picture or config.data.resolve().with_name(f"{config.data.resolve().name}.preview.png")
    if config.preview:
        _check_picture(picture, config.data)
    check_left_out_file(config.out or picture, config.data)
    with owned_around(config.out, picture if config.preview else None):
        _convert(config, picture)


def _convert(config: ConvertConfig, picture: Path) -> None:
    walks = drop_joints(read_walks(config.data, config), config.drop_joints)
    if config.preview:
        print("\n".join(preview.description(walks)))
        preview.picture(walks, picture)
        print(f"some poses are drawn in {visible(str(picture))}")
    for line in report_left_out(walks.left_out, left_out_file(config.out or picture)):
        print(line, file=sys.stderr)
    if config.out is not None:
        _write(config.out, walks, config.image_size)
        print(f"{len(walks)} walks of {len(set(walks.subjects))} people are in {visible(str(config.out))}")


def _check_out(out: Path, data: Path) -> None:
    """That it is a new file, of a known ending, and not among the data, where it would be read with them the next time."""
    if out.suffix not in _ENDINGS:
        raise UserError(f"--out {out} must end in one of {', '.join(_ENDINGS)}")
    if is_there(out):
        raise UserError(f"--out {out} is there already, and no file is replaced; give another name")
    check_not_needed(out, data, option="--out")


def _check_picture(picture: Path, data: Path) -> None:
    if picture.suffix.lower() not in PICTURES:
        raise UserError(f"--picture {picture} must end in one of {', '.join(PICTURES)}")
    check_not_needed(picture, data, option="--picture")


def _write(out: Path, walks: WalkSet, image_size: tuple[int, int] | None) -> None:
    if out.suffix == ".npz":
        write_walks_npz(out, walks)
    else:
        write_clips(out, walks, image_size)


if __name__ == "__main__":
    run_command(main)
