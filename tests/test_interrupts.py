"""Signals at any moment: one line, the right exit code, in time, and everything in order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT, TINY, Commands, has_ended, with_signals

from fastst.runs.trainer import Processes
from fastst.train import _read_together

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP"}
IN_TIME = 50  # seconds: two, and what a slow and busy machine makes of them; what hangs, hangs for longer


@pytest.mark.parametrize("seed", range(5))
def test_while_everything_is_imported(seed: int, tmp_path: Path) -> None:
    moment = random.Random(seed)
    number = moment.choice(SIGNALS)
    said = tmp_path / "said"  # not a pipe, which is full when nobody reads it
    command = [sys.executable, "-X", "importtime", "-m", "fastst.train", "--out", str(tmp_path / "run")]
    with said.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stderr=file, preexec_fn=with_signals)
    while "| fastst\n" not in said.read_text():
        assert process.poll() is None, said.read_text()
        time.sleep(0.01)
    time.sleep(moment.random() * 2)
    process.send_signal(number)
    assert process.wait(IN_TIME) == 128 + number
    assert [line for line in said.read_text().splitlines() if not line.startswith("import time:")] == [WORDS[number]]
    assert not (tmp_path / "run").exists()


def test_while_it_trains(commands: Commands, tmp_path: Path) -> None:
    """One run, interrupted seven times."""
    moment, out, said = random.Random(7), tmp_path / "run", tmp_path / "said"
    metrics = out / "metrics.jsonl"
    arguments: list[str | Path] = [*TINY, "--epochs", "60", "--out", out]
    for start in range(7):
        process, before = commands.start(*arguments, said=said), metrics.stat().st_size if start else 0
        number = SIGNALS[start % 3]
        while not metrics.exists() or metrics.stat().st_size == before:
            assert not has_ended(process), said.read_text()
            time.sleep(0.01)
        time.sleep(moment.random() * 0.1)
        os.kill(process, number)
        if start % 2:
            time.sleep(moment.random() * 0.1)
            os.kill(process, number)
        sent = time.monotonic()
        assert commands.code(process) == 128 + number
        assert time.monotonic() - sent < IN_TIME
        *_, last = lines = said.read_text().splitlines()
        assert last == f"{WORDS[number]}; go on with --resume"
        assert not [line for line in lines if "Traceback" in line or "Exception" in line]
        assert not list(out.rglob("*.part*"))
        arguments = ["--resume", "--out", out]


PROGRAM = """
import ctypes, hashlib, os, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
from fastst import interrupts
from fastst.errors import run_command
interrupts.catch()
def ready():
    print("ready", flush=True)
def main():
    {body}
run_command(main)
print("done")
"""
BODIES = {
    "asleep": "ready(); time.sleep(60)",
    "in the middle of C": "ready(); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
    "in the middle of C that holds Python's lock": "ready(); sum(range(10**11))",
    "in a thread that is waited for": """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 60)
        ready()
        pool.submit(time.sleep, 60).result()
""",
    "where it is lost": """
    ready()
    try:
        time.sleep(60)
    except BaseException:
        time.sleep(60)
""",
    "in a callback of C": """
    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def compare(one, other):
        ready()
        time.sleep(60)
    ctypes.CDLL(None).qsort(ctypes.create_string_buffer(100), 100, 1, compare)
""",
    "while nobody reads what it says": """
    ready()
    while True:
        os.write(2, bytes(1 << 16))
""",
    "while it ends": "import atexit; atexit.register(lambda: (print('late'), os.write(1, b'ready\\n'), time.sleep(60)))",
}


def program(body: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": with_signals, **options}
    process = subprocess.Popen(command, text=True, **{"env": ENVIRONMENT, **pipes})
    assert process.stdout is not None
    for line in process.stdout:
        if line == "ready\n":
            break
    return process


@pytest.mark.parametrize("where", BODIES)
def test_wherever_it_is(where: str) -> None:
    process = program(BODIES[where])
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(IN_TIME) == 143
    out, err = process.communicate()
    assert out.replace("ready\n", "") == ("done\nlate\n" if where == "while it ends" else "")
    assert err.strip("\0") == ("" if where == "while nobody reads what it says" else "ended by SIGTERM\n")


def test_a_second_one_does_no_harm() -> None:
    process = program("""
    try:
        ready()
        time.sleep(60)
    finally:
        time.sleep(0.4)
        print("in order", flush=True)
