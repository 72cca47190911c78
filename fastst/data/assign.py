"""Who goes with whom at the lowest cost."""

from __future__ import annotations

import numpy as np


def assign(cost: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of rows and columns, each in at most one, whose costs have the lowest sum; no pair whose cost isn't below 0.  # of [n, m]"""
    is_wanted = cost < 0
    rows, columns = np.flatnonzero(is_wanted.any(axis=1)), np.flatnonzero(is_wanted.any(axis=0))
    if not len(rows):
        return []
    cost = np.minimum(cost[np.ix_(rows, columns)], 0)
    best = cost.argmin(axis=1).tolist()
    if len(set(best)) < len(best):
        best = _shortest_paths(cost.tolist()) if len(rows) <= len(columns) else _inverse(_shortest_paths(cost.T.tolist()), len(rows))
    return [(int(rows[i]), int(columns[j])) for i, j in enumerate(best) if j >= 0 and cost[i, j] < 0]


def _inverse(columns: list[int], count: int) -> list[int]:
    """The place in `columns` of each number below `count`, or -1."""
    places = [-1] * count
    for place, column in enumerate(columns):
        places[column] = place
    return places


def _shortest_paths(cost: list[list[float]]) -> list[int]:
    """The column of every row in the cheapest assignment, with no more rows than columns: the Hungarian method, by shortest augmenting paths.

    In O(n² m). For a handful of people plain Python is faster than a compiler is to start. (Jonker and Volgenant, Computing 38, 1987.)
    """
    n, m = len(cost), len(cost[0])
    price_of_row, price = [0.0] * n, [0.0] * m
    row_of = [-1] * m
    for row in range(n):
        least, come_from, left = [float("inf")] * m, [-1] * m, set(range(m))
        reached, column = row, -1
        while reached >= 0:  # grows a tree of columns that are reached at the least extra cost, until one is free
            for j in left:
                extra = cost[reached][j] - price_of_row[reached] - price[j]
                if extra < least[j]:
                    least[j], come_from[j] = extra, column
            column = min(left, key=least.__getitem__)
            left.remove(column)
            step = least[column]
            price_of_row[row] += step
            for j in range(m):
                if j in left:
                    least[j] -= step
                elif j != column:
                    price_of_row[row_of[j]] += step
                    price[j] -= step
            reached = row_of[column]
        while column >= 0:  # everybody on the way moves up one
            previous = come_from[column]
            row_of[column] = row if previous < 0 else row_of[previous]
            column = previous
    return [row_of.index(row) for row in range(n)]
