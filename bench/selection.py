"""Which groups are run: the default ones, and with `--full` every work over frames, hops and channels.

`--full` varies one size at a time around B=32 T=60 k=3 C=64: the product of all would take hours and say little more.
"""

from __future__ import annotations

import dataclasses

from bench.contenders import CONTENDERS
from bench.timing import Group
from bench.works import PAPER, WORKS, Size

FRAMES = (60, 300, 1_000, 3_000, 10_000)
HOPS = (1, 2, 3)
CHANNELS = (64, 256)
ON_GPUS = ("banded", "turbo_gnn")  # compared by `bench.gpu` alone
ALL = tuple(name for name in CONTENDERS if name not in ("gemm", *ON_GPUS))
EAGER = tuple(name for name in ALL if name != "compiled")
SPARSE = tuple(name for name in EAGER if name not in ("index_add", "torch_scatter", "pyg"))  # these hold a message for every edge, and take minutes
FASTST = tuple(name for name in ALL if name.startswith("fastst"))
MODEL = ("dense", "index_add", "torch_scatter", "pyg", *FASTST)
LENGTHS_COMPARED = (300, 30_000)
SMALL_AND_LARGE = ((2, 1), (16, 3))  # layers and hops
_FRAMES_OF_A_BATCH = 2_400
_LONGEST_MODEL = 3_000  # attention along frames is quadratic in time; a step of T = 10,000 is run once, in the memory measurements


def batch(T: int) -> int:
    """Walks of a batch: about as many frames in all, whatever the length."""
    return 32 if T == 60 else max(1, _FRAMES_OF_A_BATCH // T)


def default_groups() -> list[Group]:
    ordinary, long = Size(32, 60), Size(8, 300)
    paper = Size(PAPER.batch_size, PAPER.frames, PAPER.hops, PAPER.hidden)
    wide = Size(32, 60, 1, 256)
    return [
        Group("propagate", False, ordinary, ALL),
        Group("propagate", True, ordinary, ALL, family="threads and precision"),
        Group("propagate", True, ordinary, FASTST, family="threads and precision", threads=1),
        Group("propagate", True, Size(32, 60, dtype="bfloat16"), FASTST, family="threads and precision"),
        *(Group("propagate", backward, long, EAGER) for backward in (False, True)),
        Group("sample_from_embeddings", True, Size(32, 60, 3, 32), EAGER),
        Group("sample_with_information", True, Size(32, 60, 3, 32), EAGER),
        Group("attend", True, ordinary, EAGER),
        Group("gcn_layer", False, wide, (*EAGER, "gemm")),
        Group("gcn_layer", True, wide, (*EAGER, "gemm")),
        Group("edge_logits", False, Size(32, 60, 3, 32), EAGER),
        Group("sample_edges", False, ordinary, EAGER),
        Group("upstream", True, paper, FASTST),
        Group("training_step", True, paper, MODEL),
        Group("inference", False, paper, MODEL),
        *(Group("propagate", True, Size(batch(T), T), EAGER) for T in FRAMES[2:-1]),
        Group("propagate", True, Size(batch(FRAMES[-1]), FRAMES[-1]), SPARSE),
        *(Group("propagate", False, Size(1, T), FASTST, family="length") for T in LENGTHS_COMPARED),
        *(Group("training_step", True, Size(PAPER.batch_size, PAPER.frames, hops, PAPER.hidden, layers), FASTST) for layers, hops in SMALL_AND_LARGE),
    ]


def full_groups() -> list[Group]:
    """The default groups, then every work at every T, k and C."""
    # Compiling takes its time, so the default does without here.
    compiled = ("sample_from_embeddings", "sample_with_information", "attend", "gcn_layer")
    groups = {group.name: group for group in default_groups()}
    for group in list(groups.values()):
        if group.work in compiled:
            groups[group.name] = dataclasses.replace(group, contenders=(*group.contenders, "compiled"))
    for work in WORKS:
        if work in ("sample_from_embeddings", "sample_with_information"):
            continue
        for size in _sizes(whole_model=work in ("upstream", "training_step", "inference")):
            for backward in {"training_step": (True,), "inference": (False,)}.get(work, (False, True)):
                contenders = MODEL if work in ("upstream", "training_step", "inference") else ALL if size == Size(32, 60) else EAGER
                group = Group(work, backward, size, contenders)
                if group.name not in groups or len(groups[group.name].contenders) < len(contenders):
                    groups[group.name] = group
    return list(groups.values())


def _sizes(whole_model: bool) -> list[Size]:
    frames = [T for T in FRAMES if not whole_model or T <= _LONGEST_MODEL]
    sizes = [Size(batch(T), T) for T in frames]
    sizes += [Size(32, 60, hops) for hops in HOPS]
    sizes += [Size(32, 60, 3, C) for C in CHANNELS]
    return list(dict.fromkeys(sizes))
