from threading import Thread

import pytest
import torch
from graphs import generator

from fastst import SkeletonGraph
from fastst.config import TrainConfig
from fastst.nn import GivenGraph, GraphClassifier, LearnedGraph, Upstream
from fastst.ops import gcn_norm, use_backend

PAPER = TrainConfig.with_recipe("paper").settled()
PAPERS = {name: getattr(PAPER, name) for name in ("joint_embedding", "residual", "readout", "keep_start", "noise", "estimator", "tau")}
RECIPES = {"default": {}, "paper": PAPERS}


def small(graph: str = "learned", **options) -> GraphClassifier:
    torch.manual_seed(0)
    return GraphClassifier("coco18", 2, **{"graph": graph, "hidden": 8, "layers": 2, "frames": 6, "heads": 2, **options})


def poses(B: int = 2, T: int = 6, D: int = 2) -> torch.Tensor:
    return torch.randn(B, T, 18, D, generator=generator())


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("layers", [2, 4, 8, 16])
def test_every_size_of_the_papers_grid_has_parameters_in_the_papers_span(layers: int, hops: int):
    model = GraphClassifier("coco18", 2, layers=layers, hops=hops, hidden=PAPER.hidden, frames=PAPER.frames, attention=PAPER.attention, **PAPERS)
    assert 82_000 <= sum(p.numel() for p in model.parameters()) <= 2_900_000
    assert len(model.downstream.convolutions) == layers
    assert model(poses(1, 5)).logits.shape == (1, 2)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("attention", ["factorized", "local", "full"])
@pytest.mark.parametrize("graph", ["fixed", "random", "learned"])
def test_every_mode_gives_all_parameters_a_gradient(graph: str, attention: str, recipe: str):
    model = small(graph, attention=attention, **RECIPES[recipe])
    output = model(poses(), torch.tensor([6, 4]))
    assert output.logits.shape == (2, 2)
    assert output.kept.shape == (2, 72, 6)
    assert output.embedding.shape == (2, 6, 18, 8)
    (output.logits[:, 0].sum() * 3).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A bias that is added to every key does not change a softmax, so its gradient is zero up to rounding.
        assert parameter.grad.isfinite().all(), name


def test_fixed_keeps_every_edge_and_random_the_given_share():
    graph = SkeletonGraph("coco18", 1)
    exists = graph.edge_mask(200)
    assert torch.equal(small("fixed")(poses(1, 200)).kept[0].bool(), exists)
    model = small("random", drop=0.75)
    kept = model(poses(2, 200), seed=1).kept
    assert (kept.sum() / (2 * exists.sum())).item() == pytest.approx(0.25, abs=0.01)
    assert not torch.equal(kept[0], kept[1])  # anew for every sample
    assert not torch.equal(model(poses(2, 200), seed=2).kept, kept)
    assert torch.equal(small("random", drop=0.0)(poses(1, 50)).kept[0].bool(), graph.edge_mask(50))


@pytest.mark.parametrize("attention", ["factorized", "local", "full"])
@pytest.mark.parametrize("graph", ["fixed", "random", "learned"])
def test_padding_and_batch_order_do_not_matter(graph: str, attention: str):
    model, lengths, ids = small(graph, attention=attention), torch.tensor([6, 4, 5]), torch.tensor([9, 3, 5])
    walks = poses(3).masked_fill((torch.arange(6) >= lengths[:, None])[:, :, None, None], 1e6)  # what lies in the padding is never looked at
    batch = model(walks, lengths, seed=7, sample_ids=ids)
    order = torch.tensor([2, 0, 1])
    moved = model(walks[order], lengths[order], seed=7, sample_ids=ids[order])
    torch.testing.assert_close(moved.logits, batch.logits[order])
    alone = model(walks[1:2, :4], seed=7, sample_ids=ids[1:2])
    torch.testing.assert_close(alone.logits, batch.logits[1:2])
    assert torch.equal(alone.kept, batch.kept[1:2, :, :4])


def test_a_walk_without_frames_gives_numbers():
    output = small()(poses(), torch.tensor([0, 6]))
    output.logits.sum().backward()
    assert output.logits.isfinite().all()
    assert output.kept[0].sum() == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_whole_model_agrees_with_the_dense_reference(recipe: str):
    model, gradients = small(**RECIPES[recipe]).double(), {}
    for backend in ("reference", "torch", "cpu"):
        with use_backend(backend):
            output = model(poses().double(), torch.tensor([6, 5]), seed=3, prior=0.3)
            loss = output.logits.square().sum() + output.information.sum()
            gradients[backend] = [output.logits, output.information, *torch.autograd.grad(loss, list(model.parameters()))]
    for backend in ("torch", "cpu"):
        for wanted, found in zip(gradients["reference"], gradients[backend], strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-7)


