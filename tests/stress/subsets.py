"""Exactly k edges of a group, one group at a time: what `sample_k_edges` computes, in plain float64, with derivatives worked out by hand."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from .loops import Gradients
from .topology import Edge


@dataclass
class _Group:
    """The edges of which k stay, in the order of the draw: those that stay for certain, and `left` of the open ones, by their logits.

    Where more than k have a logit of ∞, these are the open ones, all alike, and none has a gradient.
    """

    certain: list[Edge]
    open: list[Edge]
    gamma: ndarray
    left: int
    has_gradient: bool


def _group(members: list[Edge], logits: ndarray, k: int) -> _Group:
    gamma = {e: logits[e.b, e.p, e.t] for e in members if logits[e.b, e.p, e.t] > -math.inf}
    certain = [e for e in gamma if gamma[e] == math.inf]
    if len(certain) > k:
        return _Group([], certain, np.zeros(len(certain)), k, False)
    rest = [e for e in gamma if gamma[e] < math.inf]
    return _Group(certain, rest, np.array([gamma[e] for e in rest], float), min(k - len(certain), len(rest)), True)


def _polynomials(weights: ndarray, k: int) -> ndarray:
    """e_0 … e_k of the first i weights, for i from 0 to n.  # [n + 1, k + 1]"""
    found = np.zeros((len(weights) + 1, k + 1))
    found[0, 0] = 1
    for i, w in enumerate(weights):
        found[i + 1] = found[i]
        found[i + 1, 1:] += w * found[i, :-1]
    return found


def _marginals(weights: ndarray, k: int) -> ndarray:
    """w_i e_{k-1}(without i) / e_k."""
    n = len(weights)
    if not n or not k:
        return np.zeros(n)
    without = np.zeros((n, k + 1))
    without[:, 0] = 1
    for c, w in enumerate(weights):
        others = np.arange(n) != c
        without[others, 1:] += w * without[others, :-1]
    return weights * without[:, k - 1] / _polynomials(weights, k)[-1, k]


def _covariance_product(weights: ndarray, k: int, toward: ndarray) -> ndarray:
    """Cov(z_i, Σ toward z): given that i stays, the others are k - 1 of the rest."""
    mu = _marginals(weights, k)
    product = np.zeros(len(weights))
    for i in range(len(weights)):
        rest = np.arange(len(weights)) != i
        given = toward[i] + (toward[rest] @ _marginals(weights[rest], k - 1) if k else 0)
        product[i] = mu[i] * (given - toward @ mu)
    return product


def sample_k_edges(
    edges: list[Edge],
    rank: list[int],
    uniform: ndarray,
    logits: ndarray,
    loops: set[int],
    k: int,
    per: str,
    estimator: str,
    lam: float,
) -> tuple[tuple[ndarray | None, ...], object, float]:
    """Kept edges, marginals and log-probabilities; how near any draw came to another.

    uniform: `[S, B, P, T]`. rank: `[P]`, the slots' places in the order in which those into a node are drawn.
    """
    groups, margin = defaultdict(list), math.inf
    for e in sorted((e for e in edges if e.p not in loops), key=lambda e: (rank[e.p] if per == "dst" else e.p, e.t)):
        groups[{"graph": (e.b,), "frame": (e.b, e.t), "dst": (e.b, e.t, e.dst)}[per]].append(e)
    found = [_group(members, logits, k) for members in groups.values()]
    kept, marginals, log_probability = np.zeros(uniform.shape), np.zeros(logits.shape), np.zeros(uniform.shape[:2])
    for e in (e for e in edges if e.p in loops):
        kept[:, e.b, e.p, e.t] = marginals[e.b, e.p, e.t] = 1
    for group in found:
        for e in group.certain:
            kept[:, e.b, e.p, e.t] = marginals[e.b, e.p, e.t] = 1
        weights = np.exp(group.gamma - group.gamma.mean()) if group.open else group.gamma
        for e, mu in zip(group.open, _marginals(weights, group.left), strict=True):
            marginals[e.b, e.p, e.t] = mu
        for draw in range(len(uniform)):
            u = np.array([uniform[draw, e.b, e.p, e.t] for e in group.open], float)
            chosen, near = _largest(group.gamma + _gumbel(u), group.left) if estimator == "imle" else _draw(weights, group.left, u)
            margin = min(margin, near)
            for e, stays in zip(group.open, chosen, strict=True):
                kept[draw, e.b, e.p, e.t] = stays
            if group.open:
                whole = math.log(_polynomials(weights, group.left)[-1, group.left])
                log_probability[draw, group.open[0].b] += np.log(weights[chosen]).sum() - whole

    def backward(dkept: ndarray, dmarginals: ndarray | None, dlog: ndarray | None) -> Gradients:
        dlogits = np.zeros(logits.shape)
        for group in (group for group in found if group.has_gradient and group.open):
            weights = np.exp(group.gamma - group.gamma.mean())
            dz = np.array([dkept[:, e.b, e.p, e.t] for e in group.open]).T  # [S, n]
            if estimator == "imle":
                u = np.array([uniform[:, e.b, e.p, e.t] for e in group.open], float).T
                gradient = _difference(group.gamma + _gumbel(u), dz, group.left, lam)
            else:
                mu, b = _marginals(weights, group.left), group.open[0].b
                z = np.array([kept[:, e.b, e.p, e.t] for e in group.open]).T
                toward = np.array([dmarginals[e.b, e.p, e.t] for e in group.open])
                if estimator == "simple":
                    toward = toward + dz.sum(0)
                gradient = _covariance_product(weights, group.left, toward)
                if estimator == "straight_through":
                    gradient += dz.sum(0) * mu * (1 - mu)
                gradient += (dlog[:, b, None] * (z - mu)).sum(0)
            for e, value in zip(group.open, gradient, strict=True):
                dlogits[e.b, e.p, e.t] = value
        return {"logits": dlogits}

    if estimator == "imle":
        return (kept, None, None), backward, margin
    return (kept, marginals, log_probability), backward, margin


def _difference(value: ndarray, dz: ndarray, left: int, lam: float) -> ndarray:
    """What I-MLE takes for the gradient: how the largest change when the values are moved against it."""
    states = [[_largest(row, left)[0] for row in value - step * dz] for step in (0, lam)]
    return (np.array(states[0], float) - np.array(states[1], float)).sum(0) / lam


def _draw(weights: ndarray, left: int, u: ndarray) -> tuple[ndarray, float]:
    """From the last to the first: with `left` of the first i + 1 to stay, the last one does with probability w e_{left-1}(i) / e_left(i + 1)."""
    found, chosen, margin = _polynomials(weights, left), np.zeros(len(weights), bool), math.inf
    for i in range(len(weights) - 1, -1, -1):
        if left:
            chance = weights[i] * found[i, left - 1] / found[i + 1, left]
            if i + 1 > left:  # else it stays for certain
                margin = min(margin, abs(u[i] - chance))
            chosen[i] = i + 1 <= left or u[i] < chance
            left -= int(chosen[i])
    return chosen, margin


def _largest(value: ndarray, left: int) -> tuple[ndarray, float]:
    """The `left` largest, the first of equal ones; and by how much."""
    order = sorted(range(len(value)), key=lambda n: (-value[n], n))
    chosen = np.zeros(len(value), bool)
    chosen[order[:left]] = True
    return chosen, value[order[left - 1]] - value[order[left]] if 0 < left < len(value) else math.inf


def _gumbel(u: ndarray) -> ndarray:
    return -np.log(-np.log(u + 1e-10) + 1e-10)
