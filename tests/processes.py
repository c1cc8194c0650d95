"""Processes: chaku as one of its own, from this checkout, installed or not, and what is known of others."""

import os
import signal
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
CHAKU = (sys.executable, "-m", "chaku")
"""The program; arguments follow."""
PATIENCE_S = 60.0
"""Longest wait for what comes by itself, on a machine that has other things to do too. It bounds a hang; how long
something takes is no test's business."""


def environment(**extra):
    """Ours without anything that would point chaku to another endpoint or colour its output, and with the checkout."""
    unwanted = ("OPENAI_", "CHAKU_", "NO_COLOR", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "PYTHONPATH": str(SOURCE), **extra}


def heed_ctrl_c():
    """For a child about to start: a shell without job control has what it runs in the background ignore SIGINT, and a
    child inherits that from the suite.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def modules_loaded_by(code):
    """The top-level packages that are loaded once this has run in a fresh interpreter, whatever it exits with."""
    report = "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    code = f"import sys\ntry:\n    {code}\nfinally:\n    {report}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    return set(done.stderr.split())


def is_alive(pid):
    """Whether there is a process of that number, and not only what its parent has not asked for yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def run_python(code, *arguments):
    """Start a Python on `code`, with chaku importable and warnings as errors; its three streams are pipes."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