def test_without_an_edge_the_decision_is_a_fixed_guess():
    model = small()
    model.expect(torch.tensor([0.25, 0.75]))
    nothing = torch.zeros(2, 72, 6)
    output = model(poses() * 3, kept=nothing)
    torch.testing.assert_close(output.logits.softmax(1), torch.tensor([[0.25, 0.75]]).expand(2, 2))
    assert "downstream.class_log_share" not in dict(model.named_parameters())


def test_only_what_a_kept_edge_carries_counts():
    """Poses further than the layers reach from the kept edges' ends change nothing."""
    model, kept = small(layers=1), torch.zeros(1, 72, 6)
    graph = model.graph
    knee, ankle = graph.layout.index("left_knee"), graph.layout.index("left_ankle")
    kept[0, (graph.src == knee) & (graph.dst == ankle), 2] = 1
    walk = poses(1)
    changed = walk.clone()
    changed[:, :, [j for j in range(18) if j not in (knee, ankle)]] += 5
    changed[:, [0, 1, 3, 4, 5]] += 5
    torch.testing.assert_close(model(changed, kept=kept).logits, model(walk, kept=kept).logits)
    changed[:, 2, knee] += 1
    assert not torch.allclose(model(changed, kept=kept).logits, model(walk, kept=kept).logits)


def test_the_readout_is_the_mean_over_both_ends_of_the_kept_edges():
    model, lengths = small(), torch.tensor([6, 4])
    kept = (torch.rand(2, 72, 6, generator=generator()) < 0.3) * model.graph.edge_mask(6, lengths)
    output = model(poses(), lengths, kept=kept.float())
    h = output.embedding.detach()
    for b in range(2):
        ends = []
        for p, t in kept[b].nonzero().tolist():
            src, dst, offset = (int(tensor[p]) for tensor in (model.graph.src, model.graph.dst, model.graph.offset))
            ends += [h[b, t, dst], h[b, t + offset, src]]
        expected = model.downstream.classifier(torch.stack(ends).mean(0)) + model.downstream.class_log_share
        torch.testing.assert_close(output.logits[b], expected)


def test_the_papers_recipe_is_the_papers_model():
    """Plain graph convolutions with ReLU from the poses on, a mean over all nodes, a linear classifier."""
    model, walk = small("fixed", **PAPERS), poses(1)
    weight, self_weight = gcn_norm(torch.ones(1, 72, 6) * model.graph.edge_mask(6), model.graph)
    h = walk
    for convolution in model.downstream.convolutions:
        h = convolution(h, model.graph, weight, self_weight).relu()
    torch.testing.assert_close(model(walk).logits, model.downstream.classifier(h.mean((1, 2))))
    assert model.downstream.input is None
    assert model.downstream.joint is None
    learned = small("learned", **PAPERS)
    assert isinstance(learned.source, LearnedGraph)
    sampling = learned.source.sampling
    assert (sampling.noise, sampling.estimator, sampling.beta, sampling.tau) == ("gumbel", "identity", 2.0, 2.0)
    assert (learned.source.upstream.slot_bias == 0).all()


def test_edges_begin_as_likely_as_asked_for():
    for noise in ("logistic", "gumbel"):
        model = small(noise=noise, keep_start=0.8)
        torch.nn.init.zeros_(model.source.upstream.query.weight)
        torch.nn.init.zeros_(model.source.upstream.query.bias)
        probability = model.probability(poses(1))
        torch.testing.assert_close(probability, 0.8 * model.graph.edge_mask(6).float()[None])


def test_a_given_graph_and_a_source_of_ones_own():
    graph = SkeletonGraph("coco18", 1)
    at_knee = graph.dst == graph.layout.index("left_knee")
    model = small(GivenGraph(graph, at_knee))
    assert torch.equal(model(poses(1)).kept[0].bool(), graph.edge_mask(6) & at_knee[:, None])
    with pytest.raises(ValueError, match=r"kept must be \[72\], one value for every slot"):
        GivenGraph(graph, [True, False])


