"""The report of a grid, of whatever is finished: tables as CSV, the paper's figures as PNG, and one HTML page that holds everything."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastst import __version__
from fastst.errors import UserError
from fastst.explanation.figures import initial_adjacency
from fastst.files import is_there, read_json
from fastst.layouts import Layout
from fastst.runs.folder import load_model, write_text
from fastst.runs.tables import write_rows
from fastst.study import figures
from fastst.study.claims import ON_PAR, PAPER_TABLE, Table, judged
from fastst.study.grid import FILES, Cell, Grid, in_words, make_folder, of_a_cell
from fastst.study.page import folded, picture, table, whole_page
from fastst.study.results import (
    COLUMNS,
    Result,
    Setting,
    agreement,
    by_setting,
    finished,
    more_axes,
    read_result,
    summarized,
    value_in_words,
    variants,
)

_TABLE_ORDER = ("random 75%", "random 50%", "random 25%", "fixed", "learned")
_TABLE_NUMBERS = ("macro_f1", "mad", "mad_random")
_OPEN = "not finished"
_TABLE_SETTING = (16, 1)  # layers and hops of Table I


def write_report(grid: Grid, cells: Sequence[Cell], folder: Path) -> Path:
    """Writes `folder/report` and returns its page. What is missing is named there.

    Raises:
        UserError: no run is finished, or nothing can be written there.
    """
    results = finished(grid, cells)
    lacking = _lacking(grid, cells, results, folder)
    if not results:
        known = next((f"; the run {address} {why}" for address, _, why in lacking if why != _OPEN), "")
        raise UserError(f"no run of the grid in {folder} is finished: there is nothing to report yet{known}")
    place = folder / "report"
    make_folder(place)
    initial_adjacency(_layout(results[0]), place / "fig_2.png")
    parts = [_heading(grid, cells, results, folder)]
    rows_of_claims: list[dict[str, Any]] = []
    every_variant = variants(grid, cells)
    if len(every_variant) > 1:
        parts.append(f"<h2>All variants</h2>{_settings(by_setting(results), grid)}")
    for number, (variant, of_cells) in enumerate(every_variant.items()):
        addresses = {cell.address for cell in of_cells}
        of_results = [result for result in results if result.cell.address in addresses]
        suffix = f"_{number + 1}" if len(every_variant) > 1 else ""
        runs = Table.of(of_cells, of_results)
        claims = judged(runs)
        rows_of_claims += [{"variant": variant} | row for row in claims]
        found = "".join(_variant(runs, of_results, claims, place, suffix))
        parts.append(folded(variant, found) if suffix else found)
    parts += [picture(place / "fig_2.png", "Fig. 2: the graph before anything is removed, for 1, 2 and 3 hops"), _missing(lacking, len(cells))]
    _write_tables(grid, results, rows_of_claims, place)
    page = place / "index.html"
    write_text(page, whole_page("The paper's study", "".join(parts)))
    return page


def _layout(result: Result) -> Layout:
    folder = result.cell.folder / "fold-1" if result.config.folds else result.cell.folder
    with of_a_cell():
        return Layout.from_dict(load_model(folder / "model.safetensors")[1]["layout"])


def _variant(runs: Table, results: Sequence[Result], claims: Sequence[dict[str, Any]], place: Path, suffix: str) -> list[str]:
    """Claims, Table I, figures and settings of one variant."""
    if not results:
        return ["<p>No run of it is finished.</p>"]
    parts = [_claims(claims)] if claims else []
    settings = by_setting(results)
    if rows := _table_one(settings):
        figures.table_one({arm: settings[setting] for arm, setting in rows}, place / f"table_1{suffix}.png")
        _write_csv(place / f"table_1{suffix}.csv", _TABLE_HEADER, [_table_row(arm, settings[setting]) for arm, setting in rows])
        parts += [
            "<h3>Table I: against random elimination, 16 layers, 1 hop</h3>",
            table(_TABLE_WORDS, [_table_cells(arm, settings[s]) for arm, s in rows]),
        ]
        parts.append(picture(place / f"table_1{suffix}.png", "Table I, ours beside the paper's"))
    if any(result.config.graph == "learned" for result in results):
        figures.joints(results, place / f"fig_3{suffix}.png")
        parts.append(picture(place / f"fig_3{suffix}.png", "Fig. 3: what each joint sends and receives after simplification, per hops and class"))
    if len({key[1] for key in runs.there if key[0] in ("fixed", "learned")}) > 1:
        figures.over_depth(runs, "macro_f1", "How well classes are told apart, over depth and hops", "macro F1", place / f"fig_4{suffix}.png")
        figures.over_depth(runs, "mad", "How different the joints still are to the model, over depth and hops", "MAD", place / f"fig_5{suffix}.png")
        parts.append(picture(place / f"fig_4{suffix}.png", "Fig. 4: F1 over depth and hops, fixed against learned"))
        parts.append(picture(place / f"fig_5{suffix}.png", "Fig. 5: MAD over depth and hops; dotted: thinning at random alone"))
    return [*parts, "<h3>Every setting</h3>", _settings(_in_order(settings))]


_TABLE_HEADER = (
    "method",
    "runs",
    "f1",
    "f1_sd",
    "mad",
    "mad_sd",
    "mad_random",
    "mad_random_sd",
    "paper_f1",
    "paper_f1_sd",
    "paper_mad",
    "paper_mad_sd",
)
_TABLE_WORDS = ("", "runs", "F1", "MAD", "MAD, as many random edges", "F1 in the paper", "MAD in the paper")


def _table_one(settings: dict[Setting, list[Result]]) -> list[tuple[str, Setting]]:
    of_arm = {setting.arm: setting for setting in settings if (setting.layers, setting.hops) == _TABLE_SETTING}
    others = [arm for arm in of_arm if arm not in _TABLE_ORDER]
    return [(arm, of_arm[arm]) for arm in (*sorted(others), *_TABLE_ORDER) if arm in of_arm] if len(of_arm) > 1 else []


def _table_row(arm: str, results: Sequence[Result]) -> list[Any]:
    ours = [value for name in _TABLE_NUMBERS for value in summarized(results, name)]
    theirs: list[Any] = [value for pair in PAPER_TABLE.get(arm, ()) for value in pair] or [None] * 4
    return [arm, len(results), *("" if value is None else value for value in [*ours, *theirs])]


def _table_cells(arm: str, results: Sequence[Result]) -> list[str]:
    theirs = [_spread(*pair) for pair in PAPER_TABLE[arm]] if arm in PAPER_TABLE else ["", ""]
    return [arm, str(len(results)), *(_spread(*summarized(results, name)) for name in _TABLE_NUMBERS), *theirs]


def _settings(settings: dict[Setting, list[Result]], grid: Grid | None = None) -> str:
    """A row for every setting; with a grid those of all its variants, in the grid's order, with a column for every axis that has several values."""
    known = [name for name in COLUMNS if any(result.numbers()[name] is not None for results in settings.values() for result in results)]
    named = [_place(setting, results[0], grid) for setting, results in settings.items()]
    told = [name for name in dict.fromkeys(name for row in named for name in row) if grid is None or len({row.get(name) for row in named}) > 1]
    rows = []
    for place, results in zip(named, settings.values(), strict=True):
        agree = agreement(results)
        numbers = [_spread(*summarized(results, name)) for name in known]
        rows.append([*(place.get(name, "") for name in told), str(len(results)), *numbers, "" if agree is None else f"{agree:.2f}"])
    return table([*told, "runs", *(COLUMNS[name] for name in known), "agreement of seeds"], rows)


