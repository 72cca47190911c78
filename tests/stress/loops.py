"""What every operation computes, edge by edge in float64: sums over plain loops, with derivatives worked out by hand.

Nothing here comes from fastst. All arrays have their frames and are as large as what they stand for: features `[B, T, J, C]`, edge values
`[B, P, T]`, whatever was shared. Every function returns its outputs and a function from their gradients to those of its inputs, by name.
What no edge reads is not looked at, and has the gradient 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy import ndarray

from .topology import Edge

Gradients = dict[str, ndarray]
Result = tuple[tuple[ndarray, ...], Callable[..., Gradients]]
_DROPOUT = 0x5851F42D4C957F2D  # is added bit by bit to the seed of dropout


def propagate(edges: list[Edge], nodes: list[tuple[int, int]], shape: tuple[int, ...], x: ndarray, weight: ndarray, own: ndarray | None) -> Result:
    """y[t, dst] = own x[t, dst] + Σ weight x[s, src].  # weight [B, P, T, heads]; nodes: (walk, frame) of those that exist"""
    y, group = np.zeros(shape), x.shape[-1] // weight.shape[-1]
    for b, p, t, s, j, i in edges:
        y[b, t, i] += np.repeat(weight[b, p, t], group) * x[b, s, j]
    for b, t in nodes if own is not None else ():
        y[b, t] += own[b, t, :, None] * x[b, t]

    def backward(dy: ndarray) -> Gradients:
        dx, dweight, down = np.zeros_like(x), np.zeros_like(weight), np.zeros(0 if own is None else own.shape)
        for b, p, t, s, j, i in edges:
            dx[b, s, j] += np.repeat(weight[b, p, t], group) * dy[b, t, i]
            dweight[b, p, t] = (dy[b, t, i] * x[b, s, j]).reshape(-1, group).sum(1)
        for b, t in nodes if own is not None else ():
            dx[b, t] += own[b, t, :, None] * dy[b, t]
            down[b, t] = (dy[b, t] * x[b, t]).sum(-1)
        return {"x": dx, "weight": dweight, "self_weight": down}

    return (y,), backward


def message(edges: list[Edge], shape: tuple[int, ...], x: ndarray, attr: ndarray, weight: ndarray, slope: float) -> Result:
    """y[t, dst] = Σ weight · act(x[s, src] + attr), act(h) = h above 0, else slope · h."""
    y = np.zeros(shape)
    for b, p, t, s, j, i in edges:
        y[b, t, i] += weight[b, p, t] * _leaky(x[b, s, j] + attr[b, p, t], slope)

    def backward(dy: ndarray) -> Gradients:
        dx, dattr, dweight = np.zeros_like(x), np.zeros_like(attr), np.zeros_like(weight)
        for b, p, t, s, j, i in edges:
            hidden = x[b, s, j] + attr[b, p, t]
            dweight[b, p, t] = dy[b, t, i] @ _leaky(hidden, slope)
            dattr[b, p, t] = weight[b, p, t] * dy[b, t, i] * np.where(hidden > 0, 1, slope)
            dx[b, s, j] += dattr[b, p, t]
        return {"x": dx, "edge_attr": dattr, "edge_weight": dweight}

    return (y,), backward


def edge_logits(edges: list[Edge], shape: tuple[int, ...], q: ndarray, k: ndarray, bias: ndarray) -> Result:
    """q[t, dst] · k[s, src] + bias[p]."""
    logits = np.zeros(shape)
    for b, p, t, s, j, i in edges:
        logits[b, p, t] = q[b, t, i] @ k[b, s, j] + bias[p]

    def backward(dlogits: ndarray) -> Gradients:
        dq, dk, dbias = np.zeros_like(q), np.zeros_like(k), np.zeros_like(bias)
        for b, p, t, s, j, i in edges:
            dq[b, t, i] += dlogits[b, p, t] * k[b, s, j]
            dk[b, s, j] += dlogits[b, p, t] * q[b, t, i]
            dbias[p] += dlogits[b, p, t]
        return {"q": dq, "k": dk, "bias": dbias}

    return (logits,), backward


