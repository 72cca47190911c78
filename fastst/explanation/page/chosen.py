"""Which walks a page shows: those that are named, or as many as it can hold, of as many people as can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastst.errors import UserError
from fastst.runs.load import Task

MOST_WALKS = 500
MOST_EDGES = 200_000_000  # with one byte each, what a browser can hold


def chosen(task: Task, walks: list[int], names: Sequence[str], most: int) -> list[int]:
    """The walks that are named, or those given here; of more than `most` (0: any number) some of as many people as can be.

    Raises:
        UserError: no walk has such a name.
    """
    if names:
        walks = list(dict.fromkeys(task.walk_called(name) for name in names))
    return _spread(walks, task.walks.subjects, most) if most else walks


def check_size(task: Task, walks: list[int], slots: int) -> None:
    """That a page can hold the walks, with so many edges into every frame.

    Raises:
        UserError: it can't.
    """
    edges = slots * sum(task.lengths[walk] for walk in walks)
    if len(walks) > MOST_WALKS or edges > MOST_EDGES:
        people = len({task.walks.subjects[walk] for walk in walks})
        fit = min(MOST_WALKS, max(1, MOST_EDGES * len(walks) // edges))
        raise UserError(
            f"{len(walks)} walks of {people} people with {edges:,} edges are too much for one page, which shows at most {MOST_WALKS} walks and "
            f"{MOST_EDGES:,} edges: name some with --walk, or say --most {fit} for some of as many people as can be"
        )


def _spread(walks: list[int], subjects: list[str], most: int) -> list[int]:
    """So many of the walks: first one of everybody, then another; where one of everybody is too much, of people evenly spread."""
    turn: dict[int, int] = {}
    count: dict[str, int] = {}
    for walk in walks:
        turn[walk] = count.get(subjects[walk], 0)
        count[subjects[walk]] = turn[walk] + 1
    firsts = [walk for walk in walks if turn[walk] == 0]
    if len(firsts) > most:
        return [firsts[place] for place in np.linspace(0, len(firsts) - 1, most).round().astype(int)]
    return sorted(sorted(walks, key=lambda walk: (turn[walk], walk))[:most])
