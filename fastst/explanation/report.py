"""All that is said of a finished training beside its scores: the audit, its pictures, and both in words."""

from __future__ import annotations

import traceback
from pathlib import Path
from statistics import mean
from typing import Any

from fastst.data.splits import person
from fastst.errors import UserError, visible
from fastst.explanation import figures, walk_figures
from fastst.explanation.agreement import agreement_of_folds
from fastst.explanation.audit import audit
from fastst.explanation.profiles import flatness
from fastst.explanation.text import readable
from fastst.explanation.verdict import verdict
from fastst.explanation.views import View, standing_body
from fastst.nn import GraphClassifier
from fastst.runs.folder import load_model, read_summary
from fastst.runs.graphs import kept_graph_of_walk
from fastst.runs.lock import check_owned
from fastst.runs.trainer import Finished
from fastst.runs.training import Examination


def explain(finished: Finished) -> dict[str, Any]:
    """Audits and draws; what it returns goes into the run's summary."""
    found = examine(finished)
    try:
        draw(finished, found)
    except UserError:  # a full disk, say: the run goes on from here with --resume
        raise
    except Exception as error:
        found["figures_error"] = visible(f"{type(error).__name__}: {error}")
    return found


def examine(finished: Finished) -> dict[str, Any]:
    """The audit and, where joints were planted, the truth. An audit that fails says why and takes nothing else with it."""
    try:
        found = audit(finished, _control(finished), _other_seeds(finished))
        _say_known(found["audit"], _known(finished))
        return found
    except Exception as error:  # whatever it was, the trained model and its scores are not to be lost
        place = traceback.extract_tb(error.__traceback__)[-1]
        return {"audit": {"error": visible(f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})")}}


def draw(finished: Finished, found: dict[str, Any]) -> None:
    """The pictures of a finished training."""
    folder, task, result = finished.fold.folder, finished.task, found["audit"]
    regression = finished.summary.get("baselines", {}).get("logistic_regression", {})
    known, tested = _known(finished), len(finished.fold.split.test)
    check_owned(folder)
    whom = {"whom": f"people tested on ({known} of {tested} known from --init)"} if known else {}
    figures.learning_curve(finished.metrics, len(task.class_names), folder / "learning_curve.png", regression.get("balanced_accuracy"), **whom)
    figures.initial_adjacency(task.walks.layout, folder / "initial_adjacency.png")
    if "error" not in result:
        figures.audit(result, folder / "audit.png")
        body = standing_body([task.walks.poses[walk] for walk in finished.test_walks], task.walks.layout)
        walk_figures.kept_of_joints(result["kept_of_joints"], result["verdict"]["sentence"], task.walks.layout, body, folder / "kept_of_joints.png")
    draw_walk(finished, finished.test_walks[0], folder / "walk_with_kept_edges.png", (0, finished.config.frames))


def draw_walk(
    finished: Finished, walk: int, path: Path, frames: tuple[int, int] | None = None, view: View | None = None, labelled: bool = True
) -> None:
    """The walk of that number, and its class if that is known, with the edges that the model keeps of it; frames beyond its end are left out."""
    task, poses = finished.task, finished.task.walks.poses[walk]
    drawn = kept_graph_of_walk(finished.model, task, walk, finished.asked)
    title = readable(task.walks.names[walk])
    if labelled:
        title += f" ({readable(task.class_names[task.classes[walk]])})"
    if walk in finished.train_walks:
        title += ", of a person whom the model was trained on"
    planted = () if task.truth is None else task.truth.joints
    first, end = frames or (0, len(poses))
    options: dict[str, Any] = {"planted": planted, "frames": (first, min(end, len(poses))), "view": view}
    walk_figures.walk_with_kept_edges(poses, finished.model.graph, drawn.kept.numpy(), drawn.probability.numpy(), title, path, **options)


def in_words(found: dict[str, Any]) -> list[str]:
    """What a console says of an audit, a line each; nothing where there was none."""
    result = found.get("audit")
    if result is None:
        return []
    if "error" in result:
        return [f"the audit failed: {result['error']}"]
    said = [result["verdict"]["sentence"]]
    arms = ((words, result[arm]) for arm, words in figures.ARM_NAMES.items() if result[arm] is not None)
    said.append("balanced accuracy with " + ", ".join(f"{words} {score['balanced_accuracy']:.2f}" for words, score in arms))
    said.append(
        f"{result['kept_share']:.0%} of the edges are kept; {result['information']['bits_per_edge']:.3f} bits an edge "
        f"({result['information']['in_words']})"
    )
    if result["pose_probe"] is not None:
        said[-1] += f"; logistic regression on joint means and deviations: {result['pose_probe']['balanced_accuracy']:.2f}"
    if result["agreement"] is not None:
        parts = ", ".join(
            f"{name} {result['agreement'][name]:.2f}" for name in ("edges", "slots", "joints") if result["agreement"].get(name) is not None
        )
        said.append(f"agreement of {result['agreement']['models']} {result['agreement']['of']} (correlation of keep probabilities): {parts}")
    if (truth := found.get("truth")) is not None and truth["edges"].get("out"):
        out = truth["edges"]["within" if truth["pairs"] else "out"]
        where = "between planted joints" if truth["pairs"] else "out of planted joints"
        said.append(f"planted {', '.join(truth['joints'])}: ROC-AUC of the edges {where} {out['roc_auc']:.3f}, R-precision {out['r_precision']:.2f}")
    return said


def mean_of_folds(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The folds' audits and truths in one: means of numbers, the verdict over everybody tested on, agreement between folds. Nothing where there
    were none."""
    if "audit" not in results[0]:
        return {}
    audits = [result["audit"] for result in results if "error" not in result["audit"]]
    if not audits:
        return {"audit": {"error": "the audit of every fold failed: " + results[0]["audit"]["error"]}}
    merged = mean_of(audits)
    merged["people"] = [person for one in audits for person in one["people"]]
    learned = audits[0]["verdict"]["code"] != "not_learned"
    merged["agreement"] = agreement_of_folds(audits) if learned else None
    merged["information"] |= flatness(merged["information"]["bits_of_difference"])
    if merged["agreement"] is not None:
        merged.pop("agreement_reason", None)
    merged["verdict"] = verdict(merged["people"], merged["information"], learned)
    _say_known(merged, sum(result["known_to_init"] for result in results))
    if failed := len(results) - len(audits):
        merged["failed_folds"] = failed
    found: dict[str, Any] = {"audit": merged}
    if truths := [result["truth"] for result in results if "truth" in result]:
        found["truth"] = mean_of(truths)
    return found


def _known(finished: Finished) -> int:
    """How many of the people tested on had a part in the model that this one started from."""
    initial = {person(name) for name in finished.fold.split.initial}
    return len({name for walk in finished.test_walks if person(name := finished.task.walks.subjects[walk]) in initial})


def _say_known(result: dict[str, Any], known: int) -> None:
    """Adds to the verdict that people tested on are not new to a model that started from another."""
    if known:
        result["verdict"]["sentence"] += f" {known} of the people tested on had a part in the model that this one started from."


def mean_of(values: list[Any]) -> Any:
    """Of numbers their mean, of lists and dictionaries one of means, of anything else the first."""
    first = values[0]
    if any(value is None for value in values):
        known = [value for value in values if value is not None]
        return mean_of(known) if known else None
    if isinstance(first, bool) or not isinstance(first, (int, float, dict, list)):
        return first
    if isinstance(first, dict):
        return {name: mean_of([value[name] for value in values if name in value]) for name in first}
    if isinstance(first, list):
        if any(len(value) != len(first) for value in values):
            return first
        return [mean_of(list(rows)) for rows in zip(*values, strict=True)]
    return mean(values)


def _control(finished: Finished) -> dict[str, Any] | None:
    """The audit of the training with classes dealt out anew, without what is only of use for its own sake."""
    summary = read_summary(finished.fold.folder / "permuted")
    if summary is None:
        return None
    kept = ("kept", "random", "no_edges", "information", "verdict", "error")
    control = {name: summary["audit"][name] for name in kept if name in summary["audit"]}
    return {**control, "truth": summary.get("truth")}


def _other_seeds(finished: Finished) -> list[GraphClassifier]:
    device = next(finished.model.parameters()).device
    paths = sorted(finished.fold.folder.glob("seed-*/model.safetensors"))
    return [load_model(path)[0].to(device) for path in paths]


EXPLAINED = Examination(explain, mean_of_folds, in_words)