def gcn_norm(edges: list[Edge], nodes: list[tuple[int, int]], frames: int, kept: ndarray, looped: ndarray, loop: float) -> Result:
    """kept / √(D[to] D[from]) and loop / D, D = loop + Σ kept into the node.  # looped [J]: 1 for nodes that bring no loop, else 0"""
    degree = np.zeros((len(kept), frames, len(looped)))
    for b, t in nodes:
        degree[b, t] = loop * looped
    for b, p, t, _, _, i in edges:
        degree[b, t, i] += kept[b, p, t]
    root = np.where(degree > 0, 1 / np.sqrt(np.where(degree > 0, degree, 1)), 0)
    weight = np.zeros_like(kept)
    for b, p, t, s, j, i in edges:
        weight[b, p, t] = kept[b, p, t] * root[b, t, i] * root[b, s, j]

    def backward(dweight: ndarray, dself: ndarray) -> Gradients:
        droot, dkept = np.zeros_like(root), np.zeros_like(kept)
        for b, t in nodes:
            droot[b, t] = 2 * dself[b, t] * loop * looped * root[b, t]
        for b, p, t, s, j, i in edges:
            droot[b, t, i] += dweight[b, p, t] * kept[b, p, t] * root[b, s, j]
            droot[b, s, j] += dweight[b, p, t] * kept[b, p, t] * root[b, t, i]
        for b, p, t, s, j, i in edges:
            dkept[b, p, t] = dweight[b, p, t] * root[b, t, i] * root[b, s, j] - root[b, t, i] ** 3 / 2 * droot[b, t, i]
        return {"kept": dkept}

    return (weight, loop * looped * root**2), backward


def attend(
    edges: list[Edge],
    shape: tuple[int, ...],
    x_src: ndarray,
    x_dst: ndarray,
    att: ndarray,
    attr: ndarray | None,
    weight: ndarray,
    factor: ndarray,
    slope: float,
    most: float,
) -> Result:
    """y[t, dst] = Σ α factor x_src[s, src] and α factor, α = w eˢ / Σ w eˢ, s = att · LeakyReLU(x_src + x_dst + attr), head by head.

    factor: `[B, P, T, heads]`, of dropout. most: eˢ / Σ w eˢ is no larger than the exponential of it.
    """
    heads, group = att.shape
    into, hidden, score = defaultdict(list), {}, {}
    for edge in edges:
        b, p, t, s, j, i = edge
        into[b, t, i].append(edge)
        hidden[edge] = x_src[b, s, j] + x_dst[b, t, i] + (0 if attr is None else attr[b, p, t])
        score[edge] = (att * _leaky(hidden[edge], slope).reshape(heads, group)).sum(1)
    y, alpha, power = np.zeros(shape), np.zeros(factor.shape), np.zeros(factor.shape)  # power: eˢ / Σ w eˢ
    for (b, t, i), arriving in into.items():
        weighing = [e for e in arriving if weight[b, e.p, t] != 0]
        if not weighing:
            continue
        shift = np.max([score[e] for e in weighing], 0)
        log_sum = shift + np.log(sum(weight[b, e.p, t] * np.exp(score[e] - shift) for e in weighing))
        for e in arriving:
            power[b, e.p, t] = np.exp(np.minimum(score[e] - log_sum, most))
            alpha[b, e.p, t] = weight[b, e.p, t] * np.exp(score[e] - log_sum) if weight[b, e.p, t] else 0
            y[b, t, i] += np.repeat(alpha[b, e.p, t] * factor[b, e.p, t], group) * x_src[b, e.s, e.src]

    def backward(dy: ndarray, dout: ndarray) -> Gradients:
        dsrc, ddst, datt, dweight = (np.zeros_like(v) for v in (x_src, x_dst, att, weight))
        dattr = np.zeros(0 if attr is None else attr.shape)
        for (b, t, i), arriving in into.items():
            dalpha = {}
            for e in arriving:
                of_sum = (dy[b, t, i] * x_src[b, e.s, e.src]).reshape(heads, group).sum(1)
                dalpha[e] = (of_sum + dout[b, e.p, t]) * factor[b, e.p, t]
                dsrc[b, e.s, e.src] += np.repeat(alpha[b, e.p, t] * factor[b, e.p, t], group) * dy[b, t, i]
            mean = sum(alpha[b, e.p, t] * dalpha[e] for e in arriving)
            for e in arriving:
                dweight[b, e.p, t] = (power[b, e.p, t] * (dalpha[e] - mean)).sum()
                dscore = alpha[b, e.p, t] * (dalpha[e] - mean)
                datt += dscore[:, None] * _leaky(hidden[e], slope).reshape(heads, group)
                dhidden = (dscore[:, None] * att).ravel() * np.where(hidden[e] > 0, 1, slope)
                dsrc[b, e.s, e.src] += dhidden
                ddst[b, t, i] += dhidden
                if attr is not None:
                    dattr[b, e.p, t] = dhidden
        return {"x_src": dsrc, "x_dst": ddst, "att": datt, "edge_attr": dattr, "edge_weight": dweight}

    return (y, alpha * factor), backward


