"""How recorded files become walks: what a user can say about them where the files don't."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar

Options = TypeVar("Options", bound="ReadOptions")


@dataclass(frozen=True)
class ReadOptions:
    """How walks are read from files. Every field is an option of the commands that read them."""

    name_pattern: str = ""
    """Whose walk it is, from its place in the data: a regular expression with the named groups subject and, if wanted, sequence, condition and view,
    such as "(?P<subject>[^/]+)/(?P<condition>[a-z]+)(?P<sequence>[0-9]+)". Left out, the usual ways to name walks are tried."""
    tracks: Literal["main", "all"] = "main"
    """Where several people are seen: main follows the most prominent one, all makes a walk of everybody."""
    joints: str = ""
    """The skeleton of files of which it is not recognised: the name of one, or a .json file with `joints`, in the order of the data, and `bones`;
    for tables and C3D files its joints are the names of the columns or markers."""
    image_size: tuple[int, int] | None = None
    """Width and height of the video in pixels, for positions that are shares of them (0 to 1)."""
    min_confidence: float = 0.0
    """A joint with a lower confidence is missing, besides those that the file itself marks as not found."""
    up: Literal["auto", "x", "-x", "y", "-y", "z", "-z"] = "auto"
    """In 3D, the axis that points up; auto: the one along which the body stands."""
    fps: float = 0.0
    """Bring every walk to so many frames a second; 0: leave them as they are."""
    scale: Literal["body", "none"] = "body"
    """body: everybody has size one; none: metres or pixels stay, where body size says something."""
    drop_joints: tuple[str, ...] = ()
    """Leave these joints out, such as left_eye left_ear in side views, where they are never seen."""


@dataclass(frozen=True, kw_only=True)
class OtherFiles:
    """How walks that a model was not trained on are read. What is left out is as in the training."""

    name_pattern: str | None = None
    """Whose walk it is, as --name-pattern of fastst.train; left out, as in training."""
    tracks: Literal["main", "all"] | None = None
    """Whose walks are taken where several people are seen, as --tracks of fastst.train; left out, as in training."""
    joints: str | None = None
    """The joints' names, as --joints of fastst.train; left out, as in training."""
    image_size: tuple[int, int] | None = None
    """Width and height of the video in pixels, for positions that are shares of them; left out, as in training."""

    def over(self, options: Options) -> Options:
        """The options of the training with those given here in their place."""
        given = {field.name: value for field in fields(OtherFiles) if (value := getattr(self, field.name)) is not None}
        return replace(options, **given)
