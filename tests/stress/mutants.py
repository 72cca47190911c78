"""`python -m tests.stress.mutants 400`: do the tests notice when the program is changed?

Draws that many small changes (`mutations.py`) of the files in `TESTS`, every place of their code as likely as any other, and runs the tests of each
changed file until one fails. Results are kept in mutants.json beside this file, and a second call goes on where the first one stopped; --again tries
once more those that survived and have no `why` there. docs/mutants.md is the table of all.

All is done in a copy of the tree, by a process that has imported torch and forks for every change. Of a unit's tests those are run that enter the
changed function, the quickest first; which do so is recorded once, when nothing is changed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fnmatch
import hashlib
import importlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from numba.core.dispatcher import Dispatcher

from .mutations import Mutation, mutated, mutations

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_suffix(".json")
TABLE = ROOT / "docs/mutants.md"
SEED = 20
MEMORY, FILE_SIZE = 8 << 30, 1 << 30  # bytes that a changed program may take
SURVIVED = "survived"
COMPILED = ("fastst/data/formats/scan.py", "fastst/data/digits.py")  # numba compiles anew when they change, and no test is seen entering

_FORMS = "json_forms text_forms pose_csv walks_npz pickles c3d"
# Of every file the tests of its unit, tests/test_<name>.py, one after the other until one fails; the first pattern that fits counts.
TESTS = {
    "fastst/cpu/plans.py": "cpu_kernels propagate attend",
    "fastst/graph.py": "graph bipartite loops",
    "fastst/ops/attend.py": "attend attention_weights bipartite",
    "fastst/ops/attend_axis.py": "attend_axis",
    "fastst/ops/attention_weights.py": "attention_weights bipartite",
    "fastst/ops/backends.py": "backends composability propagate",
    "fastst/ops/checks.py": "bipartite propagate attend edge_logits sample_edges sample_from_embeddings message",
    "fastst/ops/feed_forward.py": "linear",
    "fastst/ops/edge_logits.py": "edge_logits bipartite sample_from_embeddings",
    "fastst/ops/gcn_norm.py": "gcn_norm loops bipartite",
    "fastst/ops/heads.py": "attend propagate attention_weights",
    "fastst/ops/information.py": "sample_from_embeddings loops",
    "fastst/ops/k_subsets.py": "sample_k_edges",
    "fastst/ops/keep_probability.py": "keep_probability sampling",
    "fastst/ops/linear.py": "linear",
    "fastst/ops/lifting.py": "bipartite loops",
    "fastst/ops/loops.py": "loops bipartite",
    "fastst/ops/mean_average_distance.py": "mean_average_distance",
    "fastst/ops/message.py": "message bipartite",
    "fastst/ops/propagate.py": "propagate bipartite loops composability",
    "fastst/ops/random.py": "random sample_edges",
    "fastst/ops/registration.py": "backends propagate composability sample_from_embeddings",
    "fastst/ops/sample_edges.py": "sample_edges sampling loops",
    "fastst/ops/sample_from_embeddings.py": "sample_from_embeddings sampling loops bipartite",
    "fastst/ops/sample_k_edges.py": "sample_k_edges",
    "fastst/sampling.py": "sampling sample_edges",
    "fastst/ops/scores.py": "edge_logits attend bipartite",
    "fastst/ops/sparse.py": "propagate edge_logits attend bipartite message",
    "fastst/data/assign.py": "tracks",
    "fastst/data/batches.py": "batches",
    "fastst/data/copies.py": "copies",
    "fastst/data/digits.py": "frames json_forms",
    "fastst/data/follow.py": "tracks",
    "fastst/data/frames.py": "frames read pose_csv",
    "fastst/data/identity.py": "identity labels",
    "fastst/data/labels.py": "labels identity load",
    "fastst/runs/load.py": "load sides",
    "fastst/data/markers.py": "c3d meaning text_forms",
    "fastst/data/meaning.py": "meaning c3d text_forms",
    "fastst/data/noise.py": "planted synthetic",
    "fastst/data/people.py": "identity splits labels",
    "fastst/data/planted.py": "planted",
    "fastst/data/prepare.py": "prepare sides load",
    "fastst/data/progress.py": "json_forms",
    "fastst/data/read.py": "read json_forms text_forms saved_results",
    "fastst/data/skeletons.py": "text_forms c3d pose_csv",
    "fastst/data/splits.py": "splits sides",
    "fastst/data/synthetic.py": "synthetic planted",
    "fastst/data/tracks.py": "tracks identity clock",
    "fastst/data/formats/alphapose.py": "alphapose json_forms",
    "fastst/data/formats/c3d.py": "c3d",
    "fastst/data/formats/clock.py": "clock",
    "fastst/data/formats/columns.py": "text_forms pose_csv c3d doubtful_tables",
    "fastst/data/formats/content.py": "read json_forms text_forms saved_results",
    "fastst/data/formats/deal.py": "pose_csv text_forms",
    "fastst/data/formats/named_points.py": "saved_results json_forms",
    "fastst/data/formats/posenet.py": "saved_results json_forms",
    "fastst/data/formats/ultralytics_csv.py": "saved_results",
    "fastst/data/formats/labels_csv.py": "labels read",
    "fastst/data/formats/ntu_skeleton.py": "ntu_skeleton",
    "fastst/data/formats/person_frames.py": "ntu_skeleton yolo_txt json_forms",
    "fastst/data/formats/pickles.py": "pickles unpickler",
    "fastst/data/formats/pose_csv.py": "pose_csv text_forms doubtful_tables clock",
    "fastst/data/formats/rows.py": "text_forms pose_csv",
    "fastst/data/formats/table.py": "text_forms pose_csv labels",
    "fastst/data/formats/unpickler.py": "unpickler pickles",
    "fastst/data/formats/walks_npz.py": "walks_npz",
    "fastst/data/formats/whole.py": "convert pickles",
    "fastst/data/formats/yolo_txt.py": "yolo_txt",
    "fastst/data/formats/*.py": "json_forms alphapose saved_results",
    "fastst/data/*.py": f"read {_FORMS}",
    "fastst/ops/*.py": "bipartite",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=400, help="how many changes")
    parser.add_argument("--again", action="store_true", help="those that survived and are not explained")
    parser.add_argument("--unrecorded", action="store_true", help="run all tests of a unit in their order: quicker for a few changes")
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/fastst-mutants", help="where the copy is kept")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", TRITON_INTERPRET="1")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    tree = options.folder / "tree"
    files = copy_tree(tree)
    every = sample(files)
    drawn = every[: options.count]
    ranks = {mutation.key: rank for rank, (_, mutation) in enumerate(every)}
    # What was changed in a program that is another by now is forgotten.
    known = {result["key"]: result | {"rank": ranks[result["key"]]} for result in results if result["key"] in ranks}
    tried = every if options.again else drawn
    left = [(path, mutation) for path, mutation in tried if is_wanted(known.get(mutation.key), _digest(files[path]), options.again)]
    print(f"{len(drawn)} changes of {len(files)} files, {len(left)} to be tried")
    with changed_folder(tree):
        for place in options.folder.glob("test_*.json"):
            import_modules(json.loads(place.read_text())["modules"])
        for number, (path, mutation) in enumerate(sorted(left, key=lambda one: (one[0] in COMPILED, one[0])), 1):
            started = time.monotonic()
            outcome = SURVIVED
            for file in tests_of(path):
                recorded = None if options.unrecorded else record_tests(options.folder, file)
                outcome = try_change(tree, path, files[path], mutation, file, recorded)
                if outcome != SURVIVED:
                    break
            print(
                f"{number}/{len(left)} {path}:{mutation.line} {mutation.before} -> {mutation.after}: {outcome} ({time.monotonic() - started:.0f} s)"
            )
            result = known.setdefault(mutation.key, {"key": mutation.key, "first": outcome})
            result |= _told(path, mutation) | {"rank": ranks[mutation.key], "source": _digest(files[path]), "now": outcome}
            keep(list(known.values()))
    keep(list(known.values()))


def is_wanted(result: dict[str, Any] | None, digest: str, again: bool) -> bool:
    if again:
        return result is not None and result["now"] == SURVIVED and "why" not in result
    return result is None or result["source"] != digest


def keep(results: list[dict[str, Any]]) -> None:
    order = sorted(results, key=lambda result: (result["file"], result["line"], result["key"]))
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps(order, indent=1, ensure_ascii=False) + "\n")
    part.replace(RESULTS)
    TABLE.write_text(table(order))


def _told(path: str, mutation: Mutation) -> dict[str, Any]:
    change = f"{mutation.before} → {mutation.after}"
    return {"file": path, "function": mutation.function, "line": mutation.line, "kind": mutation.kind, "change": change}


def _digest(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def sample(files: dict[str, str]) -> list[tuple[str, Mutation]]:
    """All places, by their hashes with the seed: the first are the same however many are drawn, and whatever changes elsewhere."""
    every = [(path, mutation) for path, source in files.items() for mutation in mutations(path, ast.parse(source))]
    return sorted(every, key=lambda one: hashlib.sha256(f"{SEED} {one[1].key}".encode()).digest())


def tests_of(path: str) -> list[str]:
    names = next(tests for pattern, tests in TESTS.items() if fnmatch.fnmatch(path, pattern)).split()
    return [f"tests/test_{name}.py" for name in names]


def copy_tree(tree: Path) -> dict[str, str]:
    """Brings the copy up to date, and gives the sources of the files that are changed."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.splitlines() if (ROOT / name).is_file()]
    files = {name: (ROOT / name).read_text() for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in TESTS)}
    for old in tree.rglob("*.py"):
        if str(old.relative_to(tree)) not in names:
            old.unlink()
    for name in names:
        content, place = (ROOT / name).read_bytes(), tree / name
        if not place.is_file() or place.read_bytes() != content:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    return files


