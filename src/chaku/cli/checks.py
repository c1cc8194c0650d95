"""What `chaku doctor` found: one line for each check, or JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import click

from chaku.cli.json_output import print_json

Level = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Check:
    """One finding; `fix` is a command where there is one."""

    level: Level
    about: str
    finding: str
    fix: str | None = None


def report(checks: Iterable[Check], *, as_json: bool) -> None:
    """Print the findings, each as it comes; exit with 1 if one of them is FAIL."""
    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            click.echo(f"{check.level:<4}  {check.about:<20}  {check.finding}")
            if check.fix:
                click.echo(f"{'':<28}-> {check.fix}")
    if as_json:
        print_json([dataclasses.asdict(check) for check in found])
    if any(check.level == "FAIL" for check in found):
        raise SystemExit(1)