def test_the_likeliest_edges_alone():
    model, lengths = small(), torch.tensor([6, 5])
    kept = model(poses(), lengths, seed=1, likeliest=torch.tensor([0.1, 0.0])).kept
    assert torch.equal(kept[1], model(poses(), lengths, seed=1).kept[1])
    existing, probability = model.graph.edge_mask(6).float(), model.probability(poses(), lengths)[0]
    assert kept[0].sum() == (existing.sum() * 0.1).round()
    assert probability[kept[0] > 0].min() >= probability[(existing > 0) & (kept[0] == 0)].max()


def test_walks_on_one_anothers_edges():
    model, lengths = small(), torch.tensor([6, 4])
    own = model(poses(), lengths, seed=1).kept
    kept = model(poses(), lengths, seed=1, edges_of=torch.tensor([1, 0])).kept
    assert torch.equal(kept, own.flip(0) * model.graph.edge_mask(6, lengths))
    assert torch.equal(model(poses(), lengths, seed=1, edges_of=torch.tensor([0, 1])).kept, own)


@pytest.mark.parametrize("readout", ["edges", "nodes"])
def test_the_evidence_of_all_frames_is_the_decision(readout: str):
    model, lengths = small(readout=readout), torch.tensor([6, 4])
    output = model(poses(), lengths, seed=1)
    evidence = model.downstream.evidence(output.embedding, output.kept, lengths)
    bias = model.downstream.classifier.bias if readout == "nodes" else model.downstream.class_log_share
    torch.testing.assert_close(evidence.sum(1) + bias, output.logits)
    assert (evidence[1, 4:] == 0).all()
    if readout == "edges":  # a frame that no kept edge ends in says nothing
        kept = output.kept.clone()
        kept[:, :, 2] = 0
        output = model(poses(), lengths, kept=kept)
        assert (model.downstream.evidence(output.embedding, kept, lengths)[:, 2] == 0).all()
        assert output.kept[:, :, 1].sum() > 0


def test_the_source_can_be_passed_by():
    model = small()
    kept = torch.zeros(2, 72, 6)
    kept[:, :, 2] = 1
    assert torch.equal(model(poses(), kept=kept).kept, kept)


@pytest.mark.parametrize("layers", [8, 16])
def test_deep_models_keep_nodes_apart(layers: int):
    """With the initial residual the nodes of a deep model stay as different as those of a shallow one; without it they become alike."""
    from fastst.ops import mean_average_distance

    spread = {}
    for residual in (0.0, 0.2):
        model = small("fixed", layers=layers, hidden=32, frames=20, residual=residual)
        spread[residual] = mean_average_distance(model(poses(2, 20)).embedding).mean().item()
    assert spread[0.2] > 2 * spread[0.0]


def test_threshold_keeps_the_likelier_half_and_needs_no_noise():
    model = small(noise="gumbel", keep_start=0.0)
    first, second = (model(poses(), seed=seed, evaluation="threshold").kept for seed in (1, 2))
    assert torch.equal(first, second)
    # 1 - exp(-e^γ / 2) > ½ where γ > log(2 log 2)
    expected = (model.source.upstream(poses()) > 0.3266) & model.graph.edge_mask(6)
    assert torch.equal(first.bool(), expected)


def test_positions_are_interpolated_beyond_the_trained_length():
    upstream = Upstream(SkeletonGraph("coco18", 1), 2, 8, frames=5, heads=2, encoder_layers=1, attention="factorized")
    assert torch.equal(upstream._positions(3, None), upstream.position[:3])
    longer = upstream._positions(9, None)[0]
    torch.testing.assert_close(longer[::2], upstream.position)
    torch.testing.assert_close(longer[1], (upstream.position[0] + upstream.position[1]) / 2)


