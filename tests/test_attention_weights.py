"""Attention with features and weights of edges, dropout, and the weights themselves given back."""

import pytest
import torch
from graphs import BACKENDS, CASES, Case, assert_matches_reference, generator, names
from torch import Tensor
from torch.nn.functional import leaky_relu

from fastst import EdgeList, SkeletonGraph, SlotGraph
from fastst.ops import attend, propagate, use_backend

ALL = ["reference", *BACKENDS]
FULL, NO_FRAMES, SHARED = "of each", "the same in all frames", "the same in all walks"
SLOTS = SlotGraph([0, 1, 2, 2, 1], [1, 0, 1, 1, 2], [0, -1, 0, 2, 1], 4)


def kept(case: Case) -> Tensor:
    """Weights of 0, 1 and between; of some node all 0, on most graphs."""
    values = case.edges()
    return torch.where(values < -0.3, 0, torch.where(values > 0.8, 1, values.abs())).clone()


def features_of_edges(case: Case, C: int, shared: str = FULL) -> Tensor:
    """Not contiguous in memory."""
    B, T, P = case.B, case.T, case.graph.num_slots
    if shared == SHARED:
        return torch.randn(C, P, dtype=torch.float64, generator=generator(5)).T
    frames = [] if case.is_edge_list else [1 if shared == NO_FRAMES else T]
    return torch.randn(C, B, P, *frames, dtype=torch.float64, generator=generator(5)).movedim(0, -1)


def inputs_of(case: Case, heads: int, shared: str = FULL) -> list[Tensor]:
    C = heads * case.C
    att = torch.randn(heads, case.C, dtype=torch.float64, generator=generator(3))
    return [case.nodes(C), case.nodes(C).flip(-1), att, features_of_edges(case, C, shared), kept(case)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heads", "shared"), [(1, SHARED), (3, FULL), (2, NO_FRAMES)])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, heads: int, shared: str, backend: str):
    def run(x_src, x_dst, att, edge_attr, edge_weight):
        return attend(
            x_src, x_dst, att, case.graph, heads, lengths=case.length_tensor(), edge_attr=edge_attr, edge_weight=edge_weight,
            return_attention_weights=True,
        )  # fmt: skip

    assert_matches_reference(run, inputs_of(case, heads, shared), backend)


def by_hand(graph: SlotGraph, lengths: list[int], heads: int, x_src: Tensor, x_dst: Tensor, att: Tensor, edge_attr: Tensor, weight: Tensor) -> Tensor:
    """α edge by edge, as the formula reads.  # [B, P, T, heads]"""
    B, T = x_src.shape[:2]
    slots = list(enumerate(zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True)))
    alpha = [[[torch.zeros(heads, dtype=torch.float64)] * T for _ in slots] for _ in range(B)]
    for b in range(B):
        for t in range(lengths[b]):
            for node in range(graph.num_joints):
                into = [(p, src, t + offset) for p, (src, dst, offset) in slots if dst == node and 0 <= t + offset < lengths[b]]
                powers = {}
                for p, src, s in into:
                    hidden = leaky_relu(x_src[b, s, src] + x_dst[b, t, node] + edge_attr[b, p, t], 0.2)
                    powers[p] = (hidden.view(heads, -1) * att).sum(-1).exp()
                if any(weight[b, p, t] != 0 for p in powers):
                    total = sum(weight[b, p, t] * power for p, power in powers.items())
                    for p, power in powers.items():
                        alpha[b][p][t] = weight[b, p, t] * power / total
    return torch.stack([torch.stack([torch.stack(frames) for frames in walk]) for walk in alpha])


@pytest.mark.parametrize("backend", ALL)
def test_is_the_formula(backend: str):
    """α, its sum, and all gradients, by autograd through a loop over the edges. Some nodes' weights are all 0."""
    graph, lengths, heads = SLOTS, [5, 3], 2
    case = Case("", graph, 2, 5, 3, lengths)
    inputs = inputs_of(case, heads)
    inputs[-1][0, 4] = 0  # the only slot into joint 2
    inputs = [value.requires_grad_() for value in inputs]
    wanted_alpha = by_hand(graph, lengths, heads, *inputs)
    wanted = torch.stack(
        [propagate(inputs[0][..., 3 * h : 3 * h + 3], wanted_alpha[..., h], graph, lengths=case.length_tensor()) for h in range(heads)], -2
    ).flatten(-2)
    with use_backend(backend):
        y, alpha = attend(
            *inputs[:3], graph, heads, lengths=case.length_tensor(), edge_attr=inputs[3], edge_weight=inputs[4], return_attention_weights=True
        )
    torch.testing.assert_close(alpha, wanted_alpha)
    torch.testing.assert_close(y, wanted)
    for found, expected in ((y, wanted), (alpha, wanted_alpha)):
        gradients = (
            torch.autograd.grad(one, inputs, torch.arange(one.numel()).view(one.shape).double().sin(), retain_graph=True) for one in (found, expected)
        )
        for actual, gradient in zip(*gradients, strict=True):
            torch.testing.assert_close(actual, gradient)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("given", [(), ("edge_attr",), ("edge_weight",)], ids=str)
