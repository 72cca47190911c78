import math

import pytest
import torch
from graphs import BACKENDS, assert_matches_reference, generator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from fastst.ops import attend_axis, use_backend

# B, T, J, channels of a head, heads, lengths
SIZES = [
    (2, 5, 18, 8, 2, None),
    (2, 7, 3, 16, 1, [7, 4]),
    (1, 1, 1, 1, 1, None),
    (3, 4, 1, 3, 2, [4, 0, 1]),
    (2, 3, 5, 20, 1, [0, 0]),
    (1, 70, 2, 5, 2, None),  # more than a block of queries
    (1, 300, 1, 4, 1, [290]),  # more than a block of keys
    (1, 2, 33, 64, 1, None),
]
WAYS = [("joints", None), ("frames", None), ("frames", 0), ("frames", 3), ("frames", 1000)]


def features(B: int, T: int, J: int, C: int, lengths: list[int] | None, seed: int = 0) -> torch.Tensor:
    """NaN beyond the lengths, where nothing may look; not contiguous in memory."""
    x = torch.randn(B, J, T, C, dtype=torch.float64, generator=generator(seed)).transpose(1, 2)
    for b, length in enumerate(lengths or []):
        x[b, length:] = torch.nan
    return x


def of(lengths: list[int] | None) -> torch.Tensor | None:
    return None if lengths is None else torch.tensor(lengths)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("axis", "window"), WAYS)
@pytest.mark.parametrize(("B", "T", "J", "d", "heads", "lengths"), SIZES)
def test_matches_reference(B, T, J, d, heads, lengths, axis, window, backend):
    inputs = [features(B, T, J, d * heads, lengths, seed) for seed in range(3)]
    assert_matches_reference(lambda q, k, v: attend_axis(q, k, v, heads, axis, window, of(lengths)), inputs, backend)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("window", [None, 2])
def test_is_softmax_attention_written_as_a_loop(backend: str, window: int | None):
    B, T, J, d, heads = 2, 5, 3, 4, 2
    q, k, v = (features(B, T, J, d * heads, None, seed) for seed in range(3))
    length = [5, 3]
    expected = torch.zeros_like(q)
    for b in range(B):
        for t in range(length[b]):
            frames = [s for s in range(length[b]) if window is None or abs(s - t) <= window]
            for j in range(J):
                for h in range(heads):
                    part = slice(h * d, (h + 1) * d)
                    powers = [math.exp(float(q[b, t, j, part] @ k[b, s, j, part]) / math.sqrt(d)) for s in frames]
                    expected[b, t, j, part] = sum(p * v[b, s, j, part] for p, s in zip(powers, frames, strict=True)) / sum(powers)
    with use_backend(backend):
        found = attend_axis(q, k, v, heads, "frames", window, torch.tensor(length))
    torch.testing.assert_close(found, expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 20), st.integers(1, 3), st.integers(1, 24), st.integers(0, 50), st.booleans(), st.data())
def test_any_sizes(B, T, J, heads, d, window, along_frames, data):
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    axis, window = ("frames", window if window < 45 else None) if along_frames else ("joints", None)
    inputs = [features(B, T, J, d * heads, lengths, seed) for seed in range(3)]
    for backend in BACKENDS:
        assert_matches_reference(lambda q, k, v: attend_axis(q, k, v, heads, axis, window, of(lengths)), inputs, backend)


@pytest.mark.parametrize("axis", ["joints", "frames"])
def test_parts_of_one_product_are_taken_as_they_lie(axis: str):
    project = torch.nn.Linear(12, 36)
    h = torch.randn(2, 9, 5, 12, generator=generator())
    together, apart = project(h).chunk(3, -1), [part.contiguous() for part in project(h).chunk(3, -1)]
    assert not together[0].is_contiguous()
    weights = project.weight, project.bias
    ys = [attend_axis(*qkv, heads=3, axis=axis) for qkv in (together, apart)]
    assert torch.equal(*ys)
    for one, other in zip(*(torch.autograd.grad(y.square().sum(), weights) for y in ys), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("axis", "window"), [("joints", None), ("frames", None), ("frames", 7)])