def test_standardized_poses_have_mean_0_and_deviation_1():
    model, walks = small(), [5 + 3 * poses(1)[0], 5 + 3 * poses(1, 9)[0]]
    walks[0][:, 0] = walks[1][:, 0] = 2.0  # a root joint, which never moves
    model.standardize(walks)
    frames = (torch.cat(walks) - model.pose_mean) / model.pose_scale
    torch.testing.assert_close(frames.mean(0), torch.zeros(18, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.std(0, unbiased=False)[1:], torch.ones(17, 2), atol=1e-4, rtol=0)
    assert (frames[:, 0] == 0).all()


@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
def test_autocast(amp: torch.dtype):
    model = small(hidden=32)
    exact = model(poses(), seed=1)
    with torch.autocast("cpu", amp):
        output = model(poses(), seed=1)
        loss = output.logits.float().square().sum()
    loss.backward()
    assert output.logits.dtype == amp
    assert (output.kept == exact.kept).float().mean() > 0.97
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("graph", ["fixed", "learned"])
def test_activation_checkpointing_changes_no_number(graph: str):
    results = []
    for checkpointed in (False, True):
        model = small(graph, checkpoint_activations=checkpointed)
        output = model(poses(), torch.tensor([6, 4]), seed=1)
        results.append([output.logits, output.kept, *torch.autograd.grad(output.logits.square().sum(), list(model.parameters()))])
    for wanted, found in zip(*results, strict=True):
        assert torch.equal(found, wanted)


def test_activation_checkpointing_keeps_less_for_the_backward():
    kept = []
    for checkpointed in (False, True):
        model, sizes = small(layers=6, checkpoint_activations=checkpointed), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            model(poses())
        kept.append(sum(sizes))
    assert kept[1] < 0.6 * kept[0]


def test_what_is_computed_again_runs_on_the_backend_of_its_forward(monkeypatch: pytest.MonkeyPatch):
    """Also where the backward doesn't see `use_backend`: after its block, and in another thread."""
    model = small(checkpoint_activations=True)
    with use_backend("torch"):
        loss = model(poses(), torch.tensor([6, 4]), seed=1).logits.square().sum()
    monkeypatch.setattr("fastst.ops.backends._fastest", lambda device: pytest.fail("the backend was chosen anew"))
    failed: list[BaseException] = []

    def backward() -> None:
        try:
            loss.backward()
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=backward)
    thread.start()
    thread.join()
    assert not failed
    assert all(p.grad is not None for p in model.downstream.parameters())


def test_compiles_as_one_graph():
    model = small()
    compiled = torch.compile(model, fullgraph=True)
    for seed in (1, 2):
        torch.testing.assert_close(compiled(poses(), seed=seed).logits, model(poses(), seed=seed).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graph": "dense"}, "graph must be one of fixed, random, learned, got 'dense'"),
        ({"attention": "none"}, "attention must be one of factorized, local, full"),
        ({"heads": 3}, "heads must divide hidden = 8, got 3"),
        ({"graph": "random", "drop": 1.0}, "drop is the share of edges to remove"),
        ({"readout": "all"}, "readout must be one of edges, nodes"),
        ({"residual": 1.0}, "residual is a share"),
        ({"hops": 0}, "hops must be a whole number of at least 1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        small(**{"graph": "learned", **options})


def test_padding_changes_nothing_beyond_the_trained_length_too():
    """Positions are stretched by a walk's own length, and what stands in its padding reaches neither results nor gradients."""
    torch.manual_seed(0)
    model = GraphClassifier("coco18", 3, layers=2, hidden=16, frames=6, heads=2)
    walks, lengths, ids = torch.randn(2, 9, 18, 2), torch.tensor([9, 4]), torch.tensor([3, 5])
    padded = torch.full((2, 14, 18, 2), float("nan"))
    padded[0, :9], padded[1, :4] = walks[0], walks[1, :4]
    alone, together = model(walks, lengths, seed=0, sample_ids=ids), model(padded, lengths, seed=0, sample_ids=ids)
    assert torch.equal(alone.kept, together.kept[..., :9])
    torch.testing.assert_close(alone.logits, together.logits)
    together.logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_a_misspelled_evaluation_is_an_error():
    with pytest.raises(ValueError, match="evaluation must be one of sample, threshold, got 'treshold'"):
        GraphClassifier("coco18", 3, hidden=8, heads=2)(torch.zeros(1, 4, 18, 2), evaluation="treshold")


@pytest.mark.parametrize("graph", ["learned", "random"])
def test_an_ordinary_training_loop_sees_new_graphs_and_an_evaluation_always_the_same(graph: str):
    model = GraphClassifier("coco18", 2, graph=graph, frames=6, hidden=8, heads=2, layers=2, keep_start=0.5)
    poses = torch.randn(3, 6, 18, 2)
    torch.manual_seed(0)
    first, second = model(poses).kept, model(poses).kept
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(model(poses).kept, first)
    model.eval()
    kept = model(poses).kept
    assert torch.equal(model(poses).kept, kept)
    torch.testing.assert_close(model(poses[[2, 0]]).kept, kept[[2, 0]])
    torch.testing.assert_close(model(poses[1:2]).kept, kept[1:2])
