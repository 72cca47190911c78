import math

import pytest
import torch
from graphs import BACKENDS, assert_matches_reference, generator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from fastst.nn import EncoderLayer
from fastst.ops import feed_forward, linear, linears, use_backend

# shape of x without its channels, channels before and after
SIZES = [((2, 5, 3), 6, 10), ((0,), 4, 3), ((1,), 1, 1), ((49,), 16, 33), ((3, 100), 70, 2), ((97,), 64, 64), ((1600,), 3, 5)]
NORM = 1e-5
CHOICES = {  # norm, residual, relu
    "plain": (False, False, False),
    "norm": (True, False, False),
    "residual": (False, True, False),
    "relu": (False, False, True),
    "all": (True, True, True),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def layer(K: int, M: int) -> list[Tensor]:
    """Weight, bias, and the weight and the bias of a norm."""
    return [random(M, K, seed=1) / math.sqrt(K), random(M, seed=2), 1 + random(K, seed=3) / 2, random(K, seed=4)]


def block(C: int, F: int) -> list[Tensor]:
    """Norm, inner and outer layer."""
    W, b, *norm = layer(C, F)
    return [*norm, W, b, *layer(F, C)[:2]]


def scattered(*shape: int, seed: int = 0) -> Tensor:
    """Not contiguous in memory."""
    return random(*shape[::-1], seed=seed).permute(*range(len(shape) - 1, -1, -1))


def of(normed: bool, gamma: Tensor, beta: Tensor, eps: float = NORM):
    return (gamma, beta, eps) if normed else None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(("shape", "K", "M"), SIZES)
def test_linear_matches_reference(shape, K, M, choice, backend):
    normed, summed, relu = CHOICES[choice]

    def run(x, residual, W, b, gamma, beta):
        y = linear(x, W, b, norm=of(normed, gamma, beta, 0.1), residual=residual if summed else None, share=0.3, relu=relu)
        return y + 0 * (gamma.sum() + beta.sum() + residual.sum())  # where these are not used

    assert_matches_reference(run, [scattered(*shape, K), scattered(*shape, M, seed=5), *layer(K, M)], backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize(("shape", "K", "M"), SIZES)
def test_several_linears_match_reference(shape, K, M, parts, backend):
    inputs = [scattered(*shape, K), *layer(K, parts * M)]
    assert_matches_reference(lambda x, W, b, gamma, beta: linears(x, W, b, parts, (gamma, beta, 0.1)), inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("shape", "C", "F"), SIZES)
def test_feed_forward_matches_reference(shape, C, F, backend):
    def run(x, gamma, beta, *layers):
        return feed_forward(x, (gamma, beta, 0.1), *layers)

    assert_matches_reference(run, [scattered(*shape, C), *block(C, F)], backend)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 120), st.integers(1, 40), st.integers(1, 40), st.sampled_from(list(CHOICES)))
def test_any_sizes(N, K, M, choice):
    normed, summed, relu = CHOICES[choice]
    W, b, gamma, beta = layer(K, M)

    def run(x, residual, W, b):
        y = linear(x, W, b, norm=of(normed, gamma, beta, 0.1), residual=residual if summed else None, relu=relu)
        return y, feed_forward(x, (gamma, beta, 0.1), W, b, W.T, beta) + 0 * residual.sum()

    for backend in BACKENDS:
        assert_matches_reference(run, [random(N, K), random(N, M, seed=5), W, b], backend)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_are_torchs_layers_written_as_loops(backend: str):
    x, (W, b, gamma, beta) = random(5, 3), layer(3, 4)
    out, out_bias = layer(4, 3)[:2]
    residual = random(5, 4, seed=7)
    ys, zs = torch.zeros(5, 4, dtype=torch.float64), x.clone()
    for n in range(5):
        mean = sum(x[n]) / 3
        deviation = math.sqrt(sum((v - mean) ** 2 for v in x[n]) / 3 + NORM)
        normed = [(x[n, c] - mean) / deviation * gamma[c] + beta[c] for c in range(3)]
        into = [sum(W[m, c] * normed[c] for c in range(3)) + b[m] for m in range(4)]
        for m in range(4):
            ys[n, m] = max(into[m] + 0.5 * residual[n, m], 0)
        hidden = [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in into]
        for c in range(3):
            zs[n, c] += sum(out[c, m] * hidden[m] for m in range(4)) + out_bias[c]
    with use_backend(backend):
        torch.testing.assert_close(linear(x, W, b, norm=(gamma, beta, NORM), residual=residual, share=0.5, relu=True), ys)
        torch.testing.assert_close(feed_forward(x, (gamma, beta, NORM), W, b, out, out_bias), zs)


