"""Models for other runtimes: torch.export with an open batch, ONNX without fastst."""

import pytest
import torch
from graphs import CASES, Case, names

from fastst import SkeletonGraph, export
from fastst.errors import UserError
from fastst.nn import GivenGraph, GraphClassifier
from fastst.ops import gcn_norm, propagate, use_backend

T, HOPS = 7, 2
LENGTHS = torch.tensor([T, 3, 0, T + 4, 1])


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def made(graph: str, **options) -> GraphClassifier:
    slots = SkeletonGraph("coco18", HOPS)
    source = GivenGraph(slots, torch.rand(slots.num_slots) > 0.5) if graph == "given" else graph
    options = {"hops": HOPS, "layers": 2, "hidden": 8, "heads": 2, "frames": 4} | options
    return GraphClassifier("coco18", 3, graph=source, **options)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("graph", ["fixed", "given", "random", "learned"])
def test_torch_export_leaves_the_batch_open(graph: str, backend: str, tmp_path):
    model, batch = made(graph).eval(), torch.export.Dim("batch", min=1, max=1024)
    poses = torch.randn(5, T, 18, 2)
    with use_backend(backend):
        program = torch.export.export(model, (poses[:2], LENGTHS[:2]), dynamic_shapes={"poses": {0: batch}, "lengths": {0: batch}})
        torch.export.save(program, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        for size in (1, 2, 5):
            found, wanted = loaded(poses[:size], LENGTHS[:size]), model(poses[:size], LENGTHS[:size])
            assert torch.equal(found.kept, wanted.kept)
            torch.testing.assert_close(found.logits, wanted.logits)


def test_a_learned_model_is_exported_with_what_it_is_asked():
    model, poses, batch = made("learned").eval(), torch.randn(5, T, 18, 2), torch.export.Dim("batch", min=1, max=1024)
    options = {"evaluation": "threshold", "prior": 0.3, "seed": 5}
    dynamic = {"poses": {0: batch}, **dict.fromkeys(options)}
    for asked in (options, options | {"evaluation": "sample"}):
        program = torch.export.export(model, (poses[:2],), asked, dynamic_shapes=dynamic)
        torch.testing.assert_close(program.module()(poses, **asked).logits, model(poses, **asked).logits)


def runtime():
    for name in export._NEEDED:
        pytest.importorskip(name, reason=f"{name} is not installed (extra `export`)")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra `export`)")


@pytest.mark.parametrize("case", CASES, ids=names)
def test_every_operation_written_out_is_the_operation(case: Case):
    """Also where a model never goes: edges with values that don't exist, nodes without any, edge lists."""
    x, edges, own = case.nodes(), case.edges().abs() * (case.edges() > 0), case.per_node()
    lengths, graph = case.length_tensor(), case.graph
    lifted = (x.unsqueeze(1), edges.unsqueeze(-1), own.unsqueeze(1)) if case.is_edge_list else (x, edges, own)
    rest = (lengths, *graph.index())
    with use_backend("cpu"):
        wanted = propagate(x, edges, graph, own, lengths)
        torch.testing.assert_close(export._propagate(lifted[0], lifted[1], lifted[2], *rest, graph.hops, "").view(wanted.shape), wanted)
        for loops in (False, True):
            *found, _ = export._gcn_norm(lifted[1], *rest, float(loops), graph.num_joints, graph.hops, "")
            for a, b in zip(found, gcn_norm(edges, graph, lengths, add_self_loops=loops), strict=True):
                torch.testing.assert_close(a.reshape(b.shape), b)


MODELS = [{}, {"hops": 1, "readout": "nodes"}, {"hops": 3, "joint_embedding": False, "residual": 0.0}]


@pytest.mark.parametrize("graph", ["fixed", "given"])
@pytest.mark.parametrize("options", MODELS, ids=str)
def test_operations_written_out_are_the_operations(options: dict, graph: str):
    options = options | ({"hops": HOPS} if graph == "given" else {})
    model, poses = made(graph, **options), torch.randn(5, T, 18, 2)
    program = export._in_plain_operations(model, T)
    assert model.training
    assert not [node for node in program.graph.nodes if "fastst" in str(node.target)]
    model.eval()
    for size in (1, 5):
        found, wanted = program.module()(poses[:size], LENGTHS[:size]), model(poses[:size], LENGTHS[:size]).logits
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("graph", ["fixed", "given"])
def test_onnx_says_what_the_model_says(graph: str, tmp_path):
    ort = runtime()
    model, poses = made(graph).eval(), torch.randn(5, T, 18, 2)
    export.write_onnx(tmp_path / "model.onnx", model, T)
    session = ort.InferenceSession(tmp_path / "model.onnx")
    assert [(x.name, x.shape[1:]) for x in session.get_inputs()] == [("poses", [T, 18, 2]), ("lengths", [])]
    for size in (1, 2, 5):
        (found,) = session.run(["logits"], {"poses": poses[:size].numpy(), "lengths": LENGTHS[:size].numpy()})
        torch.testing.assert_close(torch.from_numpy(found), model(poses[:size], LENGTHS[:size]).logits, atol=1e-5, rtol=1e-5)


def test_what_onnx_has_no_place_for(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "_NEEDED", ())
    with pytest.raises(
        UserError, match=r"no place for a graph of LearnedGraph, which is drawn anew for every walk; use GivenGraph, or torch\.export"
    ):
        export.write_onnx(tmp_path / "model.onnx", made("learned"), T)
    monkeypatch.setattr(export, "_NEEDED", ("json", "nosuchpackage"))
    with pytest.raises(UserError, match=r"ONNX needs nosuchpackage: pip install 'fastst\[export\]'"):
        export.write_onnx(tmp_path / "model.onnx", made("fixed"), T)
    assert not list(tmp_path.iterdir())
