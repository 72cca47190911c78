import pytest
import torch
from graphs import BACKENDS, CASES, Case, assert_matches_reference, lifted, names

from fastst.ops import mean_average_distance, use_backend


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=names)
def test_matches_reference(case: Case, backend: str):
    assert_matches_reference(lambda h: mean_average_distance(h, case.length_tensor()), [case.nodes()], backend)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
@pytest.mark.parametrize(
    ("shape", "lengths"), [((2, 0, 3, 4), None), ((2, 3, 0, 4), None), ((2, 0, 4), None), ((2, 3, 2, 4), [0, 0]), ((0, 3, 4), None)]
)
def test_a_walk_without_nodes(shape: tuple[int, ...], lengths: list[int] | None, backend: str):
    h = torch.randn(shape, requires_grad=True)
    with use_backend(backend):
        distance = mean_average_distance(h, None if lengths is None else torch.tensor(lengths))
        distance.sum().backward()
    assert torch.equal(distance, torch.zeros(shape[0]))
    assert torch.equal(h.grad, torch.zeros(shape))


def test_the_gradient_has_the_digits_of_float64():
    h = torch.randn(1, 1, 7, 3, dtype=torch.float64, requires_grad=True)  # a seventh has more digits in float64
    found = []
    for backend in ("reference", "torch"):
        with use_backend(backend):
            found += torch.autograd.grad(mean_average_distance(h).sum(), h)
    torch.testing.assert_close(found[1], found[0], atol=1e-14, rtol=1e-12)


def test_known_values():
    alike = torch.ones(1, 2, 3, 4)
    assert mean_average_distance(alike).item() == pytest.approx(0, abs=1e-6)
    opposite = torch.tensor([[[1.0, 0.0], [-2.0, 0.0]]])
    assert mean_average_distance(opposite).item() == pytest.approx(1.0)
    with_zero = torch.tensor([[[3.0, 0.0], [0.0, 0.0]]])  # cosines 1, 0, 0, 0
    assert mean_average_distance(with_zero).item() == pytest.approx(0.75)


def test_a_zero_embedding_has_no_gradient_and_no_nan():
    h = torch.zeros(1, 2, 2, 3, requires_grad=True)
    mean_average_distance(h).sum().backward()
    assert (h.grad == 0).all()


@pytest.mark.parametrize("case", CASES, ids=names)
def test_opcheck_and_gradcheck(case: Case):
    (h,) = lifted(case, [case.nodes()], [])
    torch.library.opcheck(torch.ops.fastst.mean_average_distance.default, (h, case.length_tensor()))
    assert torch.autograd.gradcheck(lambda h: torch.ops.fastst.mean_average_distance(h, case.length_tensor()), (h,), fast_mode=True)


def test_errors():
    with pytest.raises(ValueError, match=r"h must be floating-point \[B, T, J, C\] or \[B, N, C\]"):
        mean_average_distance(torch.zeros(3))
    with pytest.raises(ValueError, match="lengths counts frames"):
        mean_average_distance(torch.zeros(1, 2, 3), torch.ones(1, dtype=torch.int64))
