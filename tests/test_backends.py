import threading

import pytest
import torch

from fastst import EdgeList, edge_order, info
from fastst.ops import backends
from fastst.ops.backends import BACKENDS, current_backend, use_backend, why_not


def test_default_is_the_fastest_that_can_run(monkeypatch):
    monkeypatch.setattr(backends, "FROM_ENVIRONMENT", None)
    assert current_backend("cpu") == "cpu"
    assert current_backend("cuda") == ("triton" if why_not("triton") is None else "torch")


def test_without_the_compilers_the_torch_backend_serves(monkeypatch):
    monkeypatch.setattr(backends, "FROM_ENVIRONMENT", None)
    monkeypatch.setitem(backends._problems, "numba", "numba is not installed")
    monkeypatch.setitem(backends._problems, "triton", "triton is not installed")
    assert current_backend("cpu") == current_backend("cuda") == "torch"
    assert why_not("cpu") == "numba is not installed"
    assert why_not("triton") == "triton is not installed"


@pytest.mark.parametrize("error", [ImportError("Numba needs NumPy 2.4 or less"), OSError("libllvm: cannot open"), SystemError("null")])
def test_a_compiler_that_is_broken_is_as_good_as_none(monkeypatch, error):
    def broken(name):
        raise error

    monkeypatch.setattr(backends, "FROM_ENVIRONMENT", None)
    monkeypatch.setattr(backends, "_problems", {})
    monkeypatch.setattr(backends.importlib, "import_module", broken)
    assert why_not("cpu") == f"numba can't be imported: {error}"
    assert current_backend("cpu") == "torch"


def test_info_tries_every_backend(monkeypatch, capsys):
    def fails(*args):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(info, "propagate", fails)
    info.main([])
    assert capsys.readouterr().out.count("RuntimeError:") >= 3
    assert info._fails("torch") == "RuntimeError: no such instruction"


def test_without_a_gpu_triton_says_so(monkeypatch):
    monkeypatch.setitem(backends._problems, "triton", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert why_not("triton").startswith("there is no GPU that torch can use")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert why_not("triton") is None


def test_the_cpu_backend_says_that_it_is_for_cpus():
    with use_backend("cpu"), pytest.raises(RuntimeError, match="the backend 'cpu' was asked for, but the tensors are on cuda"):
        current_backend("cuda")


def test_environment_chooses_and_use_backend_wins(monkeypatch):
    monkeypatch.setattr(backends, "FROM_ENVIRONMENT", "reference")
    assert current_backend() == "reference"
    with use_backend("torch"):
        assert current_backend() == "torch"
        with use_backend("reference"):
            assert current_backend() == "reference"
        assert current_backend() == "torch"
    assert current_backend() == "reference"


def test_an_exception_leaves_the_block_clean():
    before = current_backend()
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert current_backend() == before


def test_a_choice_is_of_one_thread():
    seen = []
    with use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(current_backend()))
        thread.start()
        thread.join()
    assert seen != ["reference"]


def test_asking_for_what_cannot_run_says_why(monkeypatch):
    unable = [name for name in BACKENDS if why_not(name)]
    for name in unable:
        with pytest.raises(RuntimeError, match=f"'{name}', which can't run: "), use_backend(name):
            pass
        monkeypatch.setattr(backends, "FROM_ENVIRONMENT", name)
        with pytest.raises(RuntimeError, match=f"FASTST_BACKEND asks for the backend '{name}', which can't run: "):
            current_backend()
    monkeypatch.setattr(backends, "FROM_ENVIRONMENT", "cuda")
    with pytest.raises(ValueError, match="unknown backend 'cuda'; the backends are reference, torch, cpu, triton"):
        current_backend()


def test_a_large_edge_list_is_sorted_without_numba_too(monkeypatch):
    def broken(name):
        raise ImportError("Numba needs NumPy 2.4 or less")

    edges = torch.randint(0, 300, (2, 20_000), generator=torch.Generator().manual_seed(0))
    compiled = EdgeList(edges, 300, coalesce=True)
    edge_order._sort_edges.cache_clear()
    monkeypatch.setattr(edge_order.importlib, "import_module", broken)
    try:
        plain = EdgeList(edges, 300, coalesce=True)
    finally:
        edge_order._sort_edges.cache_clear()
    assert torch.equal(compiled.edge_index(), plain.edge_index())
    assert torch.equal(compiled.inverse, plain.inverse)
