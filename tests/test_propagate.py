import importlib
from unittest import mock

import pytest
import torch
from graphs import BACKENDS, CASES, SOME_INPUTS, Case, assert_gradients_of_some, assert_matches_reference, generator, lifted, names

from fastst import EdgeList, SkeletonGraph, SlotGraph
from fastst.cpu import products, threads
from fastst.ops import attend, gcn_norm, message, propagate, use_backend

propagation = importlib.import_module("fastst.ops.propagate")  # the function has its name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_self", [True, False])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, with_self: bool, backend: str):
    lengths = case.length_tensor()

    def run(x, weight, self_weight=None):
        return propagate(x, weight, case.graph, self_weight, lengths)

    inputs = [case.nodes(), case.edges()] + ([case.per_node()] if with_self else [])
    assert_matches_reference(run, inputs, backend)


def test_one_edge_by_hand():
    graph = SkeletonGraph("coco18", 1)
    slot = next(p for p in range(72) if (graph.dst[p], graph.src[p], graph.offset[p]) == (15, 15, -1))
    x, weight = torch.zeros(1, 3, 18, 2), torch.zeros(1, 72, 3)
    x[0, 0, 15] = torch.tensor([3.0, 5.0])
    weight[0, slot, 1] = 2.0
    y = propagate(x, weight, graph)
    assert y[0, 1, 15].tolist() == [6.0, 10.0]
    assert y.count_nonzero() == 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_opcheck(case: Case, backend: str):
    x, self_weight, weight = lifted(case, [case.nodes(), case.per_node()], [case.edges()])
    args = (x, weight, self_weight, case.length_tensor(), *case.graph.index(), case.graph.hops, backend)
    torch.library.opcheck(torch.ops.fastst.propagate.default, args)


@pytest.mark.parametrize("case", CASES, ids=names)
def test_gradcheck(case: Case):
    inputs = [x.detach().requires_grad_() for x in (case.nodes(), case.edges(), case.per_node())]

    def run(x, weight, self_weight):
        return propagate(x, weight, case.graph, self_weight, case.length_tensor())

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_the_result_may_be_changed_in_place(case: Case, backend: str):
    """As a layer does that adds its bias."""
    x, weight = case.nodes().requires_grad_(), case.edges()
    with use_backend(backend):
        y = propagate(x, weight, case.graph, case.per_node(), case.length_tensor())
        changed = propagate(x, weight, case.graph, case.per_node(), case.length_tensor()).add_(1).relu_()
    assert torch.equal(changed, (y + 1).relu())
    assert torch.equal(*(torch.autograd.grad(v.sum(), x)[0] for v in ((y + 1).relu(), changed)))