def test_gelu_is_torchs_far_out_too():
    x = torch.cat((torch.linspace(-40, 40, 4001, dtype=torch.float64), torch.tensor([-1e30, 1e30, math.inf, 0.0, -0.0], dtype=torch.float64)))
    for dtype, eps in ((torch.float64, 1e-14), (torch.float32, 2e-7)):
        values = x.to(dtype).requires_grad_()
        rows = values.unsqueeze(1)  # a norm gives β alone, and W β + b is the value
        one, zero = torch.ones(1, 1, dtype=dtype), torch.zeros(1, dtype=dtype)
        found = torch.cat([feed_forward(torch.zeros(1, 1, dtype=dtype), (one[0], zero, 1.0), one, row, one, zero)[0] for row in rows])
        expected = functional.gelu(values.double())  # in float32 torch is less exact, and has no number for infinity
        torch.testing.assert_close(found.double(), expected, atol=eps, rtol=eps)
        inside = x.abs() < 100
        slopes = (torch.autograd.grad(y[inside].sum(), values)[0][inside] for y in (found, expected))
        torch.testing.assert_close(*slopes, atol=4 * eps, rtol=4 * eps)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_does_not_depend_on_the_others_nor_gradients_on_threads(backend: str):
    x, weights = random(200, 20).float(), [v.float() for v in block(20, 40)]
    dy = random(200, 20, seed=8).float()

    def run(x: Tensor, dy: Tensor) -> list[Tensor]:
        leaves = [v.detach().requires_grad_() for v in (x, *weights)]
        gamma, beta, W, b, *outer = leaves[1:]
        y = feed_forward(leaves[0], (gamma, beta, NORM), W, b, *outer)
        y = linear(y, outer[0].T[:20], outer[1], norm=(gamma, beta, NORM), residual=leaves[0], relu=True)
        return [y, *torch.autograd.grad(y, leaves, dy)]

    with use_backend(backend):
        whole = run(x, dy)
        part = run(x[60:61], dy[60:61])
        equal = {"atol": 0, "rtol": 0} if backend == "cpu" else {"atol": 1e-5, "rtol": 1e-5}
        for found, expected in zip(part[:2], whole[:2], strict=True):
            torch.testing.assert_close(found, expected[60:61], **equal)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1 if threads > 1 else 3)
            assert all(map(torch.equal, run(x, dy), whole)) or backend != "cpu"
        finally:
            torch.set_num_threads(threads)


