"""One process with a Ray runtime in which commands of `parsec` run one after the other, as each start takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

PROGRAM = """
import json, logging, os, sys
answers = os.fdopen(os.dup(1), "w")
import ray
from parsecrl.platform.cluster.connection import quiet_ray
quiet_ray()
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
         object_store_memory=256 * 1024**2)
from parsecrl.platform.cli import main
for line in sys.stdin:
    folder, words = json.loads(line)
    os.chdir(folder)
    for number, name in ((1, "out.txt"), (2, "err.txt")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    print(code, file=answers, flush=True)
"""


class Done(NamedTuple):
    """What became of a command."""

    code: int
    out: str
    err: str


class Commands:
    """The process, with these variables in its environment and that of its Ray runtime."""

    def __init__(self, **environment: str):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip

    def parsec(self, folder: Path, *words: str) -> Done:
        """Run the command with these words in the folder, which gets its out.txt and err.txt."""
        print(json.dumps([str(folder), words]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        out, err = ((folder / name).read_text() for name in ("out.txt", "err.txt"))
        assert answer, f"the process ended with {self.process.wait()}: {err[-5000:]}"
        return Done(int(answer), out, err)

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=300)
        self.process.stdout.close()
