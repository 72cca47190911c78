"""The layers that take the place of ST-GCN's and MS-G3D's, against plain ones written from the papers' formulas: alone, and swapped in by `patch`."""

import copy
import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastst.layouts import LAYOUTS
from fastst.nn import patch, skeleton
from fastst.ops import propagate, use_backend

BACKENDS = ["reference", "torch", "cpu", "triton"]


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


class ConvTemporalGraphical(nn.Module):
    """Named and built as in ST-GCN; Σ_k Σ_v A[k, v, w] (W_k x)[v] partition by partition."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, t_kernel_size: int = 1, t_stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.conv = nn.Conv2d(in_channels, out_channels * kernel_size, (t_kernel_size, 1), (t_stride, 1), bias=bias)

    def forward(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        images = self.conv(x).chunk(self.kernel_size, 1)
        return sum(image @ A[k] for k, image in enumerate(images)), A


def distances(bones: np.ndarray) -> np.ndarray:
    """Bones between joints, by looking for the ways from every joint."""
    away = np.full(bones.shape, len(bones))
    for start in range(len(bones)):
        here, steps = {start}, 0
        while here:
            for joint in here:
                away[start, joint] = min(away[start, joint], steps)
            steps += 1
            here = {int(j) for i in here for j in np.flatnonzero(bones[i]) if away[start, j] > steps}
    return away


class MLP(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0) -> None:
        super().__init__()
        layers = [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.ModuleList([*layers, nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class SpatialTemporal_MS_GCN(nn.Module):
    """Named and built as in MS-G3D; scale by scale, from the distances between the joints."""

    def __init__(self, in_channels, out_channels, A_binary, num_scales, window_size, disentangled_agg=True, use_Ares=True, residual=False, dropout=0):
        super().__init__()
        self.num_scales, self.window_size, self.use_Ares, self.V = num_scales, window_size, use_Ares, len(A_binary)
        away, scales = distances(A_binary), []
        for k in range(num_scales):
            joined = np.tile(away == k if disentangled_agg and k != 1 else away <= 1, (window_size, window_size))
            if k == 0:
                scales.append(np.eye(len(joined)))
                continue
            joined = (joined | np.eye(len(joined), dtype=bool)).astype(float)
            step = joined / np.sqrt(joined.sum(1)[:, None] * joined.sum(1)[None])
            scales.append(step if disentangled_agg else scales[-1] @ step)
        self.A_scales = torch.tensor(np.concatenate(scales), dtype=torch.float32)
        self.A_res = nn.Parameter(torch.rand(self.A_scales.shape) * 1e-6) if use_Ares else torch.tensor(0)
        self.mlp = MLP(in_channels * num_scales, out_channels, dropout)
        self.residual = (lambda x: 0) if not residual else (lambda x: x) if in_channels == out_channels else MLP(in_channels, out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        A = (self.A_scales + self.A_res).to(x.dtype).chunk(self.num_scales)
        return self.act(self.mlp(torch.cat([x @ scale.T for scale in A], 1)) + self.residual(x))


def bones_of(name: str) -> np.ndarray:
    layout = LAYOUTS[name]
    bones = np.zeros((layout.num_joints,) * 2)
    for a, b in layout.bones:
        bones[a, b] = bones[b, a] = 1
    return bones


def partitions(name: str, K: int = 3) -> Tensor:
    """Any matrices with entries at the bones and the joints themselves, each in one of them."""
    near = torch.tensor(bones_of(name) + np.eye(LAYOUTS[name].num_joints))
    which = torch.randint(K, near.shape)
    return torch.stack([near * (which == k) for k in range(K)]) * torch.rand(K, *near.shape, dtype=torch.float64)


def outcome(layer: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """The output, and the gradients of every input that has one and of every parameter."""
    y = layer(*inputs)
    y = y[0] if isinstance(y, tuple) else y
    leaves = [x for x in (*inputs, *layer.parameters()) if x.requires_grad]
    weights = torch.arange(y.numel(), dtype=y.dtype).view(y.shape).mul(0.7).sin()
    return [y, *torch.autograd.grad((y * weights).sum(), leaves)]


def assert_same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


SIZES = [
    {},
    {"T": 1, "N": 1, "C": 1, "bias": False},
    {"C": 3, "t_kernel_size": 3, "t_stride": 2},
    {"N": 0},
    {"out": 32},  # slots don't help from here on
    {"name": "coco17", "K": 1},
]


def on_backends(sizes: list[dict], few: list[dict]) -> list:
    """Every size on every backend, but Triton, whose interpreter takes time for every slot, on a few."""
    return [pytest.param(one, name, id=f"{one}-{name}") for name in BACKENDS for one in sizes if name != "triton" or one in few]


@pytest.mark.parametrize(("sizes", "backend"), on_backends(SIZES, SIZES[1:4]))
def test_conv_temporal_graphical(sizes: dict, backend: str):
    """A is learned as ST-GCN does it, and itself, so that its zeros have gradients as well."""
    sizes = {"N": 2, "C": 4, "T": 5, "K": 3, "out": 33, "name": "ntu25"} | sizes
    N, C, T, K, out, name = (sizes.pop(key) for key in ("N", "C", "T", "K", "out", "name"))
    other = ConvTemporalGraphical(C, out, K, **sizes).double()
    ours = skeleton.ConvTemporalGraphical(C, out, K, **sizes).double()
    assert list(ours.state_dict()) == list(other.state_dict())
    ours.load_state_dict(other.state_dict())
    A = partitions(name, K).requires_grad_()
    x = torch.randn(N, T, A.shape[1], C, dtype=torch.float64).permute(0, 3, 1, 2).requires_grad_()  # not contiguous
    wanted = outcome(other, x, A)
    with use_backend(backend):
        found = outcome(ours, x, A)
        assert_same(found, wanted)
        assert found[0].is_contiguous()
        assert ours(x, A)[1] is A
        importance = torch.rand(A.shape, dtype=torch.float64, requires_grad=True)
        sums = [torch.autograd.grad(layer(x, A.detach() * importance)[0].square().sum(), importance)[0] for layer in (ours, other)]
        torch.testing.assert_close(*sums)


def test_slots_are_used_where_they_help(monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(skeleton, "propagate", lambda *args: calls.append(args[2]) or propagate(*args))
    A = partitions("ntu25").float()
    for out, K, matrices, used in ((33, 3, A, True), (32, 3, A, False), (64, 1, A[:1], False), (64, 3, torch.rand_like(A), False)):
        calls.clear()
        skeleton.ConvTemporalGraphical(4, out, K)(torch.randn(1, 4, 2, 25), matrices)
        assert bool(calls) == used
    first, again = (skeleton._graph_of(A * factor) for factor in (1, 2))
    assert first is again
    A[0, 0, 24] = 1.0
    assert skeleton._graph_of(A).num_slots == first.num_slots + 1


WINDOWS = [
    {},
    {"residual": True},
    {"residual": True, "C": 40},
    {"disentangled_agg": False},
    {"window_size": 1},
    {"use_Ares": True},
    {"out": 32},
    {"num_scales": 1},
    {"N": 1, "T": 1, "C": 1},
]


@pytest.mark.parametrize(("options", "backend"), on_backends(WINDOWS, WINDOWS[-4:]))
def test_windows_of_ms_g3d(options: dict, backend: str):
    options = {"N": 2, "T": 3, "C": 4, "out": 40, "num_scales": 4, "window_size": 2, "use_Ares": False} | options
    N, T, C, out = (options.pop(key) for key in ("N", "T", "C", "out"))
    arguments = (C, out, bones_of("coco17"))
    other = SpatialTemporal_MS_GCN(*arguments, **options).double()
    ours = skeleton.SpatialTemporal_MS_GCN(*arguments, **options).double()
    assert list(ours.state_dict()) == list(other.state_dict())
    ours.load_state_dict(other.state_dict())
    torch.testing.assert_close(ours.A_scales, other.A_scales)
    ours.A_scales = other.A_scales
    x = torch.randn(N, C, T, 17 * options["window_size"], dtype=torch.float64, requires_grad=True)
    before = other.mlp.layers[1].running_var.clone()
    wanted = outcome(other, x)
    with use_backend(backend):
        assert_same(outcome(ours, x), wanted)
    assert not torch.equal(before, other.mlp.layers[1].running_var)
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, other.get_buffer(name))


def test_dropout_of_sums_is_theirs():
    options = {"num_scales": 3, "window_size": 2, "use_Ares": False, "dropout": 0.5}
    other, ours = (kind(4, 40, bones_of("coco17"), **options) for kind in (SpatialTemporal_MS_GCN, skeleton.SpatialTemporal_MS_GCN))
    ours.load_state_dict(other.state_dict())
    ours.A_scales, x = other.A_scales, torch.randn(2, 4, 3, 34)
    torch.manual_seed(3)
    wanted = other(x)
    torch.manual_seed(3)
    torch.testing.assert_close(ours(x), wanted)


class StGcn(nn.Module):
    """As in ST-GCN: blocks with an importance of every edge, and their own A."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("A", partitions("ntu25").float())
        widths = [3, 40, 40, 8]
        self.blocks = nn.ModuleList(ConvTemporalGraphical(a, b, 3) for a, b in itertools.pairwise(widths))
        self.importance = nn.ParameterList(torch.ones_like(self.A) for _ in self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block, importance in zip(self.blocks, self.importance, strict=True):
            x = block(x, self.A * importance)[0].relu()
        return x.view(len(x), -1)  # whoever wants it contiguous gets it so


def test_a_patched_st_gcn_is_the_same_model():
    model, x = StGcn(), torch.randn(2, 3, 4, 25)
    wanted, keys, parameters, random = outcome(model, x), list(model.state_dict()), list(model.parameters()), torch.get_rng_state()
    original = model.blocks[0]
    patched = patch(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [isinstance(block, skeleton.ConvTemporalGraphical) for block in model.blocks] == [True, True, False]
    assert str(patched) == (
        "blocks.0  ConvTemporalGraphical: swapped\n"
        "blocks.1  ConvTemporalGraphical: swapped\n"
        "blocks.2  ConvTemporalGraphical: left: slots can't win on 32 channels or fewer"
    )
    for found, want in zip(outcome(model, x), wanted, strict=True):
        torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)
    (row,) = patch(model).swaps  # fastst's own layers are none to swap
    assert (row.name, row.swapped) == ("blocks.2", False)
    patched.undo()
    assert model.blocks[0] is original


def test_a_patched_ms_g3d_is_the_same_model():
    bones = bones_of("coco17")
    options = {"num_scales": 3, "window_size": 2, "use_Ares": False}
    model = nn.Sequential(
        SpatialTemporal_MS_GCN(4, 40, bones, **options),
        SpatialTemporal_MS_GCN(40, 40, bones, **options, residual=True),
        SpatialTemporal_MS_GCN(40, 48, bones, **options, residual=True),
        SpatialTemporal_MS_GCN(48, 48, bones, **options | {"use_Ares": True}),
        SpatialTemporal_MS_GCN(48, 48, bones, **options, dropout=0.2),
        SpatialTemporal_MS_GCN(48, 48, bones, num_scales=1, window_size=1, use_Ares=False),
        SpatialTemporal_MS_GCN(48, 8, bones, **options),
    )
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    x, twin = torch.randn(2, 4, 3, 34), copy.deepcopy(model)
    keys, parameters = list(model.state_dict()), list(model.parameters())
    with patch(model) as patched:
        assert [swap.why for swap in patched.swaps] == [
            "",
            "",
            "",
            "its adjacency A_res is learned and has no zeros",
            "it has dropout before its convolution",
            "its graph is too small or too dense for slots to win",
            "slots can't win on 32 channels or fewer",
        ]
        assert list(model.state_dict()) == keys
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        for name, buffer in model.named_buffers():  # trying the layers is no training of them
            assert torch.equal(buffer, statistics[name])
        for found, want in zip(outcome(model[:3], x), outcome(twin[:3], x), strict=True):
            torch.testing.assert_close(found, want, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(model.eval()[:3](x), twin.eval()[:3](x), atol=1e-4, rtol=1e-4)
    assert type(model[0]) is SpatialTemporal_MS_GCN
    assert not model[0].training


def test_another_layer_of_the_same_name_is_left():
    """Social-STGCNN's, say, has a matrix for every frame."""

    def other(forward) -> nn.Module:
        layer = ConvTemporalGraphical(4, 48, 3)
        kind = type("ConvTemporalGraphical", (nn.Module,), {"forward": forward})
        changed = kind()
        changed.__dict__.update(layer.__dict__)
        return nn.Sequential(changed)

    def of_frames(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        return torch.einsum("nctv,tvw->nctw", self.conv(x), A), A

    def transposed(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        return ConvTemporalGraphical.forward(self, x, A.transpose(1, 2))

    (row,) = patch(other(of_frames)).swaps
    assert row.why.startswith("it can't be tried (RuntimeError: ")
    (row,) = patch(other(transposed)).swaps
    assert row.why == "it computes something else than the layer of this name that fastst knows"
    (row,) = patch(nn.Sequential(type("ConvTemporalGraphical", (nn.Linear,), {})(3, 3))).swaps
    assert row.why.startswith("it can't be tried (AttributeError: ")
    (row,) = patch(nn.Sequential(ConvTemporalGraphical(4, 48, 3).to("meta"))).swaps
    assert row.why.startswith("it can't be tried")


def test_a_layer_that_gives_zeros_can_not_be_told():
    model = nn.Sequential(ConvTemporalGraphical(4, 48, 3))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    (row,) = patch(model).swaps
    assert row.why == "it gives nothing but zeros, which don't tell what it computes"


def test_a_matrix_to_fewer_joints_is_taken_as_there():
    other, ours, A, x = (
        ConvTemporalGraphical(4, 48, 3),
        skeleton.ConvTemporalGraphical(4, 48, 3),
        partitions("ntu25").float(),
        torch.randn(2, 4, 3, 25),
    )
    ours.load_state_dict(other.state_dict())
    torch.testing.assert_close(ours(x, A[:, :, :7])[0], other(x, A[:, :, :7])[0])


def test_hooks_and_subclasses_of_skeleton_layers():
    hooked = ConvTemporalGraphical(4, 48, 3)
    hooked.conv.register_forward_hook(lambda *_: None)

    class Mine(ConvTemporalGraphical):
        pass

    assert [swap.why for swap in patch(nn.Sequential(hooked, Mine(4, 48, 3))).swaps] == ["a layer in it has hooks"]


def test_lower_precision_and_autocast_keep_their_dtypes():
    A, x = partitions("ntu25").float().requires_grad_(), torch.randn(2, 4, 5, 25)
    layer = skeleton.ConvTemporalGraphical(4, 48, 3)
    other = ConvTemporalGraphical(4, 48, 3)
    other.load_state_dict(layer.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        (y, _), (wanted, _) = layer(x, A), other(x, A)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, wanted, atol=0.05, rtol=0.05)
    (gradient,) = torch.autograd.grad(y.float().sum(), A)
    assert gradient.dtype == torch.float32


def test_compiled():
    A, x, layer = partitions("ntu25").float(), torch.randn(2, 4, 5, 25), skeleton.ConvTemporalGraphical(4, 48, 3)
    compiled = torch.compile(layer, backend="aot_eager")
    importance = torch.ones_like(A, requires_grad=True)
    for found, wanted in zip(outcome(compiled, x, A * importance), outcome(layer, x, A * importance), strict=True):
        torch.testing.assert_close(found, wanted)


def test_gradients_of_gradients_are_right_or_refused():
    A, layer = partitions("ntu25").requires_grad_(), skeleton.ConvTemporalGraphical(1, 33, 3).double()
    x = torch.randn(1, 1, 1, 25, dtype=torch.float64, requires_grad=True)
    other = ConvTemporalGraphical(1, 33, 3).double()
    other.load_state_dict(layer.state_dict())

    def second(layer: nn.Module, leaf: Tensor) -> tuple[Tensor, ...]:
        (first,) = torch.autograd.grad(layer(x, A)[0].pow(3).sum(), leaf, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [x, A])

    for backend, leaf in (("reference", A), ("reference", x), ("cpu", A)):
        with use_backend(backend):
            assert_same(second(layer, leaf), second(other, leaf))
    with use_backend("cpu"), pytest.raises(NotImplementedError, match="can be differentiated once"):
        second(layer, x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: skeleton.ConvTemporalGraphical(3, 4, 2)(torch.randn(1, 3, 2, 5), torch.randn(3, 5, 5)), r"A \[K, V, V\] with K = 2, got"),
        (lambda: skeleton.ConvTemporalGraphical(3, 4, 2)(torch.randn(3, 2, 5), torch.randn(2, 5, 5)), r"x \[N, C, T, V\]"),
        (lambda: skeleton.SpatialTemporal_MS_GCN(3, 4, np.eye(3), 2, 2)(torch.randn(1, 3, 2, 3)), r"V = 6, got \[1, 3, 2, 3\]"),
        (lambda: skeleton.SpatialTemporal_MS_GCN(3, 4, np.eye(3), 2, 2, activation="gelu"), "activation must be one of relu"),
        (lambda: skeleton.SpatialTemporal_MS_GCN(3, 4, [[0, 1], [1, 0]], 2, 2), "A_binary must be a square numpy array, got list"),
    ],
)
def test_what_is_refused(make, message: str):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