def test_padding_is_never_read():
    graph = SkeletonGraph("coco17", 2)
    lengths = torch.tensor([3])
    x, weight = torch.randn(1, 6, 17, 4), torch.randn(1, graph.num_slots, 6)
    alone = propagate(x[:, :3], weight[..., :3], graph)
    x[:, 3:], weight[..., 3:] = float("nan"), float("nan")
    padded = propagate(x, weight, graph, lengths=lengths)
    torch.testing.assert_close(padded[:, :3], alone)
    assert (padded[:, 3:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("graph", [SkeletonGraph("coco18", 2), EdgeList(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)], ids=str)
def test_half_precision_features_with_float32_weights(graph, dtype):
    case = Case("", graph, 2, 5, 16)
    x, weight = case.nodes(dtype=torch.float32), case.edges(dtype=torch.float32)
    exact = propagate(x, weight, graph)
    half_x, leaf = x.to(dtype).requires_grad_(), weight.clone().requires_grad_()
    half = propagate(half_x, leaf, graph)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), exact, atol=0.1, rtol=0.02)
    half.sum().backward()
    assert (half_x.grad.dtype, leaf.grad.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("hops", [1, 2])
def test_equals_gcnconv_of_pytorch_geometric(hops: int):
    geometric = pytest.importorskip("torch_geometric.nn", reason="torch-geometric is not installed (extra `peers`)")
    graph, T, lengths = SkeletonGraph("coco18", hops), 6, torch.tensor([6, 4])
    conv = geometric.GCNConv(5, 7)
    x = torch.randn(2, T, 18, 5)
    kept = graph.edge_mask(T, lengths).float()
    weight, self_weight = gcn_norm(kept, graph, lengths)
    ours = propagate(x @ conv.lin.weight.T, weight, graph, self_weight, lengths) + conv.bias
    theirs = conv(x.reshape(-1, 5), graph.edge_index(T, lengths)).view(2, T, 18, 7)
    for walk, length in enumerate(lengths):
        torch.testing.assert_close(ours[walk, :length], theirs[walk, :length], atol=1e-5, rtol=1e-5)


def test_compiles_with_a_changing_number_of_frames():
    graph = SkeletonGraph("coco18", 2)
    compiled = torch.compile(lambda x, w: propagate(x * 2, w, graph).relu(), fullgraph=True, dynamic=True)
    for T in (5, 9, 12):
        x, weight = torch.randn(2, T, 18, 4, requires_grad=True), torch.randn(2, graph.num_slots, T)
        y = compiled(x, weight)
        torch.testing.assert_close(y, propagate(x * 2, weight, graph).relu())
        y.sum().backward()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(2, 5, 17, 4)}, ValueError, r"x must be \[B, T, J, C\] with J = 18 .*got \[2, 5, 17, 4\]"),
        ({"x": torch.zeros(2, 5, 18, 0)}, ValueError, r"x must have at least one channel, got \[2, 5, 18, 0\]"),
        ({"x": torch.zeros(2, 5, 18, 4, dtype=torch.int64)}, TypeError, "x must be a floating-point tensor, got torch.int64"),
        ({"weight": torch.zeros(2, 71, 5)}, ValueError, r"weight must be \[B, P, T\] with B = 2, P = 72 .*T = 5, got \[2, 71, 5\]"),
        ({"weight": torch.ones(72, dtype=torch.int64)}, TypeError, "weight must be a floating-point tensor, got torch.int64"),
        ({"weight": torch.zeros(2, 72, 5, device="meta")}, ValueError, "weight is on meta, but x is on cpu"),
        ({"self_weight": torch.zeros(2, 5)}, ValueError, r"self_weight must be \[2, 5, 18\]"),
        ({"lengths": torch.zeros(3, dtype=torch.int64)}, ValueError, r"lengths must be \[B\] with B = 2, got \[3\]"),
        ({"lengths": [5, 5]}, TypeError, "lengths must be a tensor of int32 or int64, got list"),
        ({"graph": "coco18"}, TypeError, "graph must be a SkeletonGraph, a SlotGraph or an EdgeList, got str"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    arguments = {"x": torch.zeros(2, 5, 18, 4), "weight": torch.zeros(2, 72, 5), "graph": SkeletonGraph("coco18", 1)}
    with pytest.raises(error, match=message):
        propagate(**{**arguments, **change})


def test_an_edge_list_has_no_lengths():
    graph = EdgeList(torch.tensor([[0], [1]]), 2)
    with pytest.raises(ValueError, match="lengths counts frames, which an EdgeList does not have"):
        propagate(torch.zeros(1, 2, 3), torch.zeros(1, 1), graph, lengths=torch.ones(1, dtype=torch.int64))


SHARED = [(SkeletonGraph("coco17", 2), T, lengths) for T, lengths in ((1, [1, 0, 1]), (6, None), (35, [35, 33, 9]))]
SHARED = [(graph, T, lengths, shape) for graph, T, lengths in SHARED for shape in ("P", "BP1", "1PT", "1P1")]
SHARED += [(EdgeList(torch.tensor([[0, 1, 1, 2, 3], [1, 0, 2, 2, 2]]), 4), 1, None, shape) for shape in ("P", "1P")]


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize(("graph", "T", "lengths", "shape"), SHARED)
def test_shared_weights_are_those_of_every_walk_and_frame(graph, T: int, lengths, shape: str, backend: str, monkeypatch):
    """Outputs and all gradients, be they made of all walks at once or of two and one; some with self weights."""
    case, B, with_self = Case("", graph, 3, T, 3), 3, shape in ("P", "1PT")
    x, own = case.nodes(), case.per_node() if with_self else None
    weight = torch.randn([{"B": B, "P": graph.num_slots, "T": T, "1": 1}[letter] for letter in shape], dtype=torch.float64)
    whole = weight[None] if weight.ndim == 1 else weight
    whole = whole[..., None] if whole.ndim == 2 and not case.is_edge_list else whole
    lengths = None if lengths is None else torch.tensor(lengths)
    for at_once in (1 << 20, 2 * graph.num_slots * T):
        monkeypatch.setattr(propagation, "_AT_ONCE", at_once)
        leaves = [v.clone().requires_grad_() for v in ((x, weight, own) if with_self else (x, weight))]
        with use_backend(backend):
            found = propagate(leaves[0], leaves[1], graph, *leaves[2:], lengths=lengths)
            gradient = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(1))
            gradients = torch.autograd.grad(found, leaves, gradient)
            (alone,) = torch.autograd.grad(propagate(x, leaves[1], graph, own, lengths), leaves[1], gradient)
        copied = [v.clone().requires_grad_() for v in ((x, whole.expand_as(case.edges()), own) if with_self else (x, whole.expand_as(case.edges())))]
        with use_backend("reference"):
            wanted = propagate(copied[0], copied[1], graph, *copied[2:], lengths=lengths)
            exact = torch.autograd.grad(wanted, copied, gradient)
        torch.testing.assert_close(found, wanted)
        for name, mine, theirs in zip(("x", "weight", "self_weight"), gradients, exact, strict=False):
            torch.testing.assert_close(mine, theirs.sum_to_size(whole.shape).view(weight.shape) if name == "weight" else theirs)
        assert torch.equal(alone, gradients[1])


