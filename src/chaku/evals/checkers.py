"""Check by program what needs no judge: a number, a pattern, code that must pass tests.

Code of a model runs in a child process with limits on time, memory and files. That keeps accidents small. It is no
sandbox: the code can read your files and use the network. So it runs only where a person allowed it.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from chaku.evals.records import Checker

TIMEOUT_S = 10.0
"""Wall time of one piece of code; a model's endless loop ends here."""
CPU_S = 5
MEMORY_BYTES = 1 << 30
FILE_BYTES = 1 << 20
_MAX_OUTPUT_CHARS = 2000

_NUMBER = re.compile(r"[-−+]?(?:\d{1,3}(?:[,  ]\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?|[-−+]?\.\d+")
_ANSWER = re.compile(r"\banswer\b[\s*_]*(?:is|:|=)[\s*_]*(.*)", re.IGNORECASE)
_CODE = re.compile(r"^ {0,3}```[ \t]*(\w*)[^\n]*\n(.*?)^ {0,3}```", re.MULTILINE | re.DOTALL)
_RUNNER = """
import sys
try:
    import resource
    for name, most in (("RLIMIT_CPU", {cpu}), ("RLIMIT_AS", {memory}), ("RLIMIT_FSIZE", {file}), ("RLIMIT_CORE", 0)):
        try:
            resource.setrlimit(getattr(resource, name), (most, most))
        except (ValueError, OSError):
            pass  # macOS refuses some; the wall clock still holds
except ImportError:
    pass
code, tests = sys.stdin.read().split({mark!r})
names = {{"__name__": "answer"}}
exec(compile(code, "answer", "exec"), names)
exec(compile(tests, "tests", "exec"), names)
print({mark!r})
"""


@dataclass(frozen=True)
class Check:
    """Whether an answer passed, and why not."""

    passed: bool
    reason: str = ""


def check(checker: Checker, answer: str) -> Check:
    """Check an answer's text. Runs code if the checker's kind is python: ask `needs_code` first."""
    match checker.kind:
        case "number":
            return _check_number(checker, answer)
        case "regex":
            found = re.search(checker.expected, answer, re.IGNORECASE | re.DOTALL)
            return Check(found is not None, "" if found else f"{checker.expected!r} is not in it")
        case "python":
            return _check_python(checker.expected, answer)


def needs_code(checker: Checker) -> bool:
    """Whether `check` would run what the model wrote."""
    return checker.kind == "python"


def _check_number(checker: Checker, answer: str) -> Check:
    wanted = _value(checker.expected)
    marked = _ANSWER.findall(answer)
    numbers = _NUMBER.findall(marked[-1]) if marked else []
    given = numbers[0] if numbers else next(reversed(_NUMBER.findall(answer)), None)
    if given is None:
        return Check(False, "there is no number in it")
    if math.isclose(_value(given), wanted, rel_tol=checker.tolerance or 1e-9, abs_tol=1e-12):
        return Check(True)
    return Check(False, f"the answer is {given.strip()}, not {checker.expected}")


def _value(text: str) -> float:
    top, _, bottom = re.sub(r"[,  ]", "", text).replace("−", "-").partition("/")
    return float(top) / float(bottom) if bottom and float(bottom) else float(top)


def code_of(answer: str) -> str:
    """The Python blocks of an answer, one below the other; the whole answer where it has no block."""
    blocks = [code for language, code in _CODE.findall(answer) if language.lower() in ("", "python", "py", "python3")]
    return "\n".join(blocks) if blocks else answer


def _check_python(tests: str, answer: str) -> Check:
    mark = secrets.token_hex(16)  # so that code which ends the process, or prints, does not pass
    runner = _RUNNER.format(cpu=CPU_S, memory=MEMORY_BYTES, file=FILE_BYTES, mark=mark)
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(  # noqa: S603 - a person allowed it
            [sys.executable, "-I", "-c", runner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={"PATH": os.defpath},
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(mark.join((code_of(answer), tests)).encode(), timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return Check(False, f"it was still running after {TIMEOUT_S:g} s")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    text = output.decode(errors="replace").strip()
    if process.returncode == 0 and text.endswith(mark):
        return Check(True)
    last = text.rpartition("\n")[2][:_MAX_OUTPUT_CHARS]
    return Check(False, last or f"it ended with code {process.returncode}")
