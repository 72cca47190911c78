"""Whose walk it is: subject, sequence, condition and view from names."""

from __future__ import annotations

import re
from collections import Counter

from fastst.data.options import ReadOptions
from fastst.data.tracks import Walk
from fastst.data.walks import LeftOut, WalkSet

# How CASIA-B calls a walk: who, in which condition (normal, with a bag, in a coat), the how-manieth time, seen from how many degrees.
WALK_NAME = re.compile(r"(?P<subject>[^-/]+)-(?P<condition>nm|bg|cl)-(?P<sequence>\d+)-(?P<view>\d+)", re.ASCII)


def identify(walks: list[Walk], options: ReadOptions, left_out: list[LeftOut]) -> WalkSet:
    """The walks under names of their own, with who walks and what their names say."""
    columns = sorted({column for walk in walks for column in walk.attributes} - {"subject"} | {"condition", "view"})
    result = WalkSet(walks[0].layout, [], [], [], {column: [] for column in columns}, left_out)
    poses = []
    seen: Counter[str] = Counter()
    for walk in walks:
        named = next((match for part in reversed(walk.places) if (match := WALK_NAME.fullmatch(part))), None)
        name = named[0] if named else walk.places[-1]
        seen[name] += 1
        if seen[name] > 1:
            left_out.append(LeftOut(name, f"{walk.source}: another walk is called {name!r} too; rename one of them"))
            continue
        attributes = {**(named.groupdict() if named else {}), **walk.attributes}
        result.names.append(name)
        result.subjects.append(attributes.get("subject") or re.split("[_-]", name)[0] or name)
        for column in columns:
            result.attributes[column].append(attributes.get(column))
        poses.append(walk.poses)
    result.poses = poses
    return result
