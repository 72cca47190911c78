"""Heads as further walks of the batch: what has no heads of its own then serves each of them alone."""

from __future__ import annotations

from torch import Tensor


def fold_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, J, C] -> [B * heads, T, J, C / heads]"""
    return x.unflatten(-1, (heads, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1)


def unfold_heads(x: Tensor, heads: int) -> Tensor:
    """[B * heads, T, J, C / heads] -> [B, T, J, C]"""
    return x.unflatten(0, (-1, heads)).permute(0, 2, 3, 1, 4).flatten(-2)


def fold_lengths(lengths: Tensor | None, heads: int) -> Tensor | None:
    """[B] -> [B * heads]"""
    return None if lengths is None else lengths.repeat_interleave(heads)