def test_features_or_weights_alone(given: tuple[str, ...], backend: str):
    case = Case("", SLOTS, 2, 5, 2, [5, 3])
    inputs = dict(zip(("x_src", "x_dst", "att", "edge_attr", "edge_weight"), inputs_of(case, 2), strict=True))
    names = ["x_src", "x_dst", "att", *given]

    def run(*values):
        return attend(
            **dict(zip(names, values, strict=True)), graph=SLOTS, heads=2, lengths=case.length_tensor(), return_attention_weights=True
        )  # fmt: skip

    assert_matches_reference(run, [inputs[name] for name in names], backend)


@pytest.mark.parametrize("backend", ALL)
def test_weights_of_one_are_none_and_weights_of_zero_are_missing_edges(backend: str):
    case = Case("", EdgeList(torch.tensor([[0, 1, 2, 3, 3, 4], [1, 0, 1, 1, 3, 0]]), 6), 2, 1, 4)
    x_src, x_dst, att, *_ = inputs_of(case, 1)
    fewer = EdgeList(case.graph.edge_index()[:, [0, 1, 3, 4]], 6)
    with use_backend(backend):
        every = attend(x_src, x_dst, att, case.graph, 1)
        torch.testing.assert_close(attend(x_src, x_dst, att, case.graph, 1, edge_weight=torch.ones(6, dtype=torch.float64)), every)
        kept = torch.tensor([1.0, 1, 0, 1, 1, 0], dtype=torch.float64)
        y, alpha = attend(x_src, x_dst, att, case.graph, 1, edge_weight=kept, return_attention_weights=True)
        torch.testing.assert_close(y, attend(x_src, x_dst, att, fewer, 1))
    assert (alpha[:, [2, 5]] == 0).all()
    torch.testing.assert_close(alpha[:, [0, 3]].sum(1), torch.ones(2, 1, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ALL)
def test_huge_scores_of_removed_edges(backend: str, dtype: torch.dtype):
    """Their weights' gradients are as large as may be and finite; the others' are as if they weren't there."""
    graph = EdgeList(torch.tensor([[1, 2, 3, 0], [0, 0, 0, 1]]), 4)
    huge = 100.0 if dtype == torch.float16 else 1e4
    x = torch.tensor([[[0.0], [1.0], [2.0], [huge]]], dtype=dtype).requires_grad_()
    weight, att = torch.tensor([[1.0, 1.0, 0.0, 0.0]], dtype=dtype, requires_grad=True), torch.ones(1, 1, dtype=dtype)
    with use_backend(backend):
        y, alpha = attend(x, x, att, graph, 1, edge_weight=weight, return_attention_weights=True)
        gradients = torch.autograd.grad(y[0, 0, 0], [x, weight])
    torch.testing.assert_close(alpha[0, :, 0].float(), torch.tensor([1, torch.e, 0, 0]) / (1 + torch.e), rtol=1e-2, atol=0)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[1][0, 2] > 1e3
    assert gradients[1][0, 3] == 0  # of a node whose weights are all 0
    assert gradients[0][0, 3] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_stands_where_no_edge_exists_does_not_matter(backend: str):
    """NaN there, in inputs and output gradients."""
    case = Case("", SLOTS, 2, 5, 2, [5, 3])
    x_src, x_dst, att, edge_attr, edge_weight = inputs_of(case, 2)
    exists, inside = case.edge_mask(), (torch.arange(5) < case.length_tensor()[:, None])[..., None, None]
    leaves = [
        torch.where(there, value, torch.nan).requires_grad_()
        for value, there in ((x_src, inside), (x_dst, inside), (edge_attr, exists[..., None]), (edge_weight, exists))
    ]
    with use_backend(backend):
        y, alpha = attend(
            *leaves[:2], att, SLOTS, 2, lengths=case.length_tensor(), edge_attr=leaves[2], edge_weight=leaves[3], return_attention_weights=True
        )  # fmt: skip
        dy, dalpha = torch.where(inside, y.detach().sign(), torch.nan), torch.where(exists[..., None], alpha.detach().cos(), torch.nan)
        gradients = torch.autograd.grad([y, alpha], leaves, [dy, dalpha])
    for value, there in ((y, inside), (alpha, exists[..., None]), *zip(gradients, (inside, inside, exists[..., None], exists), strict=True)):
        assert value.isfinite().all()
        assert (torch.where(there, 0, value) == 0).all()


@pytest.mark.parametrize("case", [CASES[4], CASES[6], CASES[10], CASES[12]], ids=names)
@pytest.mark.parametrize("backend", BACKENDS)
def test_opcheck_and_gradcheck(case: Case, backend: str):
    x_src, x_dst, att, edge_attr, edge_weight = inputs_of(case, 2)
    if case.is_edge_list:
        x_src, x_dst, edge_attr, edge_weight = x_src.unsqueeze(1), x_dst.unsqueeze(1), edge_attr.unsqueeze(2), edge_weight.unsqueeze(2)
    leaves = [value.detach().requires_grad_() for value in (x_src, x_dst, att, edge_attr, edge_weight + 0.1)]
    rest = (case.length_tensor(), *case.graph.index(), case.graph.slots_of_offset, 0.2, 40.0, backend)
    torch.library.opcheck(torch.ops.fastst.attention_weights.default, (*leaves, *rest))
    torch.library.opcheck(torch.ops.fastst.attention_weights.default, (*leaves[:3], None, None, *rest))
    assert torch.autograd.gradcheck(lambda *x: torch.ops.fastst.attention_weights(*x, *rest)[0], leaves, fast_mode=True)


@pytest.mark.parametrize("backend", [*ALL, "triton"])
def test_half_precision_gradients_of_weights_that_walks_share_are_rounded_once(backend: str):
    graph, x = EdgeList(torch.tensor([[0, 1], [2, 2]]), 3), torch.zeros(85, 3, 1, dtype=torch.float16)
    x[:, 0], weight = 6, torch.ones(2, dtype=torch.float16, requires_grad=True)
    with use_backend(backend):
        y = attend(x, x, torch.zeros(1, 1, dtype=torch.float16), graph, 1, edge_weight=weight)
    y.backward(torch.full(y.shape, 1 + 2**-10, dtype=torch.float16))
    once = torch.tensor(85 * 1.5 * (1 + 2**-10)).half()  # of each walk it is 1.50146, which in float16 would be 1.50195
    assert weight.grad.tolist() == [once, -once]


@pytest.mark.parametrize("backend", ALL)
def test_dropout(backend: str):
    """Each edge and head alone, with its probability; what stays counts more; another seed, others."""
    graph, x, att = SkeletonGraph("coco18", 2), torch.randn(4, 30, 18, 8, generator=generator()), torch.randn(4, 2, generator=generator(1))
    with use_backend(backend):
        _, whole = attend(x, x, att, graph, 4, return_attention_weights=True)
        y, alpha = attend(x, x, att, graph, 4, dropout=0.3, seed=5, return_attention_weights=True)
        again, other = (attend(x, x, att, graph, 4, dropout=0.3, seed=seed) for seed in (torch.tensor(5), 6))
        assert torch.equal(attend(x, x, att, graph, 4, dropout=1.0, seed=5), torch.zeros_like(x))
        torch.testing.assert_close(attend(x, x, att, graph, 4, dropout=0.0), attend(x, x, att, graph, 4))
    assert torch.equal(y, again)
    assert not torch.equal(y, other)
    kept = alpha != 0
    torch.testing.assert_close(alpha[kept], whole[kept] / 0.7)
    exists = whole != 0
    shares = torch.stack([kept[..., h][exists[..., h]].double().mean() for h in range(4)])
    count = int(exists[..., 0].sum())
    assert ((shares - 0.7).abs() < 5 * (0.21 / count) ** 0.5).all()
    heads = kept.double()[exists].view(-1, 4)  # one head says nothing of another
    assert (torch.corrcoef(heads.T) - torch.eye(4)).abs().max() < 5 / count**0.5
    torch.testing.assert_close(y, propagate(x, alpha, graph))


def test_dropout_is_the_same_on_every_backend_and_drops_loops_too():
    graph = EdgeList(torch.tensor([[0, 1, 2, 2, 1, 0], [0, 1, 2, 0, 0, 2]]), 3)
    x, att, found = torch.randn(40, 3, 2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64), []
    for backend in ALL:
        with use_backend(backend):
            leaf = x.clone().requires_grad_()
            y, alpha = attend(leaf, leaf, att, graph, 2, dropout=0.5, seed=1, return_attention_weights=True)
            found.append((y, alpha, *torch.autograd.grad(y.square().sum(), leaf)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b)
    assert (found[0][1][:, :3] == 0).any()


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("parallel", [False, True])
def test_added_loops_weigh_one(parallel: bool, backend: str):
    """A loop that the graph brings keeps its weight; where it may come several times, all are replaced by one of weight 1."""
    edges, weight = torch.tensor([[0, 1, 1, 2], [1, 0, 1, 1]]), torch.tensor([0.5, 2.0, 0.25, 1.5], dtype=torch.float64)
    x, att = torch.randn(1, 3, 2, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    loops = [0, 2] if not parallel else [0, 1, 2]
    kept = [0, 1, 2, 3] if not parallel else [0, 1, 3]
    explicit = EdgeList(torch.cat((edges[:, kept], torch.tensor([loops, loops])), 1), 3)
    values = torch.cat((weight[kept], torch.ones(len(loops), dtype=torch.float64)))
    with use_backend(backend):
        found = attend(
            x, x, att, EdgeList(edges, 3, parallel=parallel), 1, add_self_loops=True, edge_weight=weight, return_attention_weights=True
        )  # fmt: skip
        wanted = attend(x, x, att, explicit, 1, edge_weight=values, return_attention_weights=True)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("case", [CASES[4], CASES[8], CASES[10]], ids=names)
def test_propagate_with_heads(case: Case, backend: str):
    """As of every head alone; weights may be shared there too."""
    heads, x, own = 3, case.nodes(3 * case.C), case.per_node()
    weight = torch.stack([case.edges().roll(h, 0) for h in range(heads)], -1).requires_grad_()
    lengths = case.length_tensor()
    with use_backend(backend):
        y = propagate(x, weight, case.graph, own, lengths)
        parts = [propagate(part, weight[..., h], case.graph, own, lengths) for h, part in enumerate(x.split(case.C, -1))]
        torch.testing.assert_close(y, torch.cat(parts, -1))
        gradients = [torch.autograd.grad(one.square().sum(), weight)[0] for one in (y, torch.cat(parts, -1))]
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(propagate(x, weight[:1], case.graph, own, lengths)[0], y[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"edge_attr": torch.zeros(72, 3)},
            r"edge_attr must be \[B, P, T, C\], \[B, P, 1, C\] or \[P, C\] with B = 2, P = 72 .*, C = 4, got \[72, 3\]",
        ),
        ({"edge_weight": torch.zeros(2, 71, 5)}, r"edge_weight must be \[B, P, T\]"),
        ({"dropout": 1.5, "seed": 0}, "dropout must be from 0 to 1, got 1.5"),
        ({"dropout": 0.5}, "dropout = 0.5 needs a seed"),
        ({"edge_attr": torch.zeros(72, 4), "add_self_loops": True}, "edge_attr says nothing of the loops that add_self_loops adds"),
    ],
)
def test_errors_name_the_argument(change: dict, message: str):
    x = torch.zeros(2, 5, 18, 4)
    with pytest.raises(ValueError, match=message):
        attend(x, x, torch.zeros(2, 2), SkeletonGraph("coco18", 1), 2, **change)


def test_errors_of_heads_in_weights():
    graph, x = SkeletonGraph("coco18", 1), torch.zeros(2, 5, 18, 4)
    with pytest.raises(ValueError, match=r"the heads of weight must divide the channels C = 4, got \[2, 72, 5, 3\]"):
        propagate(x, torch.zeros(2, 72, 5, 3), graph)
    with pytest.raises(ValueError, match=r"weight, without its heads, must be \[B, P, T\] with B = 2, P = 72"):
        propagate(x, torch.zeros(2, 71, 5, 2), graph)


def test_compiled_in_full():
    torch._dynamo.reset()
    graph, att = SkeletonGraph("coco18", 1), torch.randn(2, 2)
    x, attr, weight = torch.randn(2, 4, 18, 4), torch.randn(72, 4), torch.rand(2, 72, 4)

    def run(x, attr, weight):
        return attend(x, x, att, graph, 2, edge_attr=attr, edge_weight=weight, dropout=0.5, seed=3, return_attention_weights=True)

    for found, wanted in zip(torch.compile(run, fullgraph=True, backend="aot_eager")(x, attr, weight), run(x, attr, weight), strict=True):
        torch.testing.assert_close(found, wanted)


WITH_TRITON = [*ALL, "triton"]
INTO_ONE = torch.tensor([[0, 1, 2, 0, 3, 4, 1, 2], [3, 3, 3, 1, 0, 3, 2, 2]])


@pytest.mark.parametrize("given", ["nothing", "edge_weight", "edge_attr", "alpha"])
@pytest.mark.parametrize("backend", WITH_TRITON)
def test_a_node_with_scores_of_minus_infinity_alone_is_one_without_edges(backend: str, given: str):
    """Of each head by itself; gradients of what was infinite are 0, the others as if its edges weren't there."""
    x_src, x_dst = (torch.randn(2, 5, 6, dtype=torch.float64, generator=generator(seed)) for seed in (1, 2))
    x_dst[:, 3, :2], x_dst[:, 2, 4:] = -torch.inf, -torch.inf  # of the first head, and of the last
    att, whole = torch.rand(3, 2, dtype=torch.float64, generator=generator(3)), EdgeList(INTO_ONE, 5)
    results = []
    for head in (None, 0, 1, 2):
        part = slice(None) if head is None else slice(2 * head, 2 * head + 2)
        stays = {None: INTO_ONE[1] >= 0, 0: INTO_ONE[1] != 3, 1: INTO_ONE[1] >= 0, 2: INTO_ONE[1] != 2}[head]
        graph = whole if head is None else EdgeList(INTO_ONE[:, stays], 5)
        weight, attr = torch.linspace(0.2, 1, 8, dtype=torch.float64), torch.randn(8, 6, dtype=torch.float64, generator=generator(4))
        finite = x_dst if head is None else x_dst.nan_to_num(neginf=0)
        leaves = [value.detach().clone().requires_grad_() for value in (x_src[..., part], finite[..., part], weight[stays], attr[stays][:, part])]
        options = {"edge_weight": leaves[2]} if given == "edge_weight" else {"edge_attr": leaves[3]} if given == "edge_attr" else {}
        with use_backend(backend if head is None else "torch"):
            y = attend(
                *leaves[:2], att if head is None else att[head : head + 1], graph, 3 if head is None else 1, **options,
                return_attention_weights=given == "alpha",
            )  # fmt: skip
            y = y[0] if given == "alpha" else y
        gradients = torch.autograd.grad((y * torch.arange(5)[:, None]).sum(), leaves, allow_unused=True)
        of_edges = [None if g is None else g.new_zeros(8, *g.shape[1:]).index_copy(0, stays.nonzero()[:, 0], g) for g in gradients[2:]]
        results.append([y, *gradients[:2], *of_edges])
    for n, found in enumerate(results[0]):
        if found is not None:
            parts = [result[n] for result in results[1:]]
            torch.testing.assert_close(found, sum(parts) if n == 3 else torch.cat(parts, -1), msg=f"output {n}")


@pytest.mark.parametrize("wrong", [-1.0, torch.nan, torch.inf])
@pytest.mark.parametrize("backend", WITH_TRITON)
def test_weights_that_are_none_give_nan_in_their_node_alone(backend: str, wrong: float):
    x = torch.randn(1, 5, 2, generator=generator())
    weight = torch.ones(1, 8)
    weight[0, 1] = wrong  # into node 3
    weight.requires_grad_()
    with use_backend(backend):
        y, _ = attend(x, x, torch.ones(1, 2), EdgeList(INTO_ONE, 5), 1, edge_weight=weight, return_attention_weights=True)
    (gradient,) = torch.autograd.grad(y[0].sum(), weight)
    assert y.isnan().any(2)[0].tolist() == [False, False, False, True, False]
    into = INTO_ONE[1] == 3
    into[1] = backend != "reference" or wrong != -1  # the reference puts NaN in its place
    assert torch.equal(gradient[0].isnan(), into)


def test_huge_scores_of_pairs_that_are_no_edges_do_not_count():
    """In the reference, which has them all."""
    graph = EdgeList(torch.tensor([[0, 1, 2], [3, 3, 3]]), 4)
    x = torch.tensor([0.0, 0, 0, 300]).view(1, 4, 1).requires_grad_()
    with use_backend("reference"):
        y, alpha = attend(x, torch.zeros_like(x), torch.ones(1, 1), graph, 1, return_attention_weights=True)
    torch.testing.assert_close(alpha, torch.full((1, 3, 1), 1 / 3))
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()
