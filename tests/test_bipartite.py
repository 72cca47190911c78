"""Graphs whose senders are other nodes than their receivers, bipartite edge lists and strided slots: every operation and gradient against a sum over
edges that plain loops find, in float64. What no edge and no frame of a walk has is NaN there, so that whoever reads it is found out."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from graphs import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import leaky_relu

from fastst import EdgeList, SlotGraph
from fastst.ops import (
    attend,
    edge_logits,
    gcn_norm,
    keep_probability,
    message,
    propagate,
    sample_edges,
    sample_from_embeddings,
    sample_k_edges,
    use_backend,
)

BACKENDS = ["reference", "torch", "cpu", "triton"]
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:overflow encountered", "ignore:divide by zero")


@dataclass
class Case:
    """slots: (from, to, offset), in the order of the edge values."""

    name: str
    slots: list[tuple[int, int, int]]
    num_src: int
    num_dst: int
    B: int
    C: int
    T: int = 0  # an edge list has none
    stride: int = 1
    lengths: list[int] | None = None

    @property
    def graph(self) -> SlotGraph | EdgeList:
        src, dst, offset = zip(*self.slots, strict=True) if self.slots else ((), (), ())
        if not self.T:
            return EdgeList(torch.tensor([src, dst], dtype=torch.int64), (self.num_src, self.num_dst))
        return SlotGraph(src, dst, offset, self.num_src, self.num_dst, self.stride)

    @property
    def frames(self) -> tuple[int, int]:
        """Of the senders and of the receivers."""
        return max(1, self.T), math.ceil(max(1, self.T) / self.stride)

    def ends(self) -> tuple[Tensor, ...]:
        """Walk, slot, frame that receives, frame that sends, sender and receiver of every edge."""
        found = []
        for b, (p, (src, dst, offset)), t in itertools.product(range(self.B), enumerate(self.slots), range(self.frames[1])):
            length = self.frames[0] if self.lengths is None else self.lengths[b]
            if t * self.stride < length and 0 <= t * self.stride + offset < length:
                found.append((b, p, t, t * self.stride + offset, src, dst))
        return torch.tensor(found, dtype=torch.int64).reshape(-1, 6).unbind(1)

    def length_tensor(self) -> Tensor | None:
        return None if self.lengths is None else torch.tensor(self.lengths)

    def nodes(self, receive: bool, C: int | None = None, seed: int = 0) -> Tensor:
        """Not contiguous."""
        T, N = self.frames[receive], self.num_dst if receive else self.num_src
        x = _random(self.B, T, C or self.C, N, seed=seed + receive).transpose(2, 3).clone()
        for b, length in enumerate(self.lengths or []):
            x[b, math.ceil(length / self.stride) if receive else length :] = math.nan
        return x.transpose(2, 3).contiguous().transpose(2, 3)

    def edges(self, *features: int, seed: int = 2) -> Tensor:
        values = torch.full((self.B, len(self.slots), self.frames[1], *features), math.nan, dtype=torch.float64)
        b, p, t, *_ = self.ends()
        values[b, p, t] = _random(*values.shape, seed=seed)[b, p, t]
        return values

    def given(self, nodes: Tensor) -> Tensor:
        return nodes if self.T else nodes.squeeze(1)

    def given_edges(self, values: Tensor) -> Tensor:
        return values if self.T else values.squeeze(2)

    def __str__(self) -> str:
        return self.name


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


SLOTS = [(0, 0, 0), (2, 1, -1), (1, 0, 1), (2, 0, 2), (0, 1, -3), (1, 1, 0), (2, 0, -4)]
CASES = [
    Case("more senders", [(4, 0, 0), (1, 1, 0), (2, 1, 0), (0, 1, 0), (3, 2, 0)], 5, 3, B=2, C=3),
    Case("more receivers", [(1, 5, 0), (0, 0, 0), (0, 5, 0)], 2, 6, B=1, C=1),
    Case("as many", [(0, 0, 0), (1, 1, 0), (2, 1, 0), (1, 3, 0)], 4, 4, B=2, C=5),
    Case("no edges", [], 2, 3, B=2, C=3),
    Case("stride 2", SLOTS, 3, 2, B=3, C=3, T=5, stride=2, lengths=[5, 0, 3]),
    Case("stride 2, full", SLOTS, 3, 2, B=1, C=1, T=6, stride=2),
    Case("T=1", SLOTS, 3, 4, B=2, C=1, T=1, stride=3),
    Case("T below the stride", SLOTS, 3, 2, B=1, C=3, T=2, stride=4, lengths=[2]),
    Case("stride 1", SLOTS, 3, 5, B=2, C=2, T=4, lengths=[4, 3]),
    Case("no slots", [], 2, 3, B=1, C=2, T=3, stride=2),
]
FEW = [case for case in CASES if case.name in ("more senders", "more receivers", "T below the stride")]  # Triton's interpreter is slow
PAIRS = [(case, backend) for backend in BACKENDS for case in (FEW if backend == "triton" else CASES)]
on_all = pytest.mark.parametrize(("case", "backend"), PAIRS, ids=str)


def assert_same(wanted: Callable[..., Tensor], found: Callable[..., Tensor], inputs: list[Tensor], backend: str) -> None:
    """Outputs, and the gradient of every input."""
    results = []
    for function in (wanted, found):
        leaves = [x.clone().requires_grad_() for x in inputs]
        with use_backend(backend):
            y = function(*leaves)
            gradients = torch.autograd.grad(y, leaves, _random(*y.shape, seed=9), allow_unused=True)
        results.append([y, *(torch.zeros_like(x) if g is None else g for g, x in zip(gradients, leaves, strict=True))])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-7)


def summed(case: Case, messages: Tensor) -> Tensor:
    b, _, t, _, _, dst = case.ends()
    total = messages.new_zeros(case.B, case.frames[1], case.num_dst, messages.shape[-1])
    return case.given(total.index_put((b, t, dst), messages, accumulate=True))


@on_all
@pytest.mark.parametrize("heads", [None, 3])
def test_propagate(case: Case, backend: str, heads: int | None):
    b, p, t, frame, src, _ = case.ends()

    def wanted(x, weight):
        messages = x[b, frame, src].unflatten(-1, (heads or 1, case.C)) * weight[b, p, t].view(len(b), heads or 1, 1)
        return summed(case, messages.flatten(1))

    def found(x, weight):
        return propagate(case.given(x), case.given_edges(weight), case.graph, lengths=case.length_tensor())

    C = case.C * (heads or 1)
    assert_same(wanted, found, [case.nodes(False, C), case.edges(*([heads] if heads else []))], backend)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("shape", ["P", "1P1", "BP1", "1PT"])
@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=str)
def test_propagate_on_shared_weights(case: Case, shape: str, backend: str):
    _, P, T = (case.B, len(case.slots), case.frames[1])
    given = {"P": (P,), "1P1": (1, P, 1), "BP1": (case.B, P, 1), "1PT": (1, P, T)}[shape]
    b, p, t, frame, src, _ = case.ends()

    def wanted(x, weight):
        whole = (weight[None, :, None] if weight.ndim == 1 else weight).expand(case.B, P, T)
        return summed(case, x[b, frame, src] * whole[b, p, t, None])

    def found(x, weight):
        weight = weight if weight.ndim == 1 else case.given_edges(weight)
        return propagate(case.given(x), weight, case.graph, lengths=case.length_tensor())

    assert_same(wanted, found, [case.nodes(False), _random(*given, seed=2)], backend)


def attention(case: Case, x_src: Tensor, x_dst: Tensor, att: Tensor, attr: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    b, p, t, frame, src, dst = case.ends()
    hidden = x_src[b, frame, src] + x_dst[b, t, dst] + (0 if attr is None else attr[b, p, t])
    terms = (leaky_relu(hidden, 0.2).unflatten(-1, att.shape) * att).sum(-1).exp() * (1 if weight is None else weight[b, p, t, None])
    total = terms.new_zeros(case.B, case.frames[1], case.num_dst, len(att)).index_put((b, t, dst), terms, accumulate=True)
    alpha = terms / total[b, t, dst]
    return summed(case, (x_src[b, frame, src].unflatten(-1, att.shape) * alpha[..., None]).flatten(1))


@on_all
@pytest.mark.parametrize("more", [False, True])
def test_attend(case: Case, backend: str, more: bool):
    heads, C = 2, 2 * case.C

    def found(x_src, x_dst, att, attr=None, weight=None):
        options = {"edge_attr": case.given_edges(attr), "edge_weight": case.given_edges(weight)} if more else {}
        return attend(case.given(x_src), case.given(x_dst), att, case.graph, heads, lengths=case.length_tensor(), **options)

    inputs = [case.nodes(False, C), case.nodes(True, C), _random(heads, case.C, seed=5)]
    assert_same(lambda *x: attention(case, *x), found, inputs + ([case.edges(C), case.edges(seed=4).abs()] if more else []), backend)


@on_all
def test_message(case: Case, backend: str):
    b, p, t, frame, src, _ = case.ends()

    def wanted(x, attr, weight):
        return summed(case, weight[b, p, t, None] * (x[b, frame, src] + attr[b, p, t]).relu())

    def found(x, attr, weight):
        return message(case.given(x), case.given_edges(attr), case.given_edges(weight), case.graph, lengths=case.length_tensor())

    assert_same(wanted, found, [case.nodes(False), case.edges(case.C), case.edges(seed=4)], backend)


@on_all
def test_edge_logits(case: Case, backend: str):
    b, p, t, frame, src, dst = case.ends()

    def wanted(q, k, bias):
        values = q.new_zeros(case.B, len(case.slots), case.frames[1])
        return case.given_edges(values.index_put((b, p, t), (q[b, t, dst] * k[b, frame, src]).sum(-1) + bias[p]))

    def found(q, k, bias):
        return edge_logits(case.given(q), case.given(k), case.graph, bias, case.length_tensor())

    assert_same(wanted, found, [case.nodes(True), case.nodes(False), _random(len(case.slots), seed=4)], backend)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_any_slots(data: st.DataObject):
    num_src, num_dst, stride, T = (data.draw(st.integers(1, most)) for most in (4, 4, 4, 9))
    slot = st.tuples(st.integers(0, num_src - 1), st.integers(0, num_dst - 1), st.integers(-6, 6))
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=2, max_size=2))
    case = Case("", data.draw(st.lists(slot, unique=True, max_size=8)), num_src, num_dst, 2, 2, T, stride, lengths)
    test_propagate(case, data.draw(st.sampled_from(["torch", "cpu"])), None)
    test_attend(case, data.draw(st.sampled_from(["torch", "cpu"])), False)


@pytest.mark.parametrize("case", [case for case in CASES if case.T], ids=str)
def test_slots_as_other_libraries_have_them(case: Case):
    graph, (T, received) = case.graph, case.frames
    assert [*zip(graph.src.tolist(), graph.dst.tolist(), graph.offset.tolist(), strict=True)] == case.slots
    b, p, t, frame, src, dst = case.ends()
    mask = torch.zeros(case.B, len(case.slots), received, dtype=torch.bool).index_put((b, p, t), torch.tensor(True))
    lengths = torch.tensor(case.lengths or [T] * case.B)
    assert torch.equal(graph.edge_mask(T, lengths), mask)
    ends = torch.stack(((b * T + frame) * case.num_src + src, (b * received + t) * case.num_dst + dst))
    assert torch.equal(graph.edge_index(T, lengths), ends)
    values, x = case.edges(), _random(case.B, T, case.num_src, 2, seed=0)
    y = graph.dense(T, values, lengths) @ x.flatten(1, 2)
    torch.testing.assert_close(y.view(case.B, received, case.num_dst, 2), propagate(x, values, graph, lengths=lengths))


def test_an_edge_list_as_other_libraries_have_it():
    given_edges = torch.tensor([[0, 1, 0, 2, 1], [1, 0, 1, 1, 1]])
    graph = EdgeList(given_edges, (3, 2), coalesce=True)
    assert (graph.edge_index().tolist(), graph.inverse.tolist()) == ([[0, 1, 2, 1], [1, 0, 1, 1]], [0, 1, 0, 2, 3])
    assert graph.dense().tolist() == [[0, 1, 0], [1, 1, 1]]
    assert (graph.loops.tolist(), str(graph)) == ([], "EdgeList(4 edges, 3 to 2 nodes)")


@pytest.mark.parametrize("backend", BACKENDS)
def test_sampling_of_strided_slots_is_that_of_slots_in_every_frame(backend: str):
    """By the same random numbers, where an edge exists; not moved by padding."""
    case = CASES[4]
    every = SlotGraph([0, 1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2, 3], 2)
    T, (b, p, t, *_) = case.frames[1], case.ends()
    logits = _random(3, 7, T + 3, seed=1)
    long = sample_edges(logits, every, seed=5)[..., :T]
    with use_backend(backend):
        poisoned = torch.full_like(logits[..., :T], math.nan).index_put((b, p, t), logits[b, p, t]).requires_grad_()
        kept = sample_edges(poisoned, case.graph, seed=5, lengths=case.length_tensor())
        kept.sum().backward()
    exists = torch.zeros_like(kept, dtype=torch.bool).index_put((b, p, t), torch.tensor(True))
    inside = every.edge_mask(T + 3)[None, :, :T].expand_as(exists)
    assert torch.equal(kept[exists & inside], long[exists & inside])
    assert (exists & inside).sum() > 10
    assert (kept[~exists] == 0).all()
    assert torch.equal(poisoned.grad, exists * 0.5)


K_CASES = [(case, per, backend) for backend in BACKENDS[:3] for per in ("graph", "frame", "dst") for case in (CASES[2], CASES[4])]


@pytest.mark.parametrize(("case", "per", "backend"), [*K_CASES, (CASES[2], "graph", "triton"), (CASES[4], "frame", "triton")], ids=str)
def test_exactly_k(case: Case, per: str, backend: str):
    """Of a node (i, i) too, which is no loop here."""
    b, p, t, _, _, dst = case.ends()
    group = {"graph": b, "frame": b * 99 + t, "dst": (b * 99 + t) * 99 + dst}[per]
    wanted = torch.stack([(group == g).sum().clamp(max=2) for g in group.unique()]).double()
    with use_backend(backend):
        logits = case.edges().requires_grad_()
        given_logits = case.given_edges(logits)
        kept, marginals, log_probability = sample_k_edges(given_logits, case.graph, 2, per=per, seed=3, samples=2, lengths=case.length_tensor())
        gradient = torch.autograd.grad(marginals.square().sum() + log_probability.sum(), logits)[0]
    for values in (*kept, marginals):
        values = values.view(logits.shape)
        found = torch.stack([values[b, p, t][group == g].sum() for g in group.unique()])
        torch.testing.assert_close(found, wanted)
        assert values.sum().item() == pytest.approx(wanted.sum().item())  # nothing where no edge exists
    assert gradient.isfinite().all()
    assert (gradient.sum() - gradient[b, p, t].sum()).abs() < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=str)
def test_sampling_from_embeddings_is_sampling_of_logits(case: Case, backend: str):
    q, k, bias = case.given(case.nodes(True)), case.given(case.nodes(False)), _random(len(case.slots), seed=4)
    q = q / 4  # no edge is certain
    with use_backend(backend):
        logits = edge_logits(q, k, case.graph, bias, case.length_tensor())
        wanted = sample_edges(logits, case.graph, seed=5, lengths=case.length_tensor())
        inputs = [x.clone().requires_grad_() for x in (q, k, bias)]
        kept = sample_from_embeddings(*inputs[:2], case.graph, inputs[2], seed=5, lengths=case.length_tensor())
        assert torch.equal(kept, wanted)
        gradients = torch.autograd.grad(kept.sum(), inputs)
        if not case.T:
            _, information = sample_from_embeddings(q, k, case.graph, bias, seed=5, prior=0.3)
            probability = keep_probability(logits)
            divergence = probability * (probability / 0.3).log() + (1 - probability) * ((1 - probability) / 0.7).log()
            torch.testing.assert_close(information, divergence.mean(1))
    leaves = [x.clone().requires_grad_() for x in (q, k, bias)]
    logits = edge_logits(leaves[0], leaves[1], case.graph, leaves[2], case.length_tensor())
    for found, expected in zip(gradients, torch.autograd.grad(logits.sum() / 2, leaves), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_opcheck(backend: str):
    graph, x = EdgeList(torch.tensor([[4, 1, 2, 0], [0, 1, 1, 1]]), (5, 3)), _random(2, 1, 5, 4, seed=0).requires_grad_()
    edges, index = _random(2, 4, 1, seed=1).requires_grad_(), graph.index()
    ops, ids = torch.ops.fastst, torch.arange(2)
    calls = {
        ops.propagate: (x, edges, None, None, *index, 0, backend),
        ops.edge_logits: (x, x.detach(), None, None, *index, 0, backend),
        ops.attend: (x, x.detach(), _random(2, 2, seed=2), None, *index, graph.slots_of_offset, 0.2, backend),
        ops.attention_weights: (
            *(x, x.detach(), _random(2, 2, seed=2), None, edges.detach().abs(), None),
            *(*index, graph.slots_of_offset, 0.2, 40.0, backend),
        ),
        ops.message: (x, _random(2, 4, 1, 4, seed=2), edges, None, *index, 0, 0.0, backend),
        ops.sample_edges: (edges, ids, None, *index, torch.tensor(3), 0, [2.0, 2.0, 1e-10, 0.0, 0.0], backend),
    }
    for operation, args in calls.items():
        torch.library.opcheck(operation.default, args)


def test_compiles_with_a_changing_number_of_frames():
    torch._dynamo.reset()
    graph, lengths = CASES[4].graph, torch.tensor([3, 5])

    def run(x, weight):
        return propagate(x, weight, graph, lengths=lengths).relu()

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for T in (5, 8):
        x, weight = torch.randn(2, T, 3, 4, requires_grad=True), torch.randn(7)
        y = compiled(x, weight)
        torch.testing.assert_close(y, run(x, weight))
        y.sum().backward()


def test_exports_with_an_open_batch():
    graph, x, attr, weight = CASES[4].graph, torch.randn(2, 6, 3, 4), torch.randn(2, 7, 3, 4), torch.rand(2, 7, 3)

    class Both(torch.nn.Module):
        def forward(self, x: Tensor, attr: Tensor, weight: Tensor) -> Tensor:
            y = propagate(x, weight, graph) + message(x, attr, weight, graph)
            return attend(x, y, torch.ones(1, 4), graph, 1)

    batch = {0: torch.export.Dim("batch", min=1)}
    exported = torch.export.export(Both(), (x, attr, weight), dynamic_shapes=(batch, batch, batch)).module()
    torch.testing.assert_close(exported(x[:1], attr[:1], weight[:1]), Both()(x[:1], attr[:1], weight[:1]))


LIST, STRIDED = EdgeList(torch.tensor([[2], [1]]), (3, 2)), SlotGraph([2], [1], [0], 3, 2, stride=2)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_gradients_of_attention_at_edges_that_do_not_exist_are_not_looked_at(backend: str):
    """A stride that does not divide the walk has more edges in the square graph than there are."""
    x_src, x_dst, att = torch.randn(1, 5, 3, 4), torch.randn(1, 3, 2, 4), torch.randn(1, 4)
    graph = SlotGraph([0, 1, 2], [0, 1, 0], [0, 1, 1], 3, 2, 2)
    leaves = [x.double().requires_grad_() for x in (x_src, x_dst, att)]
    with use_backend(backend):
        _, alpha = attend(*leaves, graph, 1, return_attention_weights=True)
    toward = torch.where(graph.edge_mask(5)[None, ..., None], 1.0, torch.nan).double()
    assert toward.isnan().any()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(alpha, leaves, toward))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EdgeList(torch.tensor([[3], [1]]), (3, 2)), r"edge 0 goes from node 3 to node 1, but the nodes that send are 0 to 2, those that re"),
        (lambda: EdgeList(torch.tensor([[1], [2]]), (3, 2)), r"those that receive 0 to 1 \(num_nodes\)"),
        (lambda: EdgeList(torch.tensor([[1], [1]]), (3, 0)), r"num_nodes must be a whole number of at least 1, or two, got \(3, 0\)"),
        (lambda: EdgeList(torch.tensor([[1], [1]]), (3, 2, 1)), r"num_nodes must be N, or two numbers \(n, m\), got \(3, 2, 1\)"),
        (lambda: EdgeList(torch.tensor([[1], [1]]), (3, 2), add_self_loops=True), "add_self_loops is for nodes that send and receive"),
        (lambda: EdgeList(torch.tensor([[2, 2], [1, 1]]), (3, 2)), "the edge from node 2 to node 1 appears more than once"),
        (lambda: SlotGraph([1, 1], [0, 0], [-3, -3], 2, stride=2), "the slot from joint 1 to joint 0 at offset -3 appears more than once"),
        (lambda: SlotGraph([0], [2], [0], 3, 2), r"slot 0 goes from joint 0 to joint 2, .* receive 0 to 1 \(num_src, num_dst\)"),
        (lambda: SlotGraph([0], [0], [0], 3, 0), "num_dst must be at least 1, got 0"),
        (lambda: SlotGraph([0], [0], [0], 3, stride=0), "stride must be at least 1, got 0"),
        (lambda: LIST.with_loops, "has no loops, for its senders are other nodes"),
        (lambda: gcn_norm(torch.ones(1, 1), LIST), r"gcn_norm is not for EdgeList\(1 edges, 3 to 2 nodes\), whose senders and receivers"),
        (lambda: gcn_norm(torch.ones(1, 1, 2), STRIDED), r"gcn_norm is not for SlotGraph\(1 slots, 3 to 2 joints, stride 2\).*; divide the weights"),
        (lambda: propagate(torch.ones(1, 3, 4), torch.ones(1, 1), LIST, torch.ones(1, 3)), "self_weight is not for .*; leave it out"),
        (
            lambda: attend(torch.ones(1, 3, 4), torch.ones(1, 2, 4), torch.ones(1, 4), LIST, 1, add_self_loops=True),
            "add_self_loops is not for .* give the edges that are wanted",
        ),
        (lambda: propagate(torch.ones(1, 2, 4), torch.ones(1, 1), LIST), r"x must be \[B, N, C\] with N = 3, the senders, as in"),
        (
            lambda: attend(torch.ones(1, 3, 4), torch.ones(1, 3, 4), torch.ones(1, 4), LIST, 1),
            r"x_dst must be \[B, N, C\] with N = 2, the receivers, as in .*, got \[1, 3, 4\]",
        ),
        (
            lambda: attend(torch.ones(1, 5, 3, 4), torch.ones(1, 5, 2, 4), torch.ones(1, 4), STRIDED, 1),
            r"x_dst must have as many frames as fit x_src, \[1, 5, 3, 4\]: of 2 frames that send one receives; got \[1, 5, 2, 4\]",
        ),
        (lambda: edge_logits(torch.ones(2, 2, 4), torch.ones(1, 3, 4), LIST), r"k must have the batch and the channels of q, \[2, 2, 4\], got \[1,"),
        (lambda: edge_logits(torch.ones(1, 3, 2, 4), torch.ones(1, 7, 3, 4), STRIDED), r"k must have as many frames as fit q"),
        (
            lambda: sample_from_embeddings(torch.ones(1, 3, 2, 4), torch.ones(1, 6, 3, 4), STRIDED, seed=0, prior=0.5),
            "prior is not for .*; take edge_logits, then sample_edges",
        ),
        (lambda: propagate(torch.ones(1, 5, 3, 4), torch.ones(1, 1, 5), STRIDED), r"weight must be \[B, P, T\] with B = 1, P = 1 .*, T = 3, got"),
    ],
)  # fmt: skip
def test_what_is_refused(make: Callable, message: str):
    with pytest.raises(ValueError, match=message):
        make()
