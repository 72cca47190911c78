"""Uniform numbers that are a pure function of (seed, walk, edge): Philox4x32-10, the counter-based generator of Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3" (SC 2011), and the mapping to floats of Triton's `tl.rand`."""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_SCALE = 4.6566127342e-10  # the largest for which 2³¹ - 1 stays below 1 in float32


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int | Tensor, int | Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four random words of 32 bits for four counter words and two key words.

    Words are int64 tensors holding 0 … 2³² - 1, those of the key whole numbers too; the counter's
    shapes broadcast.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # wraps at 64 bits, which leaves all 64 bits right
        c0, c1 = _high(product1) ^ c1 ^ k0, product1 & _WORD
        c2, c3 = _high(product0) ^ c3 ^ k1, product0 & _WORD
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def edge_uniform(seed: int | Tensor, sample_ids: Tensor, P: int, T: int, of_edge_list: bool) -> Tensor:
    """u ~ Uniform[0, 1) for every edge: float32, the same bits on every backend.  # [B, P, T]

    Edge (p, t) of sample n uses the counter (t // 4, p, n, 0) and the output word t % 4; edge e of an edge list (P = E, T = 1) the counter
    (e // 4, 0, n, 1) and the word e % 4. n is taken modulo 2³², the seed modulo 2⁶⁴;
    as a 0-d int64 tensor it has the same bits.
    """
    return edge_uniforms(seed, sample_ids, 1, P, T, of_edge_list)[0]


def edge_uniforms(seed: int | Tensor, sample_ids: Tensor, draws: int, P: int, T: int, of_edge_list: bool) -> Tensor:
    """Several numbers for every edge: draw s has 2 s more in the last word of the counter, so that draw 0 is `edge_uniform`.  # [S, B, P, T]"""
    device = sample_ids.device
    n = (sample_ids.long() & _WORD)[:, None, None]
    count, rows = (P, 1) if of_edge_list else (T, P)
    group = torch.arange((count + 3) // 4, device=device)
    row = torch.arange(rows, device=device)[:, None]
    kind = 2 * torch.arange(draws, device=device)[:, None, None, None] + int(of_edge_list)
    words = philox((group, row, n, kind), (seed & _WORD, seed >> 32 & _WORD))
    bits = torch.stack(words, -1).flatten(-2)[..., :count]  # [S, B, rows, count]
    return _to_uniform(bits).view(draws, sample_ids.shape[0], P, T)


def _to_uniform(bits: Tensor) -> Tensor:
    signed = torch.where(bits > 0x7FFFFFFF, bits - (1 << 32), bits)
    return torch.where(signed < 0, -signed - 1, signed).to(torch.float32) * _SCALE


def _high(product: Tensor) -> Tensor:
    return (product >> 32) & _WORD