def mean_average_distance(walks: list[ndarray], shape: tuple[int, ...]) -> Result:
    """The mean of 1 − cosine over all pairs of nodes of a walk, itself included; 0 for a walk without nodes.  # walks: [nodes, C] each"""
    distance, units, lengths = np.zeros(len(walks)), [], []
    for b, nodes in enumerate(walks):
        length = np.sqrt((nodes**2).sum(1))
        unit = nodes / np.where(length > 0, length, 1)[:, None]
        if len(nodes):
            distance[b] = np.mean([[1 - a @ c for a in unit] for c in unit])
        units.append(unit)
        lengths.append(length)

    def backward(ddistance: ndarray) -> Gradients:
        dh = np.zeros(shape)
        for b, (unit, length) in enumerate(zip(units, lengths, strict=True)):
            rows = dh[b].reshape(math.prod(shape[1:-1]), shape[-1])
            for n, (u, size) in enumerate(zip(unit, length, strict=True)):
                if size > 0:
                    along = sum(v - (u @ v) * u for v in unit)
                    rows[n] = -2 / len(unit) ** 2 * ddistance[b] * along / size
        return {"h": dh}

    return (distance,), backward


def keep_probability(logits: ndarray, beta: float, logistic: bool) -> Result:
    """1 − exp(−e^γ / β), or sigmoid(γ); the gradient at ±∞ is 0."""
    flat = [_probability(g, beta, logistic) for g in logits.ravel()]
    p, slope = (np.array([pair[n] for pair in flat], float).reshape(logits.shape) for n in range(2))
    return (p,), lambda dp: {"logits": dp * slope}


def _probability(gamma: float, beta: float, logistic: bool) -> tuple[float, float]:
    """p and dp/dγ."""
    if math.isinf(gamma):
        return float(gamma > 0), 0.0
    if logistic:
        e = math.exp(-abs(gamma))
        return (1 if gamma > 0 else e) / (1 + e), e / (1 + e) ** 2
    rate = math.exp(min(gamma, 700)) / beta
    return -math.expm1(-rate), (rate * math.exp(-rate) if rate < 700 else 0.0)


def sample_edges(
    edges: list[Edge], uniform: ndarray, logits: ndarray, loops: set[int], beta: float, tau: float, eps: float, logistic: bool, sigmoid: bool
) -> tuple[tuple[ndarray, ...], Callable[..., Gradients], ndarray]:
    """1 where z > 0, z = (γ + noise) / τ; the straight-through gradient 1 / τ or σ'(z) / τ, 0 at ±∞. Loops stay. Also how far τ z is from 0."""
    kept, slope, margin = np.zeros_like(logits), np.zeros_like(logits), np.full(logits.shape, math.inf)
    for b, p, t, *_ in edges:
        gamma, u = logits[b, p, t], float(uniform[b, p, t])
        if p in loops:
            kept[b, p, t] = 1
            continue
        noise = math.log(u + eps) - math.log(1 - u + eps) if logistic else -math.log(-beta * math.log(u + eps) + eps)
        score = gamma + noise
        kept[b, p, t], margin[b, p, t] = score > 0, abs(score)
        if math.isinf(gamma):
            continue
        e = math.exp(-abs(score) / tau)
        slope[b, p, t] = (e / (1 + e) ** 2 if sigmoid else 1) / tau
    return (kept,), lambda dkept: {"logits": dkept * slope}, margin


