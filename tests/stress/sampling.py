"""The operations that draw: the same as in `operations` for the four that sample edges or say how likely they are."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from fastst import ops

from . import formulas, loops, subsets
from .cases import Case, Input, Output, edge_input, list_axis
from .operations import Arrays, Operation, embeddings, mixed, of_edges, places, wide
from .topology import Topology


def _draw_sampling(rng: random.Random) -> dict[str, Any]:
    noise = rng.choice(["gumbel", "logistic"])
    return {
        "beta": rng.choice([2.0, 1.0, 0.5, 5.0]),
        "tau": rng.choice([2.0, 1.0, 0.3]),
        "eps": rng.choice([1e-10, 1e-10, 2.0**-24 if noise == "gumbel" else 1e-3]),
        "noise": noise,
        "estimator": rng.choice(["identity", "sigmoid"]),
    }


def _draw_numbers(rng: random.Random, case: Case) -> dict[str, Any]:
    """A seed, and numbers that stand for the walks."""
    ids = [rng.choice([rng.randrange(100), rng.randrange(1 << 40)]) for _ in range(case.B)]
    return {"seed": rng.choice([0, 7, -1, rng.getrandbits(63)]), "as_tensor": rng.random() < 0.3, "ids": rng.choice([None, ids])}


def _numbers(case: Case) -> dict[str, Any]:
    o = case.options
    ids = None if o["ids"] is None else torch.tensor(o["ids"], dtype=torch.int64)
    return {"seed": torch.tensor(o["seed"]) if o["as_tensor"] else o["seed"], "sample_ids": ids, "lengths": case.length_tensor}


def _uniforms(case: Case, draws: int = 1) -> ndarray:
    """[draws, B, P, T']"""
    o, shape = case.options, (case.P, case.frames, case.graph.is_list)
    ids = list(range(case.B)) if o["ids"] is None else o["ids"]
    return np.stack([loops.uniforms(o["seed"], ids, *shape, draw) for draw in range(draws)])


def _free(case: Case) -> Tensor:
    return torch.tensor([p not in case.graph.loops for p in range(case.P)], dtype=torch.bool)


class KeepProbability(Operation):
    def options(self, rng, case):
        shape = tuple(rng.choice([0, 1, 2, 3, 9]) for _ in range(rng.randint(0, 3)))
        return {"shape": shape, **_draw_sampling(rng)}

    def inputs(self, case):
        return {"logits": Input(case.options["shape"], values="certain")}

    def outputs(self, case):
        return [Output(case.torch_dtype)]

    def call(self, case, x):
        return ops.keep_probability(x["logits"], sampling=_sampling(case))

    def loop(self, case, x):
        return *loops.keep_probability(x["logits"], case.options["beta"], case.options["noise"] == "logistic"), None

    def formula(self, case, x):
        return formulas.keep_probability(x["logits"], case.options["beta"], case.options["noise"] == "logistic")


def _sampling(case: Case) -> ops.Sampling:
    return ops.Sampling(**{name: case.options[name] for name in ("beta", "tau", "eps", "noise", "estimator")})


def _rule(case: Case) -> tuple[float, float, float, bool, bool]:
    o = case.options
    return o["beta"], o["tau"], o["eps"], o["noise"] == "logistic", o["estimator"] == "sigmoid"


class SampleEdges(Operation):
    on_edges = True

    def options(self, rng, case):
        return {**_draw_sampling(rng), **_draw_numbers(rng, case), "values": rng.choice(["logits", "certain"])}

    def inputs(self, case):
        return {"logits": edge_input(case, "full", values=case.options["values"])}

    def outputs(self, case):
        return [of_edges(case, case.torch_dtype, is_exact=True)]

    def call(self, case, x):
        return ops.sample_edges(x["logits"], case.graph.built, sampling=_sampling(case), **_numbers(case))

    def loop(self, case, x):
        return loops.sample_edges(case.edges, _uniforms(case)[0], x["logits"], case.graph.loops, *_rule(case))

    def formula(self, case, x):
        return formulas.sample_edges(places(case), torch.from_numpy(_uniforms(case)[0]), x["logits"], _free(case), *_rule(case))


class SampleFromEmbeddings(Operation):
    def options(self, rng, case):
        countable = case.graph.stride == 1 and not (case.graph.has_repeats and case.graph.loops)
        return {
            **_draw_sampling(rng),
            **_draw_numbers(rng, case),
            "prior": rng.choice([None, 0.25, 0.9, 0.01]) if countable else None,
            "bias": rng.random() < 0.6,
            "values": rng.choice(["normal", "certain"]),
            "weights": mixed(rng, case),
        }

    def inputs(self, case):
        return embeddings(case, case.options["values"])

    def outputs(self, case):
        kept = of_edges(case, wide(case), is_exact=True)
        return [kept] if case.options["prior"] is None else [kept, Output(wide(case))]

    def call(self, case, x):
        sampling, prior, bias = _sampling(case), case.options["prior"], x.get("bias")
        return ops.sample_from_embeddings(x["q"], x["k"], case.graph.built, bias, sampling=sampling, prior=prior, **_numbers(case))

    def loop(self, case, x):
        (logits,), through = loops.edge_logits(case.edges, (case.B, case.P, case.frames), x["q"], x["k"], x.get("bias", np.zeros(case.P)))
        (kept,), of_kept, margin = loops.sample_edges(case.edges, _uniforms(case)[0], logits, case.graph.loops, *_rule(case))
        if case.options["prior"] is None:
            return (kept,), lambda dkept: through(of_kept(dkept)["logits"]), margin
        beta, _, _, logistic, _ = _rule(case)
        (term,), of_term = loops.information(case.edges, logits, case.graph.loops, case.options["prior"], beta, logistic)
        return (kept, term), lambda dkept, dterm: through(of_kept(dkept)["logits"] + of_term(dterm)["logits"]), margin

    def formula(self, case, x):
        at, bias = places(case), x.get("bias", x["q"].new_zeros(case.P))
        logits = formulas.edge_logits(at, (case.B, case.P, case.frames), x["q"], x["k"], bias)
        kept = formulas.sample_edges(at, torch.from_numpy(_uniforms(case)[0]), logits, _free(case), *_rule(case))
        if case.options["prior"] is None:
            return kept
        beta, _, _, logistic, _ = _rule(case)
        return kept, formulas.information(at, logits, _free(case), case.options["prior"], beta, logistic)


class SampleKEdges(Operation):
    on_edges = True
    undecided = 1e-9

    def options(self, rng, case):
        return {
            **_draw_numbers(rng, case),
            "k": rng.choice([0, 1, 2, 3, 5, 40]),
            "per": rng.choice(["graph", "frame", "dst"]),
            "estimator": rng.choice(["simple", "straight_through", "imle", "reinforce"]),
            "samples": rng.choice([1, 1, 2, 3]),
            "lam": rng.choice([1.0, 0.5, 10.0]),
            "values": rng.choice(["logits", "certain"]),
        }

    def inputs(self, case):
        return {"logits": edge_input(case, "full", values=case.options["values"])}

    def outputs(self, case):
        exists = np.broadcast_to(case.edge_exists, (case.options["samples"], case.B, case.P, case.frames))
        kept = Output(case.torch_dtype, list_axis(case, 3), exists, is_exact=True)
        if case.options["estimator"] == "imle":
            return [kept]
        return [kept, of_edges(case, wide(case)), Output(wide(case))]

    def call(self, case, x):
        o = case.options
        rest = {name: o[name] for name in ("per", "estimator", "samples", "lam")}
        found = ops.sample_k_edges(x["logits"], case.graph.built, o["k"], **rest, **_numbers(case))
        return found[:1] if o["estimator"] == "imle" else found

    def loop(self, case, x):
        o = case.options
        uniform, rank, rest = _uniforms(case, o["samples"]), _rank(case.graph), (o["k"], o["per"], o["estimator"], o["lam"])
        outputs, backward, margin = subsets.sample_k_edges(case.edges, rank, uniform, x["logits"], case.graph.loops, *rest)

        def gradients(dkept: ndarray, dmarginals: ndarray | None = None, dlog: ndarray | None = None) -> Arrays:
            return backward(dkept, dmarginals, dlog)

        return tuple(v for v in outputs if v is not None), gradients, np.full(outputs[0].shape, margin)

    def formula(self, case, x):
        return None


def _rank(graph: Topology) -> list[int]:
    """The slots into a node are drawn by the frame that sends, modulo the stride, and its node; then by how far it lies."""
    places = [(dst, offset % graph.stride, src, offset // graph.stride, p) for p, (src, dst, offset) in enumerate(graph.slots)]
    order = sorted(places)
    return [order.index(place) for place in places]