@contextlib.contextmanager
def changed_folder(tree: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path.insert(0, str(tree))
    yield
    os.chdir(before)


def record_tests(folder: Path, file: str) -> dict[str, Any]:
    """Of every test of a file how long it takes and which functions it enters; recorded once for as long as file and package stay the same."""
    place = folder / f"{Path(file).stem}.json"
    package = "".join(path.read_text() for path in sorted(Path().glob("fastst/**/*.py")))
    digest = _digest(package + Path(file).read_text())
    kept = json.loads(place.read_text()) if place.exists() else {}
    if kept.get("digest") != digest:
        started, lines = time.monotonic(), list[str]()
        forked(lambda tell: _run_pytest([file], Recorder(tell)), lines.append)
        told = [json.loads(line) for line in lines]
        tests = {one.pop("test"): one for one in told if "test" in one}
        if "" not in tests:
            raise SystemExit(f"{file} can't be collected; run pytest on it in {Path.cwd()}")
        kept = {"digest": digest, "at import": tests.pop("")["functions"], "tests": tests, "modules": told[-1]["modules"]}
        place.write_text(json.dumps(kept))
        failed = [test for test, about in tests.items() if about["failed"]]
        print(f"{file} recorded in {time.monotonic() - started:.0f} s{', which fail unchanged and are left out: ' if failed else ''}{failed or ''}")
    import_modules(kept["modules"])
    return kept


def import_modules(names: list[str]) -> None:
    """What tests import beside the package: the next processes then have it for nothing."""
    for name in names:
        with contextlib.suppress(Exception):
            sys.modules.get(name) or importlib.import_module(name)


def quickest_first(recorded: dict[str, Any], entered: str | None) -> dict[str, float]:
    """The tests that enter a function, or all, and their seconds."""
    every = entered is None or entered in recorded["at import"]
    chosen = {test: about for test, about in recorded["tests"].items() if not about["failed"] and (every or entered in about["functions"])}
    return {test: chosen[test]["seconds"] for test in sorted(chosen, key=lambda test: chosen[test]["seconds"])}


def try_change(tree: Path, path: str, source: str, mutation: Mutation, file: str, recorded: dict[str, Any] | None) -> str:
    """The test of a file that fails, or that none does."""
    entered = f"{path} {mutation.function}" if mutation.function and path not in COMPILED else None
    seconds = quickest_first(recorded, entered) if recorded else {}
    if recorded and not seconds:
        return SURVIVED
    place, lines, changed = tree / path, list[str](), mutated(path, source, mutation.key)

    def run(tell: Callable[[str], None]) -> None:
        if path.startswith("fastst/cpu/"):  # kernels are not made of what is plain Python there: those of the unchanged program will do
            importlib.import_module("fastst.cpu.cache")._sources()
        _put(place, changed)
        _run_pytest([file], Chosen(seconds, tell, path in COMPILED))

    try:
        status = forked(run, lines.append)
    finally:
        _put(place, source)
    shutil.rmtree(tree / ".hypothesis", ignore_errors=True)  # what it remembers of one change would try the next
    last = json.loads(lines[-1]) if lines else {"at": "the start"}
    if "failed" in last:
        return last["failed"]
    if "done" in last and status == 0:
        return SURVIVED
    ended = "out of time" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM else "crash"
    return f"{last.get('at', 'the end')} ({ended})"


def _put(place: Path, source: str) -> None:
    """Without its bytecode, which Python takes for that of any source of the same size and second."""
    place.write_text(source)
    for old in place.parent.glob(f"__pycache__/{place.stem}.*.pyc"):
        old.unlink()


def forked(work: Callable[[Callable[[str], None]], None], on_line: Callable[[str], None]) -> int:
    """Does the work in a process and a session of its own, and hands over the lines that it tells; gives how it ended."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
        try:
            work(lambda line: os.write(writing, line.encode() + b"\n") and None)
        finally:
            os._exit(0)
    os.close(writing)
    told, status = b"", None
    while status is None:
        ready, _, _ = select.select([reading], [], [], 0.05)
        if ready:
            told += os.read(reading, 1 << 20)
        ended, code = os.waitpid(pid, os.WNOHANG)
        status = code if ended else None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has started
    os.set_blocking(reading, False)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(reading, 1 << 20):
            told += chunk
    os.close(reading)
    for line in told.decode().splitlines():
        on_line(line)
    return status


def _run_pytest(files: list[str], plugin: object) -> None:
    import pytest

    options = ["-x" if isinstance(plugin, Chosen) else "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
    plugin.finish(pytest.main([*files, *options], plugins=[plugin]))


class Recorder:
    """A plugin of pytest: which functions of the package a test enters, in whatever thread."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell, self.functions, self.failed = tell, set[tuple[str, str]](), False
        self.root = f"{Path.cwd()}/"
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        compile_kernel = Dispatcher.compile

        def untraced(*arguments: Any) -> Any:  # it would take twice as long
            sys.settrace(None)
            try:
                return compile_kernel(*arguments)
            finally:
                sys.settrace(self._trace)

        Dispatcher.compile = untraced

    def _trace(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        self.functions.add((code.co_filename, code.co_qualname))

    def pytest_collection_finish(self) -> None:
        self._tell("", 0)  # what the import of the test's file does

    def pytest_runtest_logstart(self) -> None:
        self.functions, self.failed, self.started = set(), False, time.monotonic()
        sys.settrace(self._trace)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._tell(nodeid, time.monotonic() - self.started)

    def _tell(self, test: str, seconds: float) -> None:
        entered = list(self.functions)  # what runs here is traced too
        names = {(file.removeprefix(self.root), name.split(".<")[0]) for file, name in entered if file.startswith(f"{self.root}fastst/")}
        self.tell(json.dumps({"test": test, "seconds": seconds, "failed": self.failed, "functions": sorted(map(" ".join, names))}))

    def finish(self, code: int) -> None:
        ours = ("fastst", "csrc_triton", "bench", "tests", "test_", "conftest", "graphs", "scenes", "mutations", "__main__")
        self.tell(json.dumps({"modules": [name for name in sys.modules if not name.startswith(ours)]}))


class Chosen:
    """A plugin of pytest: these tests only, in this order, each within a time; all of them if none are given."""

    def __init__(self, seconds: dict[str, float], tell: Callable[[str], None], compiles: bool) -> None:
        self.seconds, self.tell, self.failed = seconds, tell, False
        self.least = 240 if compiles or not seconds else 20
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 120)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        order = {test: place for place, test in enumerate(self.seconds)}
        if order and order.keys() <= {item.nodeid for item in items}:  # else names of tests have changed too, and all are run
            items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.tell(json.dumps({"at": nodeid}))
        signal.setitimer(signal.ITIMER_REAL, self.least + 10 * self.seconds.get(nodeid, 0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._note(report)

    def pytest_collectreport(self, report: Any) -> None:
        self._note(report)

    def _note(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = True
            self.tell(json.dumps({"failed": report.nodeid}))

    def finish(self, code: int) -> None:
        if not self.failed:
            self.tell(json.dumps({"done": True} if code == 0 else {"failed": f"pytest ends with {code}"}))


def table(results: list[dict[str, Any]]) -> str:
    """docs/mutants.md."""
    ranks = {result["rank"] for result in results}
    whole = next(rank for rank in range(len(ranks) + 1) if rank not in ranks)
    left = [result for result in results if result["now"] == SURVIVED]
    mended = [result for result in results if result["first"] == SURVIVED != result["now"]]
    lines = [
        "# Do the tests notice a change of the program?",
        "",
        "Small changes are drawn from all the code of `fastst/ops`, `graph.py`, `cpu/plans.py` and `data/`, every place as likely as any other,",
        "and the tests of their unit are run with each. *At first* is before any test was written for one of them; *equivalent* are those with",
        "which the program does the same as without.",
        "",
        "| drawn | changes | noticed at first | noticed now | without the equivalent ones |",
        "|---|--:|--:|--:|--:|",
        _summary("the first of the draw, all of them", [result for result in results if result["rank"] < whole]),
        _summary("all that were tried, not in the order of the draw", results),
        "",
        "`python -m tests.stress.mutants 400` goes on, from the first of the draw that was not tried, to so many, and makes this page.",
        "The tests of every unit are named in the script, and every change with the test that fails is in `tests/stress/mutants.json`.",
        *_counts("file", results),
        *_counts("kind", results),
        "",
        "## Not noticed",
        "",
        "| where | change | why |",
        "|---|---|---|",
        *(f"| {_place(result)} | {_code(result['change'])} | {result.get('why', 'not looked at yet')} |" for result in left),
        "",
        "## Noticed by tests that were written or mended for it",
        "",
        "| where | change | test |",
        "|---|---|---|",
        *(f"| {_place(result)} | {_code(result['change'])} | {_code(result['now'].split('/')[-1])} |" for result in mended),
    ]
    return "\n".join(lines) + "\n"


def _summary(name: str, results: list[dict[str, Any]]) -> str:
    count, at_first, now = len(results), *(sum(result[when] != SURVIVED for result in results) for when in ("first", "now"))
    same = sum(result["now"] == SURVIVED and result.get("why", "").startswith("equivalent") for result in results)
    return f"| {name} | {count} | {_share(at_first, count)} | {_share(now, count)} | {_share(now, count - same)} |"


def _counts(what: str, results: list[dict[str, Any]]) -> list[str]:
    drawn = Counter(result[what] for result in results)
    noticed = {when: Counter(result[what] for result in results if result[when] != SURVIVED) for when in ("first", "now")}
    rows = [f"| {name} | {number} | {noticed['first'][name]} | {noticed['now'][name]} |" for name, number in sorted(drawn.items())]
    return ["", f"| {what} | changes | noticed at first | now |", "|---|--:|--:|--:|", *rows]


def _place(result: dict[str, Any]) -> str:
    return f"{result['file'].removeprefix('fastst/')}:{result['line']} {result['function']}"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / max(whole, 1):.1f} %)"


def _code(text: str) -> str:
    text = text.replace("](", "] (")  # no link
    short = text if len(text) <= 160 else f"{text[:79]} … {text[-79:]}"
    return f"`{short.replace('|', chr(92) + '|').replace('`', chr(39))}`"


if __name__ == "__main__":
    main()