@pytest.mark.parametrize("shape", [(72,), (4, 72, 1), (1, 72, 40)], ids=str)
def test_shared_weights_are_not_copied_and_their_gradient_is_summed_as_it_is_made(shape: tuple[int, ...], monkeypatch):
    """No tensor that the kernels read or write has the size of all walks' edges."""
    graph, B, T = SkeletonGraph("coco18", 1), 4, 40
    x, weight = torch.randn(B, T, 18, 3, requires_grad=True), torch.rand(shape, requires_grad=True)
    sizes = []

    def recorded(kernel, count, *args):
        sizes.extend(argument.numel() for argument in args if isinstance(argument, torch.Tensor))
        threads.run_ranges(kernel, count, *args)

    monkeypatch.setattr(propagation, "_AT_ONCE", graph.num_slots * T)
    monkeypatch.setattr(products, "run_ranges", recorded)
    with use_backend("cpu"):
        propagate(x, weight, graph).sum().backward()
    assert max(sizes) < B * graph.num_slots * T


def test_half_precision_gradients_of_shared_weights_are_rounded_once():
    graph = EdgeList(torch.tensor([[0], [1]]), 2)
    x, weight = torch.ones(1000, 2, 1, dtype=torch.bfloat16), torch.ones(1, dtype=torch.bfloat16, requires_grad=True)
    (1.001 * propagate(x, weight, graph)).sum().backward()
    assert weight.grad.item() == 1000


LIST, LOOP, TWO_TO_ONE = EdgeList(torch.tensor([[0], [1]]), 2), SlotGraph([0], [0], [0], 1), SlotGraph([0], [0], [0], 1, 1, 2)
ROUNDED_ONCE = {  # 85 walks, frames or heads: graph, x, weight, and whether it is the weight of the nodes themselves
    "walks": (LIST, (85, 2, 1), (1,), False),
    "walks, heads": (LIST, (85, 2, 2), (1, 1, 2), False),
    "frames": (LOOP, (1, 85, 1, 1), (1,), False),
    "frames, heads": (LOOP, (1, 85, 1, 2), (1, 1, 1, 2), False),
    "every second frame": (TWO_TO_ONE, (1, 169, 1, 1), (1,), False),
    "every second frame, heads": (TWO_TO_ONE, (1, 169, 1, 2), (1, 1, 1, 2), False),
    "heads of a node": (LIST, (1, 2, 85), (1, 1, 85), True),
}


@pytest.mark.parametrize("backend", ["reference", *BACKENDS, "triton"])
@pytest.mark.parametrize("shared", ROUNDED_ONCE)
def test_every_half_precision_gradient_of_what_is_shared_is_rounded_once(shared: str, backend: str):
    graph, of_x, of_weight, is_own = ROUNDED_ONCE[shared]
    x, weight = torch.full(of_x, 1.5, dtype=torch.float16, requires_grad=True), torch.ones(of_weight, dtype=torch.float16, requires_grad=True)
    own = torch.ones(1, 2, dtype=torch.float16, requires_grad=True) if is_own else None
    with use_backend(backend):
        y = propagate(x, weight, graph, own)
    y.backward(torch.full(y.shape, 1 + 2**-10, dtype=torch.float16))
    # of each it is 1.50146, which in float16 would be 1.50195
    wanted = torch.tensor(85 * 1.5 * (1 + 2**-10)).half()
    found = weight.grad if own is None else own.grad
    assert torch.equal(found, wanted.expand(found.shape))


