"""`chaku train --then eval`: a run held against its base when it ends. Each step is a chaku command of its own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from chaku.errors import ChakuError, UsageError

_DEFAULT_SUITE = "chaku-80"
_FOLDER = "eval"


@dataclass(frozen=True)
class ThenEval:
    """What `--then` asks for."""

    suite: str
    options: tuple[str, ...]
    """Further words for `chaku eval run`."""

    @classmethod
    def of(cls, text: str) -> ThenEval:
        """Read `eval [SUITE] [OPTION]...`. Raises UsageError."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--then {text!r} can't be read: {error}") from None
        if words[:1] != ["eval"]:
            raise UsageError(
                f"--then {text!r} is not known", fix="try --then eval, or --then 'eval chaku-80 --judge J'"
            )
        rest = words[1:]
        has_suite = bool(rest) and not rest[0].startswith("-")
        return cls(rest[0] if has_suite else _DEFAULT_SUITE, tuple(rest[has_suite:]))

    def commands(self, base: str, name: str, folder: Path) -> list[list[str]]:
        """The words of the commands: ask and judge both models, then compare them."""
        output = str(folder / _FOLDER)
        tuned = name if name != "base" else "tuned"
        models = ["-m", f"base={base}", "-m", f"{tuned}={folder}"]
        return [
            ["eval", "run", self.suite, *models, *self.options, "-o", output],
            ["eval", "compare", output, "-m", "base", "-m", tuned],
        ]

    def carry_out(self, base: str, name: str, folder: Path) -> None:
        """Run the commands. Raises ChakuError for one that fails; the trained model is not touched."""
        for words in self.commands(base, name, folder):
            line = shlex.join(["chaku", *words])
            click.echo(f"\n{line}")
            status = subprocess.run([sys.executable, "-m", "chaku", *words], check=False).returncode  # noqa: S603
            if status:
                raise ChakuError(
                    f"the model is trained; its evaluation failed with exit code {status}",
                    fix=f"mend the cause, then continue it: {line}",
                )