def _place(setting: Setting, result: Result, grid: Grid | None) -> dict[str, str]:
    """What tells a setting from others, in words."""
    more = {} if grid is None else {name: value_in_words(value) for name, value in more_axes(result.cell, grid).items()}
    return more | {"graph": setting.arm, "layers": str(setting.layers), "hops": str(setting.hops)}


def _in_order(settings: dict[Setting, list[Result]]) -> dict[Setting, list[Result]]:
    return dict(sorted(settings.items(), key=lambda item: (item[0].hops, item[0].layers, item[0].arm)))


def _claims(claims: Sequence[dict[str, Any]]) -> str:
    rows = [[row["where"], row["claim"], row["tested"], row["sentence"]] for row in claims]
    words = (
        "A claim reproduces where the 95 % interval over seeds (Student's t) is above 0, and for scores the one over people (bootstrap) too; it does "
        f"not where both are below. “On par” is a difference in F1 above −{ON_PAR:g}. Everything else is undecided. Claims are tested one by one."
    )
    colors = {"reproduces": "yes", "does not reproduce": "no"}
    of_paper = [row["verdict"] for row in claims if not row["controls"]]
    count = {verdict: of_paper.count(verdict) for verdict in colors}
    summed = f"Of {len(of_paper)} claims of the paper {count['reproduces']} reproduce, {count['does not reproduce']} do not, "
    summed += f"{len(of_paper) - sum(count.values())} are undecided."
    return f"<h3>What of the paper reproduces</h3><p><b>{summed}</b> {words}</p>" + table(
        ("paper", "claim", "tested as", "found"), rows, [colors.get(row["verdict"], "open") for row in claims]
    )