@pytest.mark.parametrize("backend", ["reference", *BACKENDS, "triton"])
def test_weights_of_messages_that_walks_share_are_rounded_once(backend: str):
    x, edges = torch.full((85, 2, 1), 1.5, dtype=torch.float16), torch.zeros(1, 1, dtype=torch.float16)
    weight = torch.ones(1, dtype=torch.float16, requires_grad=True)
    with use_backend(backend):
        y = message(x, edges, weight, LIST)
    y.backward(torch.full(y.shape, 1 + 2**-10, dtype=torch.float16))
    assert weight.grad.item() == torch.tensor(85 * 1.5 * (1 + 2**-10)).half()


def test_shared_weights_of_an_edge_list_and_those_of_a_wrong_size():
    graph, x = EdgeList(torch.tensor([[0, 1], [1, 0]]), 2), torch.randn(3, 2, 4)
    weight = torch.tensor([2.0, 3.0])
    torch.testing.assert_close(propagate(x, weight, graph), propagate(x, weight.expand(3, 2), graph))
    for wrong in (torch.ones(3), torch.ones(2, 2)):
        with pytest.raises(ValueError, match=r"weight must be \[B, E\] with B = 3, E = 2"):
            propagate(x, wrong, graph)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", SOME_INPUTS, ids=str)
def test_gradients_that_nobody_wants_are_not_made(wanted: list[bool], backend: str):
    for case in (CASES[4], CASES[10]):
        assert_gradients_of_some(wanted, case, backend)
    asked = []
    kernel = propagation._backward._kernel
    case = CASES[0]
    inputs = [value.requires_grad_(wants) for value, wants in zip((case.nodes(), case.edges(), case.per_node()), wanted, strict=True)]
    with use_backend(backend), mock.patch.object(propagation._backward, "_kernel", lambda *args: (asked.append(args[8:10]), kernel(*args))[1]):
        propagate(inputs[0], inputs[1], case.graph, inputs[2]).sum().backward()
    assert asked == [(wanted[0], wanted[1] or wanted[2])]


@pytest.mark.parametrize("backend", [*BACKENDS, "triton"])
def test_more_parallel_edges_than_a_matrix_has_entries(backend: str):
    """Against a sum over them."""
    edges = torch.randint(2, (2, 9), generator=generator())
    x, weight = torch.randn(2, 2, 3, dtype=torch.float64, generator=generator(1)), torch.rand(2, 9, dtype=torch.float64, generator=generator(2))
    x.requires_grad_()
    weight.requires_grad_()
    with use_backend(backend):
        found = propagate(x, weight, EdgeList(edges, 2, parallel=True))
    wanted = torch.zeros_like(x).index_add(1, edges[1], weight[..., None] * x[:, edges[0]])
    torch.testing.assert_close(found, wanted)
    for one, other in zip(*(torch.autograd.grad(y.square().sum(), [x, weight]) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize("operation", ["propagate", "message", "attend"])
def test_gradients_of_frames_beyond_the_walk_are_not_looked_at(operation: str, backend: str):
    graph, lengths, generate = SkeletonGraph("coco17", 1), torch.tensor([3, 1]), generator()
    x, weight, toward = (torch.randn(2, *sizes, dtype=torch.float64, generator=generate) for sizes in ((4, 17, 2), (graph.num_slots, 4), (4, 17, 2)))
    toward[0, 3:], toward[1, 1:] = torch.nan, torch.nan
    x.requires_grad_()
    edges, att = torch.zeros(graph.num_slots, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    call = {
        "propagate": lambda: propagate(x, weight, graph, None, lengths),
        "message": lambda: message(x, edges, weight, graph, lengths=lengths),
        "attend": lambda: attend(x, x, att, graph, 1, lengths=lengths),
    }
    with use_backend(backend):
        (gradient,) = torch.autograd.grad(call[operation](), x, toward)
    assert gradient.isfinite().all()
    assert gradient[0, :3].any()