""")
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.1)
    assert process.communicate(timeout=IN_TIME) == ("in order\n", "interrupted\n")
    assert process.returncode == 130


LOST = {
    "another error": """
    try:
        ready()
        time.sleep(60)
    except BaseException:
        raise RuntimeError("as a library in C that called back has it") from None
""",
    "another error, after which a result is written all the same": """
    try:
        ready()
        time.sleep(60)
    except BaseException:
        pass
    from fastst.files import write_atomically
    write_atomically(FILE, lambda part: part.write_text("half of it"))
""",
    "another error, which is said of a row of results": """
    from fastst.runs.folder import append_line
    try:
        ready()
        time.sleep(60)
    except BaseException as error:
        append_line(FILE, {"error": str(error)})
""",
    "a file that can't be read": """
    from fastst.files import reading
    with reading(FILE):
        try:
            ready()
            time.sleep(60)
        except BaseException:
            raise ValueError from None
""",
}


@pytest.mark.parametrize("what", LOST)
def test_what_c_has_made_of_it_is_left_nowhere(what: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    body = f"from pathlib import Path; FILE = Path({str(made / 'result')!r}){LOST[what]}"
    made.mkdir()
    process = program(body, env={**ENVIRONMENT, "TMPDIR": str(tmp_path)})
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=IN_TIME) == ("", "interrupted\n")
    assert process.returncode == 130
    assert list(tmp_path.rglob("*")) == [made]


def test_what_is_ignored_stays_ignored() -> None:
    """As `nohup` has it."""
    process = program("ready(); sys.stdin.readline()", stdin=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    assert process.communicate("\n", timeout=IN_TIME) == ("done\n", "")


def test_a_forked_child_dies_alone() -> None:
    process = program("""
    child = os.fork()
    if child == 0:
        time.sleep(60)
    time.sleep(0.1)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    ready()
    time.sleep(1.5)
""")
    assert process.communicate(timeout=IN_TIME) == ("done\n", "")


def test_of_torchruns_processes_one_speaks(tmp_path: Path) -> None:
    said = []
    for rank, body in enumerate(
        ("raise UserError('the data are gone')", "raise UserError('the data are gone')", "os.kill(os.getpid(), 15)", "1 / 0")
    ):
        (tmp_path / str(rank)).mkdir()
        body = "from fastst.errors import UserError; " + body
        environment = {**ENVIRONMENT, "TORCHELASTIC_ERROR_FILE": str(tmp_path / str(rank) / "error.json")}
        done = subprocess.run([sys.executable, "-c", PROGRAM.format(body=body)], env=environment, capture_output=True, text=True)
        said.append((done.returncode, done.stdout + done.stderr))
    assert said == [(2, "error: the data are gone\n"), (2, ""), (143, ""), (1, "")]


@pytest.mark.parametrize("words", [["--layers", "abc"], ["--no-such-option"], ["--help"]])
def test_of_torchruns_processes_the_first_one_tells_of_options(
    words: list[str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for processes in (Processes(0, 2), Processes(1, 2)):
        with pytest.raises(SystemExit):
            _read_together(words, processes)
        said = capsys.readouterr()
        assert bool(said.out + said.err) == processes.leads


def test_an_import_changes_nothing() -> None:
    """Nor does it take long: torch comes when it is needed."""
    code = "import signal, sys, fastst; print(signal.getsignal(2) is signal.default_int_handler, signal.getsignal(15) == 0, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=with_signals)
    assert done.stdout == "True True False\n"