@pytest.mark.parametrize("wanted", range(6))
def test_gradients_of_some(wanted: int):
    inputs = [random(7, 6), *layer(6, 6), random(7, 6, seed=9)]
    inputs[wanted].requires_grad_()
    found = []
    for backend in ("reference", "cpu"):
        x, W, b, gamma, beta, residual = inputs
        with use_backend(backend):
            y = linear(x, W, b, norm=(gamma, beta, NORM), residual=residual, relu=True)
            y = feed_forward(y, (gamma, beta, NORM), W, b, W, b)
        found.append(torch.autograd.grad(y.square().sum(), inputs[wanted])[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_good_as_torchs(dtype: torch.dtype):
    """At most twice the error of torch's own layers on the same numbers."""
    x, residual, *inputs = (v.to(dtype) for v in (random(50, 32), random(50, 32, seed=9), *block(32, 64)))
    for run in (
        lambda x, residual, gamma, beta, W, b, *outer: feed_forward(x, (gamma, beta, NORM), W, b, *outer),
        lambda x, residual, gamma, beta, W, b, *_: linear(x, W[:32], b[:32], norm=(gamma, beta, NORM), residual=residual),
    ):
        results = []
        for backend, kind in (("cpu", dtype), ("torch", dtype), ("reference", torch.float64)):
            leaves = [v.to(kind).requires_grad_() for v in (x, residual, *inputs)]
            with use_backend(backend):
                y = run(*leaves)
                assert y.dtype == kind
                gradients = torch.autograd.grad(y.sum() * 0.1, leaves, allow_unused=True)
            results.append([v.double() for v in (y, *gradients) if v is not None])
        for ours, theirs, exact in zip(*results, strict=True):
            assert (ours - exact).abs().max() <= 2 * (theirs - exact).abs().max() + 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_gives_the_dtypes_of_torchs_layers(backend: str):
    x, residual = random(2, 3, 16).float(), random(2, 3, 16, seed=9).float()
    gamma, beta, W, b, *outer = (v.float().requires_grad_() for v in block(16, 16))
    norm = (gamma, beta, NORM)
    with torch.autocast("cpu", torch.bfloat16), use_backend(backend):
        y = linear(x, W, b, norm=norm)
        assert y.dtype == torch.bfloat16
        assert linears(x, W, b, 2)[1].dtype == torch.bfloat16
        y = linear(y, W, b, residual=residual)
        assert y.dtype == torch.float32
        y = feed_forward(y, norm, W, b, *outer)
        assert y.dtype == torch.float32
    y.sum().backward()
    assert {v.grad.dtype for v in (gamma, beta, W, b, *outer)} == {torch.float32}
    with use_backend("reference"):
        exact = feed_forward(linear(linear(x, W, b, norm=norm), W, b, residual=residual), norm, W, b, *outer)
    torch.testing.assert_close(y, exact, atol=0.1, rtol=0.1)


def test_opcheck_gradcheck_and_compile():
    x, residual, (W, b, gamma, beta) = random(2, 4, 6).requires_grad_(), random(2, 4, 9, seed=9).requires_grad_(), layer(6, 9)
    W, b, out, out_bias = (v.requires_grad_() for v in (W, b, *layer(9, 6)[:2]))
    of_linear = (1, True, 0.1, 0.5, True, torch.float64, "cpu")
    of_parts = (3, True, 0.1, 1.0, False, torch.float64, "cpu")
    of_block = (0.1, torch.float64, "cpu")
    for op, arguments in (
        (torch.ops.fastst.linear.default, (x, W, b, residual, *of_linear)),
        (torch.ops.fastst.linear.default, (x, W, b, None, *of_parts)),
        (torch.ops.fastst.feed_forward.default, (x, W, b, out, out_bias, *of_block)),
    ):
        torch.library.opcheck(op, arguments)
        leaves = [v for v in arguments if isinstance(v, Tensor)]
        rest = arguments[len(leaves) :]
        assert torch.autograd.gradcheck(lambda *v, op=op, rest=rest: op(*v, *rest), leaves, fast_mode=True)

    def run(x):
        q, k, v = linears(x, W, b, 3, (gamma, beta, NORM))
        return linear(torch.cat((q, k, v), -1), out, out_bias, residual=feed_forward(x, (gamma, beta, NORM), W, b, out, out_bias), relu=True)

    for found, wanted in zip(
        torch.autograd.grad(torch.compile(run, fullgraph=True)(x).sum(), (x, W)), torch.autograd.grad(run(x).sum(), (x, W)), strict=True
    ):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("attention", ["factorized", "local", "full"])
def test_an_encoder_layer_is_its_modules_one_after_the_other(attention: str):
    encoder, h = EncoderLayer(16, 2, attention, window=2), random(2, 5, 3, 16).float()
    for value in encoder.parameters():
        nn.init.normal_(value, std=0.3)
    (norm, block_norm), attend = (encoder.norms[0], encoder.feed_forward[0]), encoder.attentions[0]
    expected = h
    if attention == "full":
        q, k, v = (x.reshape(2, 15, 2, 8).transpose(1, 2) for x in attend.project(norm(h)).chunk(3, -1))
        expected = h + attend.output(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(h.shape))
        expected = expected + encoder.feed_forward(expected)
        found = encoder(h)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        gradients = (torch.autograd.grad(y.square().mean(), [*encoder.parameters()]) for y in (found, expected))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    else:
        with use_backend("reference"):
            expected = encoder(h)
        torch.testing.assert_close(encoder(h), expected, atol=1e-5, rtol=1e-5)
    assert isinstance(block_norm, nn.LayerNorm)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(5, 0)}, ValueError, r"x must be \[\.\.\., K\] with at least one channel, got \[5, 0\]"),
        ({"x": [1.0]}, TypeError, "x must be a tensor, got list"),
        ({"weight": torch.zeros(3, 5)}, ValueError, r"weight must be \[M, 4\] with at least one row, got \[3, 5\]"),
        ({"weight": torch.zeros(3, 4, dtype=torch.float64)}, TypeError, "weight must have the dtype of x, torch.float32, got torch.float64"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias must be \[3\], a number for every row of weight, got \[4\]"),
        ({"norm": (torch.ones(3), torch.zeros(3), NORM)}, ValueError, r"norm must be weight \[4\], bias \[4\] and ε, got \[3\] and \[3\]"),
        ({"residual": torch.zeros(1, 3)}, ValueError, r"residual must be \[5, 3\] like the result, got \[1, 3\]"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    arguments = {"x": torch.zeros(5, 4), "weight": torch.zeros(3, 4), "bias": torch.zeros(3)}
    with pytest.raises(error, match=message):
        linear(**{**arguments, **change})


def test_errors_of_parts_and_blocks():
    x, W, b = torch.zeros(5, 4), torch.zeros(6, 4), torch.zeros(6)
    norm = (torch.ones(4), torch.zeros(4), NORM)
    for parts in (0, 4):
        with pytest.raises(ValueError, match=f"parts must be 1 to 3 and divide the rows of weight, 6; got {parts}"):
            linears(x, W, b, parts)
    with pytest.raises(ValueError, match=r"out_weight must be \[4, 6\], back to the channels of x, got \[5, 6\]"):
        feed_forward(x, norm, W, b, torch.zeros(5, 6), torch.zeros(5))
    with pytest.raises(ValueError, match=r"out_weight must be \[M, 6\]"):
        feed_forward(x, norm, W, b, W, b)
