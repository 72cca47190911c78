import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastst.errors import UserError, run_command
from fastst.info import main
from fastst.ops import backends
from fastst.ops.backends import BACKENDS, why_not

DOCS = Path(__file__).parents[1] / "docs"
OLDER = "3.6"  # as torch 2.10 brings it
EXACTLY_K = ("sample_k_edges", "perturbed_top_k")
PRODUCTS = {"gather_sum", "scatter_sum", "edge_dot", "sample_edges from embeddings", "sample_edges from embeddings (edge list)"}


def test_names_every_backend_and_whether_it_can_run(monkeypatch, capsys):
    monkeypatch.setattr(backends, "FROM_ENVIRONMENT", None)
    monkeypatch.setenv("COLUMNS", "200")
    main([])
    said = capsys.readouterr().out
    for name in BACKENDS:
        reason = why_not(name)
        assert f"{name} " in said
        assert reason is None or f"no: {reason}" in said
    assert "operations run on: cpu" in said


def test_a_wrong_choice_in_the_environment_is_an_error_in_words(monkeypatch, capsys):
    monkeypatch.setattr(backends, "FROM_ENVIRONMENT", "gpu")
    monkeypatch.setattr(sys, "argv", ["info"])
    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == 2
    assert "error: unknown backend 'gpu'" in capsys.readouterr().err


def test_there_is_nothing_to_write_without_kernels(tmp_path):
    with pytest.raises(UserError, match="--write needs --kernels"):
        main(["--write", str(tmp_path / "kernels.md")])


def test_only_tables_are_replaced_by_tables(tmp_path, monkeypatch):
    monkeypatch.setattr("fastst.info._show_kernels", lambda console, file: pytest.fail("it was compiled"))
    mine = tmp_path / "kernels.md"
    mine.write_text("# My notes on The GPU kernels\n")
    with pytest.raises(UserError, match=r"--write .*kernels\.md is there already, and not a file that fastst wrote"):
        main(["--kernels", "--write", str(mine)])
    with pytest.raises(UserError, match="there is no folder"):
        main(["--kernels", "--write", str(tmp_path / "none" / "kernels.md")])
    asked = []
    monkeypatch.setattr("fastst.info._show_kernels", lambda console, file: asked.append(file))
    mine.write_bytes((DOCS / "kernels.md").read_bytes())
    main(["--kernels", "--write", str(mine)])
    assert asked == [mine]


def table(text: str, title: str) -> dict[tuple[str, ...], dict[str, str]]:
    """The rows of one of the tables in the written file, by their first three columns."""
    lines = text.split(f"## {title}\n\n")[1].split("\n\n")[0].strip().splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {tuple(row[:3]): dict(zip(header[3:], row[3:], strict=True)) for row in rows}


@pytest.fixture(scope="module", params=["a few", pytest.param("all", marks=pytest.mark.slow)])
def compiled(request, tmp_path_factory) -> str:
    """What every kernel compiles to today, for a few chips and dtypes or for all."""
    pytest.importorskip("triton", reason="triton is not installed")
    return kernels_compiled(tmp_path_factory.mktemp("kernels") / "kernels.md", {}, FEW if request.param == "a few" else "")


FEW = "compilation.inspect_all = functools.partial(compilation.inspect_all, dtypes=('float32', 'bfloat16'), targets=(75, 80))"
SHOW = """
import functools, sys
from csrc_triton import compilation
from fastst.info import main
{few}
main(["--kernels", "--write", sys.argv[1]])
"""


