"""Processes of tests: commands that have imported everything already, a second each and not five."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TINY = ["--people", "12", "--walks-per-person", "2", "--frames", "12", "--hidden", "8", "--heads", "2", "--layers", "1", "--batch-size", "8"]
_SERVER = """
import atexit, gc, json, os, runpy, sys, threading, traceback
gc.disable()
import torch, torch._dynamo, matplotlib.pyplot
torch.set_num_threads(1)  # the others of a team would stay behind in a fork
from fastst import audit, compare, convert, evaluate, explain, info, interrupts, predict, train
gc.freeze()  # or every process would look through what was imported, and have to copy it for that
gc.enable()
for line in sys.stdin:
    asked = json.loads(line)
    if isinstance(asked, int):
        answer = os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1])
    elif (answer := os.fork()) == 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        for file, place in ((nothing, 0), (nothing, 1), (os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)):
            os.dup2(file, place)
        os.chdir(asked["folder"])
        interrupts.catch()
        sys.argv = [asked["module"], *asked["arguments"]]
        sys.modules.pop(asked["module"], None)  # or runpy warns of it
        code = 1
        try:
            runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
        threading._shutdown()  # as at the end of any process, without the second that taking all modules apart takes
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(answer, flush=True)
"""


class Commands:
    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=with_signals
        )

    def start(self, *arguments: str | Path, said: Path, module: str = "fastst.train", folder: Path = ROOT) -> int:
        """The number of a process of `python -m module` in a folder; what it says on stderr is in the file `said`."""
        return self._ask({"module": module, "arguments": [str(argument) for argument in arguments], "said": str(said), "folder": str(folder)})

    def code(self, process: int) -> int:
        """Its exit code, when it has ended."""
        return self._ask(process)

    def close(self) -> None:
        self._server.communicate()

    def _ask(self, question: object) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(question), file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())


def with_signals() -> None:
    """For `preexec_fn`: what was started in the background, or by nohup, ignores some of them, and so would its children."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def has_ended(process: int) -> bool:
    """Whether a process that was started here, and not asked for its code yet, has ended."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
