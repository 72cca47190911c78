"""The operations of `fastst.ops` as the property test sees them: options, inputs, a call, the loop and torch's formula for the same."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from fastst import ops

from . import formulas, loops
from .cases import HALF, Case, Input, Output, edge_input, list_axis, node_input
from .formulas import Places
from .topology import Topology, with_loops

Arrays = dict[str, ndarray]
Tensors = dict[str, Tensor]


class Operation:
    """
    Attributes:
        on_edges: it takes edge values alone, and so doesn't know how many frames send.
        no_channels: its features may have none.
        is_dense: its reference needs matrices, which know no parallel edges.
        undecided: where the smallest margin of a case is less, nobody says what comes out, and the case is void.
    """

    on_edges = False
    no_channels = False
    is_dense = False
    bipartite = True
    undecided = 0.0

    def options(self, rng: random.Random, case: Case) -> dict[str, Any]:
        return {}

    def inputs(self, case: Case) -> dict[str, Input]:
        """By the names of the gradients."""
        raise NotImplementedError

    def outputs(self, case: Case) -> list[Output]:
        raise NotImplementedError

    def call(self, case: Case, x: Tensors) -> Any:
        raise NotImplementedError

    def loop(self, case: Case, x: Arrays) -> tuple[tuple, Any, Any]:
        """Outputs, the function of gradients, and how far from another result each number of the first output is."""
        raise NotImplementedError

    def formula(self, case: Case, x: Tensors) -> Any:
        """None where the operation computes in float64 whatever it is given."""
        raise NotImplementedError


def wide(case: Case) -> torch.dtype:
    return torch.promote_types(case.torch_dtype, torch.float32)


def _heads(rng: random.Random, C: int) -> int:
    return rng.choice([h for h in range(1, C + 1) if C % h == 0])


def _form(rng: random.Random) -> str:
    return rng.choice(["full", "full", "full", "walks", "frames", "both"])


def mixed(rng: random.Random, case: Case) -> str | None:
    """Weights in float32 beside features in half precision, as under autocast."""
    return "float32" if case.dtype in HALF and rng.random() < 0.4 else None


def _values(case: Case) -> str:
    """Features whose sums have the same sign in every dtype."""
    return "coarse" if case.dtype in HALF else "normal"


def _of_receivers(case: Case) -> Output:
    return Output(case.torch_dtype, list_axis(case, 1), case.inside(True))


def of_edges(case: Case, dtype: torch.dtype, is_exact: bool = False) -> Output:
    return Output(dtype, list_axis(case, 2), case.edge_exists, is_exact)


class Propagate(Operation):
    is_dense = True

    def options(self, rng, case):
        heads = _heads(rng, case.C) if rng.random() < 0.3 else 0
        return {"form": _form(rng), "heads": heads, "own": not case.graph.bipartite and rng.random() < 0.5, "weights": mixed(rng, case)}

    def inputs(self, case):
        o = case.options
        found = {"x": node_input(case), "weight": edge_input(case, o["form"], (o["heads"] or 1,), bool(o["heads"]), dtype=o["weights"])}
        if not o["heads"]:
            w = found["weight"]
            found["weight"] = Input(w.full, w.shared, (*w.dropped, 3), w.exists, w.values, w.dtype)
        if o["own"]:
            J = case.graph.receivers
            found["self_weight"] = Input((case.B, case.frames, J), (), list_axis(case, 1), case.inside(True), dtype=o["weights"])
        return found

    def outputs(self, case):
        return [_of_receivers(case)]

    def call(self, case, x):
        return ops.propagate(x["x"], x["weight"], case.graph.built, x.get("self_weight"), case.length_tensor)

    def loop(self, case, x):
        return *loops.propagate(case.edges, case.nodes, _received(case), x["x"], x["weight"], x.get("self_weight")), None

    def formula(self, case, x):
        return formulas.propagate(places(case), _frames(case), _received(case), x["x"], x["weight"], x.get("self_weight"))


def _received(case: Case) -> tuple[int, int, int, int]:
    return case.B, case.frames, case.graph.receivers, case.C


def places(case: Case) -> Places:
    return Places.of(case.edges)


def _frames(case: Case) -> Tensor:
    return torch.from_numpy(case.inside(True))[..., None]


class Message(Operation):
    def options(self, rng, case):
        return {
            "form": rng.choice(["full", "full", "frames", "both"]),
            "weight_form": rng.choice([None, _form(rng), _form(rng)]),
            "activation": rng.choice(["relu", "leaky_relu", "none"]),
            "slope": rng.choice([0.01, 0.2, 1.5]),
            "weights": mixed(rng, case),
        }

    def inputs(self, case):
        o = case.options
        found = {"x": node_input(case, values=_values(case)), "edge_attr": edge_input(case, o["form"], (case.C,), values=_values(case))}
        if o["weight_form"]:
            found["edge_weight"] = edge_input(case, o["weight_form"], dtype=o["weights"])
        return found

    def outputs(self, case):
        return [_of_receivers(case)]

    def call(self, case, x):
        o = case.options
        weight, graph = x.get("edge_weight"), case.graph.built
        return ops.message(x["x"], x["edge_attr"], weight, graph, o["activation"], case.length_tensor, negative_slope=o["slope"])

    def loop(self, case, x):
        weight = x.get("edge_weight", np.ones((case.B, case.P, case.frames)))
        return *loops.message(case.edges, _received(case), x["x"], x["edge_attr"], weight, self._slope(case)), None

    def formula(self, case, x):
        weight = x.get("edge_weight", x["x"].new_ones(case.B, case.P, case.frames))
        return formulas.message(places(case), _received(case), x["x"], x["edge_attr"], weight, self._slope(case))

    def _slope(self, case):
        return {"relu": 0.0, "leaky_relu": case.options["slope"], "none": 1.0}[case.options["activation"]]


class EdgeLogits(Operation):
    def options(self, rng, case):
        return {"bias": rng.random() < 0.6, "weights": mixed(rng, case)}

    def inputs(self, case):
        return embeddings(case, "normal")

    def outputs(self, case):
        return [of_edges(case, wide(case))]

    def call(self, case, x):
        return ops.edge_logits(x["q"], x["k"], case.graph.built, x.get("bias"), case.length_tensor)

    def loop(self, case, x):
        return *loops.edge_logits(case.edges, (case.B, case.P, case.frames), x["q"], x["k"], x.get("bias", np.zeros(case.P))), None

    def formula(self, case, x):
        return formulas.edge_logits(places(case), (case.B, case.P, case.frames), x["q"], x["k"], x.get("bias", x["q"].new_zeros(case.P)))


def embeddings(case: Case, bias: str) -> dict[str, Input]:
    found = {"q": node_input(case, receivers=True), "k": node_input(case)}
    if case.options["bias"]:
        found["bias"] = Input((case.P,), values=bias, dtype=case.options["weights"])
    return found


class GcnNorm(Operation):
    on_edges = is_dense = True
    bipartite = False

    def options(self, rng, case):
        return {"loops": rng.random() < 0.7, "improved": rng.random() < 0.3, "values": rng.choice(["bits", "positive"])}

    def inputs(self, case):
        return {"kept": edge_input(case, "full", values=case.options["values"])}

    def outputs(self, case):
        return [of_edges(case, case.torch_dtype), _of_receivers(case)]

    def call(self, case, x):
        o = case.options
        return ops.gcn_norm(x["kept"], case.graph.built, case.length_tensor, add_self_loops=o["loops"], improved=o["improved"])

    def loop(self, case, x):
        return *loops.gcn_norm(case.edges, case.nodes, case.frames, x["kept"], _without_loops(case.graph), self._loop(case)), None

    def formula(self, case, x):
        return formulas.gcn_norm(places(case), _frames(case), x["kept"], torch.from_numpy(_without_loops(case.graph)), self._loop(case))

    def _loop(self, case):
        return (1.0 + case.options["improved"]) * case.options["loops"]


def _without_loops(graph: Topology) -> ndarray:
    """1 for nodes that bring no loop, else 0."""
    looped = {graph.slots[p][1] for p in graph.loops}
    return np.array([float(j not in looped) for j in range(graph.num_src)])


class Attend(Operation):
    is_dense = True
    undecided = 1e-4  # of dropout, whose noise is made in float32

    def options(self, rng, case):
        loops = not case.graph.bipartite and rng.random() < 0.35
        plain = rng.random() < 0.3
        return {
            "heads": _heads(rng, case.C),
            "slope": rng.choice([0.2, 0.2, 0.0, 1.3]),
            "loops": loops,
            "attr": None if loops or plain else rng.choice([None, _form(rng)]),
            "weight": None if plain else rng.choice([None, _form(rng)]),
            "dropout": 0.0 if plain else rng.choice([0.0, 0.0, 0.3, 1.0]),
            "returned": not plain and rng.random() < 0.5,
            "weights": mixed(rng, case),
        }

    def inputs(self, case):
        o, values = case.options, _values(case)
        found = {"x_src": node_input(case, values=values), "x_dst": node_input(case, receivers=True, values=values)}
        found["att"] = Input((o["heads"], case.C // o["heads"]), values=values)
        if o["attr"]:
            found["edge_attr"] = edge_input(case, o["attr"], (case.C,), values=values)
        if o["weight"]:
            found["edge_weight"] = edge_input(case, o["weight"], values="positive", dtype=o["weights"])
        return found

    def outputs(self, case):
        whole, _ = _looped(case)
        alpha = Output(wide(case), list_axis(case, 2), whole.edge_exists)
        return [_of_receivers(case), alpha] if case.options["returned"] else [_of_receivers(case)]

    def call(self, case, x):
        o = case.options
        return ops.attend(
            x["x_src"],
            x["x_dst"],
            x["att"],
            case.graph.built,
            o["heads"],
            o["slope"],
            case.length_tensor,
            add_self_loops=o["loops"],
            edge_attr=x.get("edge_attr"),
            edge_weight=x.get("edge_weight"),
            dropout=o["dropout"],
            seed=case.seed if o["dropout"] else None,
            return_attention_weights=o["returned"],
        )

    def loop(self, case, x):
        o, (whole, given), margin = case.options, _looped(case), math.inf
        weight = np.ones((case.B, whole.P, case.frames))
        weight[:, : len(given)] = x["edge_weight"][:, given] if o["weight"] else 1
        factor, margin = _factor(case)
        dtype = o["weights"] or case.dtype
        most = math.log(torch.finfo(getattr(torch, dtype)).max) / 2 if o["weight"] else math.inf
        rest = x.get("edge_attr"), weight, factor, o["slope"], most
        (y, alpha), backward = loops.attend(whole.edges, _received(case), x["x_src"], x["x_dst"], x["att"], *rest)

        def gradients(dy: ndarray, dalpha: ndarray | None = None) -> Arrays:
            found = backward(dy, np.zeros_like(alpha) if dalpha is None else dalpha)
            dweight = np.zeros((case.B, case.P, case.frames))
            dweight[:, given] = found["edge_weight"][:, : len(given)]
            return {**found, "edge_weight": dweight}

        return (y, alpha) if o["returned"] else (y,), gradients, np.full(y.shape, margin)

    def formula(self, case, x):
        o, (whole, given) = case.options, _looped(case)
        weight = x["x_src"].new_ones(case.B, whole.P, case.frames)
        if o["weight"]:
            weight = torch.cat((x["edge_weight"][:, given], weight[:, len(given) :]), 1)
        factor = torch.from_numpy(_factor(case)[0]).to(weight)
        rest = x.get("edge_attr"), weight, factor, o["slope"]
        found = formulas.attend(places(whole), _received(case), x["x_src"], x["x_dst"], x["att"], *rest)
        return found if o["returned"] else found[0]


def _looped(case: Case) -> tuple[Case, list[int]]:
    """The case on the graph with a loop at every node, if one is to be added."""
    if not case.options["loops"]:
        return case, list(range(case.P))
    graph, given = with_loops(case.graph)
    return Case(case.op, graph, case.B, case.T, case.C, case.lengths), given


def _factor(case: Case) -> tuple[ndarray, float]:
    whole, _ = _looped(case)
    shape = case.B, whole.P, case.frames, case.options["heads"]
    return loops.dropout(shape, case.options["dropout"], case.seed, case.graph.is_list) if case.options["dropout"] else (np.ones(shape), math.inf)


class MeanAverageDistance(Operation):
    no_channels = True

    def inputs(self, case):
        return {"h": node_input(case, values="coarse" if case.seed % 3 == 0 else "normal")}

    def outputs(self, case):
        return [Output(wide(case))]

    def call(self, case, x):
        return ops.mean_average_distance(x["h"], case.length_tensor)

    def loop(self, case, x):
        J, C = x["h"].shape[2:]
        walks = [h[:length].reshape(length * J, C) for h, length in zip(x["h"], case.walks, strict=True)]
        return *loops.mean_average_distance(walks, x["h"].shape), None

    def formula(self, case, x):
        inside = torch.from_numpy(case.inside(False)).repeat_interleave(case.graph.num_src, 1)
        return formulas.mean_average_distance(x["h"].flatten(1, 2), inside)
