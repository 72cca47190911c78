"""The ways of doing the same work that are compared, by name."""

from __future__ import annotations

from bench.contender import Contender, FaststCpu, FaststTorch, FaststTriton
from bench.libraries import Csr, PyG, TorchScatter, TorchSparse, TurboGnn
from bench.plain import Banded, Compiled, Dense, IndexAdd, OwnGemm

CONTENDERS: dict[str, type[Contender]] = {
    "dense": Dense,
    "index_add": IndexAdd,
    "csr": Csr,
    "torch_scatter": TorchScatter,
    "torch_sparse": TorchSparse,
    "pyg": PyG,
    "compiled": Compiled,
    "fastst_torch": FaststTorch,
    "fastst_cpu": FaststCpu,
    "fastst_triton": FaststTriton,
    "gemm": OwnGemm,
    "banded": Banded,
    "turbo_gnn": TurboGnn,
}