def test_a_walk_does_not_depend_on_padding_batch_or_threads(axis: str, window: int | None, backend: str):
    q, k, v = (torch.randn(3, 40, 18, 16, generator=generator(seed)) for seed in range(3))
    lengths = torch.tensor([40, 23, 1])
    with use_backend(backend):
        together = attend_axis(q, k, v, 2, axis, window, lengths)
        for b, length in enumerate(lengths.tolist()):
            alone = attend_axis(*(x[b : b + 1, :length] for x in (q, k, v)), 2, axis, window)
            torch.testing.assert_close(
                together[b : b + 1, :length], alone, atol=0 if backend == "cpu" else 1e-6, rtol=0 if backend == "cpu" else 1e-6
            )
            assert (together[b, length:] == 0).all()
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1 if threads > 1 else 3)
            assert torch.equal(attend_axis(q, k, v, 2, axis, window, lengths), together)
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_scores_do_not_overflow(backend: str):
    q, k, v = (torch.randn(1, 30, 4, 8, generator=generator(seed)) for seed in range(3))
    with use_backend(backend):
        y = attend_axis(1e4 * q, 1e4 * k, v, 2, "frames")
    assert y.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("axis", ["joints", "frames"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_good_as_torchs(dtype: torch.dtype, axis: str, backend: str):
    """At most twice the error of torch's own attention on the same numbers."""
    q, k, v = (torch.randn(2, 12, 18, 32, generator=generator(seed)).to(dtype) for seed in range(3))

    def outer(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (2, -1)).movedim(2 if axis == "joints" else 1, -2)

    theirs = scaled_dot_product_attention(*map(outer, (q, k, v)))
    exact = scaled_dot_product_attention(*(outer(x.double()) for x in (q, k, v)))
    with use_backend(backend):
        found = attend_axis(q, k, v, 2, axis)
    assert found.dtype == dtype
    error = (outer(found).double() - exact).abs().max()
    assert error <= 2 * (theirs.double() - exact).abs().max() + 1e-6


@pytest.mark.parametrize("axis", ["joints", "frames"])
def test_opcheck_and_gradcheck(axis: str):
    q, k, v = (torch.randn(2, 4, 3, 6, dtype=torch.float64, generator=generator(seed)).requires_grad_() for seed in range(3))
    rest = torch.tensor([4, 2]), 2, axis, 1 if axis == "frames" else None, "cpu"
    torch.library.opcheck(torch.ops.fastst.attend_axis.default, (q, k, v, *rest))
    assert torch.autograd.gradcheck(lambda *x: torch.ops.fastst.attend_axis(*x, *rest)[0], (q, k, v), fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_time_and_memory_are_linear_with_a_window(backend: str):
    """A hundred thousand frames, whose scores would take 40 GB."""
    x = torch.randn(1, 100_000, 1, 8, generator=generator())
    with use_backend(backend):
        y = attend_axis(x, x, x, 1, "frames", 16)
    near = attend_axis(x[:, :64], x[:, :64], x[:, :64], 1, "frames", 16)
    torch.testing.assert_close(y[:, :40], near[:, :40])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"heads": 3}, ValueError, "heads must divide the channels C = 4, got 3"),
        ({"axis": "time"}, ValueError, "axis must be one of joints, frames, got 'time'"),
        ({"axis": "joints", "window": 3}, ValueError, "window counts frames, but axis='joints'"),
        ({"window": -1}, ValueError, "window must be 0 frames or more, or None for all; got -1"),
        ({"q": torch.zeros(5, 4)}, ValueError, r"q must be \[B, T, J, C\] with at least one channel, got \[5, 4\]"),
        ({"k": torch.zeros(2, 5, 3, 8)}, ValueError, r"k must have the shape of q, \[2, 5, 3, 4\], got \[2, 5, 3, 8\]"),
        ({"v": torch.zeros(2, 5, 3, 4, dtype=torch.float64)}, TypeError, "v must have the dtype of q, torch.float32"),
        ({"lengths": torch.tensor([1])}, ValueError, r"lengths must be \[B\] with B = 2"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    x = torch.zeros(2, 5, 3, 4)
    arguments = {"q": x, "k": x, "v": x, "heads": 2, "axis": "frames"}
    with pytest.raises(error, match=message):
        attend_axis(**{**arguments, **change})
