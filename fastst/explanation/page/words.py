"""What the page says of a walk and of its run, in words that may be read by somebody who does not know what an arm is."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastst.explanation.page.entries import Entry

# What may not be concluded, by the code of a verdict.
NOT_TO_CONCLUDE = {
    "edges_decide": (
        "It may not be concluded that these edges are the cause of anything, that nothing can be told from the others, or that what holds on average "
        "holds for this one walk."
    ),
    "any_edges_do": (
        "It may not be concluded that the edges shown are where the classes differ, nor that the model looks there: as many random ones do about as "
        "well."
    ),
    "edges_spell_the_class": (
        "It may not be concluded that the classes differ where edges are kept: the class was told before, and the choice of edges only repeats it."
    ),
    "graph_does_not_matter": "Nothing may be concluded from which edges are shown: the model is not shown to need them.",
    "no_edge_stands_out": "Nothing may be concluded from which edges are shown: none is shown to say more than others.",
    "too_few_people": "Nothing may be concluded from which edges are shown: too few people were tested on.",
    "not_learned": "Nothing may be concluded about edges: this model has not chosen any.",
}
_NO_AUDIT = "Nothing may be concluded from which edges are shown: nobody has tested what they are worth."
# The arms of an audit in the order in which they are told of.
_GRAPHS = {
    "kept": "with the edges that it kept",
    "no_edges": "without any edge",
    "all_edges": "with all edges",
    "random": "with as many random edges",
    "complement": "with the edges that it removed",
    "other_same_class": "with the edges kept of another person of the same class",
    "other_class": "with the edges kept of a person of another class",
    "mask_alone": "with its edges, but mean poses in place of its own",
}
_OF_ANOTHER = "with the edges kept of another person"


class Row(NamedTuple):
    """What the model says with a graph."""

    graph: str
    says: int  # number of the class
    probability: float
    same: bool  # as with the kept edges


class Said(NamedTuple):
    sentences: list[str]
    rows: list[Row]


def of_run(audit: dict[str, Any] | None) -> dict[str, Any]:
    """What may be quoted of a run, and what may not be concluded, by its audit.

    Returns:
        {"code", "quote", "not"}
    """
    if audit is None or "verdict" not in audit:
        why = f"the audit of this run failed: {audit['error']}" if audit and "error" in audit else "this run was not audited"
        return {"code": "no_audit", "quote": f"What the edges are worth is not known: {why}.", "not": _NO_AUDIT}
    code = audit["verdict"]["code"]
    return {"code": code, "quote": audit["verdict"]["sentence"], "not": NOT_TO_CONCLUDE.get(code, _NO_AUDIT)}


def of_walk(entry: Entry, class_names: list[str]) -> Said:
    """What is honest to say of one walk."""
    rows = _rows(entry)
    sentences = [_prediction(entry, class_names)]
    if entry.trained_on:
        sentences.append("This person had a part in the training: that the model knows the class proves nothing.")
    if entry.kept_share is not None:
        sentences.append(f"It kept {_percent(entry.kept_share)} of the edges of this walk. {_what_random_ones_do(entry, class_names)}")
        sentences.append(_of_seeds(entry))
    if entry.model is not None:
        sentences.append(f"Judged by {entry.model}, which was {'' if entry.trained_on else 'not '}trained on this person.")
    return Said(sentences, rows)


def _rows(entry: Entry) -> list[Row]:
    rows = []
    for arm, words in _GRAPHS.items():
        if arm not in entry.said or (entry.edges is None and arm not in ("kept", "no_edges")):
            continue
        if arm == "other_same_class" and entry.of_class is None:
            words = _OF_ANOTHER
        if arm == "kept" and entry.edges is None:
            words = "with its graph"
        says = max(range(len(entry.said[arm])), key=entry.said[arm].__getitem__)
        rows.append(Row(words, says, entry.said[arm][says], says == entry.predicted))
    return rows


def _prediction(entry: Entry, class_names: list[str]) -> str:
    said = f"The model says “{class_names[entry.predicted]}” (probability {entry.said['kept'][entry.predicted]:.2f})"
    if entry.of_class is None:
        return f"{said}. The true class is not known."
    if entry.of_class == entry.predicted:
        return f"{said}, which is right."
    return f"{said}, which is wrong: it is “{class_names[entry.of_class]}”."


def _what_random_ones_do(entry: Entry, class_names: list[str]) -> str:
    random, none = (entry.said[arm] for arm in ("random", "no_edges"))
    says = int(max(range(len(random)), key=random.__getitem__))
    if says != entry.predicted:
        return (
            f"With as many random ones it would say “{class_names[says]}” ({random[says]:.2f}): here it matters which edges are kept "
            "(one random draw; the run's audit says more)."
        )
    alike = f"With as many random ones it says the same ({random[says]:.2f})"
    if max(range(len(none)), key=none.__getitem__) == entry.predicted:
        return f"{alike}, and so it does without any ({none[entry.predicted]:.2f}): of this walk alone it is not shown that any edge decides."
    return f"{alike}: of this walk alone it is not shown that it matters which edges are kept."


def _of_seeds(entry: Entry) -> str:
    if entry.agreement is None:
        return "Whether a second training would keep the same edges is not known (fastst.train --seeds 2 would tell)."
    return f"A second training from another seed agrees on how likely the edges of this walk are kept with a correlation of {entry.agreement:.2f}."


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 else 1}f} %"