def information(edges: list[Edge], logits: ndarray, loops: set[int], prior: float, beta: float, logistic: bool) -> Result:
    """The mean of KL(Bernoulli(p) ‖ Bernoulli(r)) over a walk's edges that are no loops.  # [B]"""
    term, slope, count = np.zeros(len(logits)), np.zeros_like(logits), np.zeros(len(logits))
    for b, p, t, *_ in edges:
        if p in loops:
            continue
        chance, derivative = _probability(logits[b, p, t], beta, logistic)
        rest, log_chance, log_rest = _rest(logits[b, p, t], beta, logistic)
        count[b] += 1
        term[b] += chance * (log_chance - math.log(prior)) if chance else 0
        term[b] += rest * (log_rest - math.log1p(-prior)) if rest else 0
        if derivative:
            slope[b, p, t] = (log_chance - log_rest - math.log(prior) + math.log1p(-prior)) * derivative
    count = np.maximum(count, 1)
    return (term / count,), lambda dterm: {"logits": slope * (dterm / count)[:, None, None]}


def _rest(gamma: float, beta: float, logistic: bool) -> tuple[float, float, float]:
    """1 − p, log p and log(1 − p)."""
    if math.isinf(gamma):
        return float(gamma < 0), 0.0, 0.0
    if logistic:
        log_p, log_rest = (-math.log1p(math.exp(-abs(g))) + min(g, 0) for g in (gamma, -gamma))
        return math.exp(log_rest), log_p, log_rest
    rate = math.exp(min(gamma, 700)) / beta
    return math.exp(-rate), math.log(-math.expm1(-rate)) if rate else 0.0, -rate


def dropout(shape: tuple[int, int, int, int], chance: float, seed: int, is_list: bool) -> tuple[ndarray, float]:
    """0 for what is dropped, else 1 / (1 − chance), every head a sample of its own; and how near any of them came to the other.

    # [B, P, T, heads]
    """
    B, P, T, heads = shape
    if chance == 1 or 0 in shape:
        return np.zeros(shape), math.inf
    u = uniforms(seed ^ _DROPOUT, list(range(B * heads)), P, T, is_list).astype(float)
    score = math.log((1 - chance) / chance) + np.log(u + 1e-10) - np.log(1 - u + 1e-10)
    factor = (score > 0).reshape(B, heads, P, T).transpose(0, 2, 3, 1) / (1 - chance)
    return factor, np.abs(score).min()


def uniforms(seed: int, sample_ids: list[int], P: int, T: int, is_list: bool, draw: int = 0) -> ndarray:
    """Philox4x32-10 in plain whole numbers, and the uniform of Triton's `tl.rand`.  # [B, P, T] float32"""
    key, found = (seed & _WORD, seed >> 32 & _WORD), np.zeros((len(sample_ids), P, T), np.float32)
    for b, n in enumerate(sample_ids):
        rows, columns = (1, P) if is_list else (P, T)
        for row in range(rows):
            for group in range(-(-columns // 4)):
                for word, bits in enumerate(_philox((group, row, n & _WORD, 2 * draw + is_list), key)[: columns - 4 * group]):
                    p, t = (4 * group + word, 0) if is_list else (row, 4 * group + word)
                    found[b, p, t] = _uniform(bits)
    return found


_WORD = 0xFFFFFFFF


def _philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (right >> 32) ^ b ^ k, right & _WORD, (left >> 32) ^ d ^ m, left & _WORD
        k, m = (k + 0x9E3779B9) & _WORD, (m + 0xBB67AE85) & _WORD
    return a, b, c, d


def _uniform(bits: int) -> np.float32:
    signed = bits - (1 << 32) if bits >> 31 else bits
    return np.float32(-signed - 1 if signed < 0 else signed) * np.float32(4.6566127342e-10)


def _leaky(hidden: ndarray, slope: float) -> ndarray:
    return np.where(hidden > 0, hidden, slope * hidden)
