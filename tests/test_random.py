"""The random numbers against the generator's published test vectors and against a transcription in plain whole numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastst.ops.random import edge_uniform, philox

# kat_vectors of Random123 1.14 (philox4x32, 10 rounds): counter, key, result
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
word = st.integers(0, 2**32 - 1)


def plain_philox(counter, key):
    """Philox4x32-10 as in the paper, one number at a time."""
    c, k = list(counter), list(key)
    for _ in range(10):
        left, right = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(right >> 32) ^ c[1] ^ k[0], right & 0xFFFFFFFF, (left >> 32) ^ c[3] ^ k[1], left & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return tuple(c)


def plain_uniform(bits: int) -> np.float32:
    """tl.rand's mapping of a word to [0, 1)."""
    signed = bits - (1 << 32) if bits >= 1 << 31 else bits
    return np.float32(-signed - 1 if signed < 0 else signed) * np.float32(4.6566127342e-10)


def run(counter, key):
    return tuple(int(w) for w in philox(tuple(torch.tensor([c]) for c in counter), key))


@pytest.mark.parametrize(("counter", "key", "result"), PUBLISHED)
def test_published_vectors(counter, key, result):
    assert plain_philox(counter, key) == result
    assert run(counter, key) == result


@given(st.tuples(word, word, word, word), st.tuples(word, word))
@settings(max_examples=50, deadline=None)
def test_any_counter_and_key(counter, key):
    assert run(counter, key) == plain_philox(counter, key)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 11))
@settings(max_examples=30, deadline=None)
def test_uniforms_of_slots(seed, sample, P, T):
    u = edge_uniform(seed, torch.tensor([sample]), P, T, of_edge_list=False)
    key = (seed & 0xFFFFFFFF, seed >> 32)
    expected = [[plain_uniform(plain_philox((t // 4, p, sample, 0), key)[t % 4]) for t in range(T)] for p in range(P)]
    assert np.array_equal(u[0].numpy(), np.array(expected, np.float32))


def test_uniforms_of_an_edge_list():
    u = edge_uniform(7, torch.tensor([3]), 10, 1, of_edge_list=True)
    expected = [plain_uniform(plain_philox((e // 4, 0, 3, 1), (7, 0))[e % 4]) for e in range(10)]
    assert np.array_equal(u[0, :, 0].numpy(), np.array(expected, np.float32))


def test_uniforms_stay_below_one():
    assert plain_uniform(0x7FFFFFFF) < 1
    assert plain_uniform(0x80000000) < 1
