import pytest
import torch
from graphs import BACKENDS, CASES, Case, assert_matches_reference, generator, lifted, names

from fastst import SkeletonGraph
from fastst.ops import edge_logits, sample_edges, sample_from_embeddings, use_backend

GRAPH = SkeletonGraph("coco18", 2)


def bias_of(case: Case, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(case.graph.num_slots, dtype=dtype, generator=generator(2))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("estimator", ["identity", "sigmoid"])
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, estimator: str, with_bias: bool, backend: str):
    def run(q, k, *bias):
        return sample_from_embeddings(q, k, case.graph, *bias, seed=3, tau=0.7, estimator=estimator, lengths=case.length_tensor())

    inputs = [case.nodes(), case.nodes().flip(1), *([bias_of(case)] if with_bias else [])]
    assert_matches_reference(run, inputs, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", ["gumbel", "logistic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_is_the_two_operations_one_after_the_other(dtype: torch.dtype, noise: str, backend: str):
    q, k = torch.randn(2, 3, 9, 18, 20, generator=generator()).to(dtype)
    lengths, ids = torch.tensor([9, 0, 6]), torch.tensor([5, 2**40 + 3, -1])
    bias = torch.randn(GRAPH.num_slots, generator=generator(1))
    with use_backend(backend):
        logits = edge_logits(q, k, GRAPH, bias, lengths)
        apart = sample_edges(logits, GRAPH, seed=8, noise=noise, sample_ids=ids, lengths=lengths)
        together = sample_from_embeddings(q, k, GRAPH, bias, seed=8, noise=noise, sample_ids=ids, lengths=lengths)
    assert together.dtype == torch.float32
    assert torch.equal(together, apart)


def test_does_not_depend_on_padding_the_batch_or_threads():
    q, k = torch.randn(2, 3, 12, 18, 16, generator=generator())
    ids, lengths, threads = torch.tensor([4, 9, 2]), torch.tensor([12, 7, 3]), torch.get_num_threads()
    batch = sample_from_embeddings(q, k, GRAPH, seed=1, sample_ids=ids, lengths=lengths)
    alone = sample_from_embeddings(q[1:2, :7], k[1:2, :7], GRAPH, seed=1, sample_ids=ids[1:2])
    assert torch.equal(batch[1:2, :, :7], alone)
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(sample_from_embeddings(q, k, GRAPH, seed=1, sample_ids=ids, lengths=lengths), batch)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_opcheck(case: Case, backend: str):
    inputs = lifted(case, [case.nodes(), case.nodes().flip(-1)], [])
    index = case.graph.index()
    for estimator in ("identity", "sigmoid"):
        rest = (torch.arange(case.B), case.length_tensor(), *index, -3, case.graph.hops, 2.0, 2.0, 1e-10, "gumbel", estimator, backend)
        torch.library.opcheck(torch.ops.fastst.sample_from_embeddings.default, (*inputs, bias_of(case).requires_grad_(), *rest))


def test_compiles_in_full_for_changing_lengths():
    compiled = torch.compile(lambda q, k, seed: sample_from_embeddings(q, k, GRAPH, seed=seed), fullgraph=True, dynamic=True)
    for T in (5, 9):
        q, k = torch.randn(2, 1, T, 18, 8)
        assert torch.equal(compiled(q, k, T), sample_from_embeddings(q, k, GRAPH, seed=T))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": torch.zeros(1, 5, 18, 3)}, ValueError, "k must have the shape of q"),
        ({"bias": torch.zeros(3)}, ValueError, "bias must be"),
        ({"tau": 0.0}, ValueError, "tau must be above 0"),
        ({"noise": "normal"}, ValueError, "noise must be one of"),
        ({"sample_ids": torch.arange(3)}, ValueError, "sample_ids must be"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    with pytest.raises(error, match=message):
        sample_from_embeddings(**{"q": torch.zeros(1, 5, 18, 4), "k": torch.zeros(1, 5, 18, 4), "graph": GRAPH, "seed": 0, **change})