def kernels_compiled(file: Path, environment: dict[str, str], few: str) -> str:
    """What is written about them, with some variables of the environment anew."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | environment
    command = [sys.executable, "-W", "ignore", "-c", SHOW.format(few=few), str(file)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return file.read_text()


def are_all(found: dict[tuple[str, ...], dict[str, str]]) -> bool:
    return any(chip == "gfx1100" for _, _, chip in found)


def test_kernels_compile_to_what_is_asked_of_them(compiled: str):
    found = table(compiled, "Machine code")
    memory = table(compiled, "Memory")
    if are_all(found):
        check_all_are_there(found)
    else:
        assert {(features, chip) for _, features, chip in found} == {("float32", "sm_75"), ("float32", "sm_80"), ("bfloat16", "sm_80")}
    over_features = {row[0] for row, figures in memory.items() if figures["requested over distinct"]}
    assert over_features >= PRODUCTS
    wrong = []
    for (kernel, features, chip), figures in found.items():
        nvidia = chip.startswith("sm_")
        must = {"spilled bytes": figures["spilled bytes"] == "0"}
        if nvidia:
            must["atomics"] = figures["atomics"] == "0"
        if nvidia and kernel in over_features:
            must["local-memory instructions"] = figures["local-memory instructions"] == "0"
            must["16-byte loads"] = int(figures["16-byte loads"] or 0) > 0
            must["loops without"] = figures["loops without"] == "0"
            must["in flight"] = int(figures["in flight"]) >= 4
        # Not of messages: an addition and a maximum go with every FFMA, and in their backward only the dot products have any.
        if kernel in over_features and not kernel.startswith("message") and (features, chip) == ("float32", "sm_75"):
            must["instructions per FFMA"] = float(figures["instructions per FFMA"]) <= 3.5
            must["at most"] = float(figures["at most"]) <= 4.7  # with masks, at a walk's ends and for what is left of a joint's slots
        wrong += [f"{kernel} {features} {chip}: {name} is {figures[name]}" for name, right in must.items() if not right]
    assert not wrong, "\n".join(wrong)


def check_all_are_there(found: dict[tuple[str, ...], dict[str, str]]) -> None:
    chips = {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "gfx90a", "gfx1100"}
    left_out = {"float32": set(), "bfloat16": {"sm_75", "sm_89"}, "float16": {"sm_89"}}
    kernels = {kernel for kernel, _, _ in found}
    assert found.keys() == {(kernel, features, chip) for kernel in kernels for features in left_out for chip in chips - left_out[features]}
    # Why half precision may leave sm_89 out. (The kernels of exactly k edges compute in float32 for all, in programs of one warp: there the compiler
    # knows that one chip holds more of these than the other.)
    assert all(found[kernel, "float32", "sm_86"] == found[kernel, "float32", "sm_89"] for kernel in kernels if not kernel.startswith(EXACTLY_K))


def test_no_figure_of_the_committed_table_worsens(compiled: str):
    committed = (DOCS / "kernels.md").read_text()
    if triton_version(committed) != triton_version(compiled):
        pytest.skip(f"docs/kernels.md is of Triton {triton_version(committed)}, here is {triton_version(compiled)}")
    worse = worse_figures(committed, compiled)
    assert not worse, "\n".join(["if this is wanted: python -m fastst.info --kernels --write docs/kernels.md", *worse])


@pytest.mark.slow
def test_no_figure_worsens_under_an_older_triton(tmp_path):
    """A Triton beside that of torch, which is enough to compile: PyTorch of some releases back comes with one."""
    name = f"docs/kernels-triton-{OLDER}.md"
    folder = os.environ.get("FASTST_OLDER_TRITON")
    if folder is None:
        command = f"pip install --no-deps --target FOLDER 'triton=={OLDER}.*'"
        pytest.skip(f"FASTST_OLDER_TRITON names no folder with Triton {OLDER}: {command}")
    compiled = kernels_compiled(tmp_path / "kernels.md", {"PYTHONPATH": os.pathsep.join([folder, str(DOCS.parent)])}, "")
    assert triton_version(compiled).startswith(f"{OLDER}."), f"in {folder} is no Triton {OLDER}"
    worse = worse_figures((DOCS.parent / name).read_text(), compiled)
    assert not worse, "\n".join([f"if this is wanted: PYTHONPATH={folder} python -m fastst.info --kernels --write {name}", *worse])


def worse_figures(committed: str, compiled: str) -> list[str]:
    """What is more now and should be less, or the other way round."""
    worse = []
    for title, lower_is_better, higher_is_better in (
        (
            "Machine code",
            (
                "registers",
                "spilled bytes",
                "local-memory instructions",
                "atomics",
                "shared memory",
                "loops without",
                "instructions per FFMA",
                "at most",
            ),
            ("warps", "16-byte loads", "in flight"),
        ),
        ("Memory", ("bytes moved", "over the least", "requested over distinct"), ()),
    ):
        before, now = table(committed, title), table(compiled, title)
        if not are_all(table(compiled, "Machine code")):
            before = {row: figures for row, figures in before.items() if row[1:] in {other[1:] for other in now}}
        assert before.keys() == now.keys(), "kernels came or went: write the committed table anew"
        for row, figures in before.items():
            for name in (*lower_is_better, *higher_is_better):
                sign = 1 if name in lower_is_better else -1
                if figures[name] and (not now[row][name] or sign * float(now[row][name]) > sign * float(figures[name])):
                    worse.append(f"{' '.join(row)}: {name} was {figures[name]}, is {now[row][name] or 'gone'}")
    return worse


def test_attention_and_sums_spill_nothing_under_an_older_triton():
    """As they did before csrc_triton/parts.py."""
    figures = table((DOCS / f"kernels-triton-{OLDER}.md").read_text(), "Machine code")
    spilling = [row for row, found in figures.items() if row[0].startswith(("attend", "gather_sum", "scatter_sum")) and found["spilled bytes"] != "0"]
    assert not spilling


def test_a_launch_fills_36_multiprocessors(compiled: str):
    """Of the kernels with work for them: what moves less than 256 KB at this size is over at once. The chain of counts of exactly k edges is not cut
    into more programs than there are groups."""
    launches = {
        row: (int(f["programs"]), int(f["warps of each"]))
        for row, f in table(compiled, "Memory").items()
        if int(f["bytes moved"]) >= 1 << 18 and not row[0].startswith(EXACTLY_K)
    }
    few = {row: launch for row, launch in launches.items() if launch[0] < 36 or launch[0] * launch[1] < 36 * 4}
    assert not few, few


def test_kernels_compile_where_every_size_is_one():
    """Triton makes a number 1 a constant, and what a kernel does with a number it may not do with a constant."""
    pytest.importorskip("triton", reason="triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"TRITON_DISABLE_LINE_INFO": "1"}
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", ALL_SIZES_ONE], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-4000:]


ALL_SIZES_ONE = """
from dataclasses import replace
from csrc_triton.compilation import compilations, compile_for
from fastst.ops.example import example
sizes = {"T", "J", "P", "N", "E", "rows", "columns", "tiles", "chunks"}
for compilation in compilations("float32", example):
    ones = {name: 1 for name in compilation.arguments if name in sizes} | {"lengths_ptr": None, "QUADS": False}
    arguments = {name: ones.get(name, value) for name, value in compilation.arguments.items()}
    compile_for(replace(compilation, arguments=arguments), 75)
"""


def triton_version(text: str) -> str:
    return text.split("with Triton ")[1].split(".\n")[0]