def _lacking(grid: Grid, cells: Sequence[Cell], results: Sequence[Result], folder: Path) -> list[tuple[str, str, str]]:
    """Address, options, and why it is not in the report, of every such cell."""
    there = {result.cell.address for result in results}
    return [(cell.address, _asked(cell), _why(cell, grid, folder)) for cell in cells if cell.address not in there]


def _why(cell: Cell, grid: Grid, folder: Path) -> str:
    try:
        read_result(cell, grid)
    except UserError as error:
        return f"can't be used: {error}"
    note = folder / "failed" / f"{cell.address}.json"
    if not is_there(note):
        return _OPEN
    try:
        return f"failed: {read_json(note, 'delete it')['error']}"
    except (UserError, LookupError, TypeError):
        return f"failed; {note} does not say why, as fastst.experiments would have written it"


def _missing(lacking: Sequence[tuple[str, str, str]], count: int) -> str:
    if not lacking:
        return "<h2>Missing</h2><p>Nothing: every run is finished.</p>"
    return f"<h2 id='missing'>Missing: {len(lacking)} of {count} runs</h2>" + table(("run", "options", "why"), lacking)


def _asked(cell: Cell) -> str:
    config = cell.config
    return in_words({"graph": config.graph, "layers": config.layers, "hops": config.hops, "seed": config.seed}) + (
        f", drop {config.drop:g}" if config.graph == "random" else ""
    )


def _heading(grid: Grid, cells: Sequence[Cell], results: Sequence[Result], folder: Path) -> str:
    # Files by their names: whoever is sent the page has nothing of the rest.
    shared = {name: os.path.basename(value) if name in FILES and value else value for name, value in grid.options.items()}
    options = in_words({name: value_in_words(value) for name, value in shared.items()})
    axes = "; ".join(in_words({name: " | ".join(map(value_in_words, values)) for name, values in block.items()}) for block in grid.blocks)
    missing = "" if len(results) == len(cells) else ' The others are named <a href="#missing">below</a>.'
    numbers = f"{len(results)} of {len(cells)} runs are finished, by fastst {__version__}.{missing}"
    return (
        "<h1>The paper's study, rerun</h1>"
        f"<p>{numbers} “Learning to Simplify Spatial-Temporal Graphs in Gait Analysis” (Cosma and Radoi) trained on CASIA-B; here the data are "
        f"<b>{html.escape(str(shared.get('data', 'made-up walkers (synthetic)')))}</b>.</p>"
        f"<p>Axes: {html.escape(axes)}. Options beside the defaults: {html.escape(options)}. Folders of the runs: "
        f"{html.escape(os.path.join(folder.name, 'cells'))}, any two of which <code>python -m fastst.compare</code> puts beside each other.</p>"
    )


def _write_tables(grid: Grid, results: Sequence[Result], claims: Sequence[dict[str, Any]], place: Path) -> None:
    names = [name for name in grid.axes if name not in ("graph", "drop", "layers", "hops", "seed")]
    header = ["run", "arm", "layers", "hops", "seed", *names, *COLUMNS, "balanced_accuracy", "p_value", "seconds"]
    rows = []
    for result in results:
        config, numbers = result.config, result.numbers()
        axes = [getattr(config, name) for name in ("layers", "hops", "seed", *names)]
        more = [result.summary["balanced_accuracy"], result.summary["p_value"], result.summary["seconds"]]
        rows.append([result.cell.address, result.arm, *axes, *("" if value is None else value for value in [*numbers.values(), *more])])
    _write_csv(place / "runs.csv", header, rows)
    columns = (
        "variant",
        "where",
        "claim",
        "tested",
        "margin",
        "verdict",
        "difference",
        "low",
        "high",
        "seeds",
        "people_difference",
        "people_p_value",
    )
    lines = []
    for row in claims:
        low, high = row["interval"] or ("", "")
        of_people = row["people"] or {"difference": "", "p_value": ""}
        told = [row[name] for name in ("variant", "where", "claim", "tested", "margin", "verdict")]
        difference = "" if row["difference"] is None else row["difference"]
        lines.append([*told, difference, low, high, row["seeds"], of_people["difference"], of_people["p_value"]])
    _write_csv(place / "claims.csv", columns, lines)
    shares = [
        [result.cell.address, result.variant, result.config.layers, result.config.hops, result.config.seed, of_class, joint, *sides.values()]
        for result in results
        if result.config.graph == "learned"
        for of_class, joints in result.study["joints"].items()
        for joint, sides in joints.items()
    ]
    _write_csv(place / "fig_3.csv", ("run", "variant", "layers", "hops", "seed", "class", "joint", "sends", "receives"), shares)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    write_rows(path, [dict(zip(header, row, strict=True)) for row in rows])


def _spread(value: float | None, deviation: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if deviation is None else f"{value:.3f} ± {deviation:.3f}"
