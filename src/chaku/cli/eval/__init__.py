"""`chaku eval`: the table of its sub-commands, one module each; none is imported before it runs."""

from __future__ import annotations

import click

from chaku.cli.lazy import LazyGroup

COMMANDS = {
    "run": ("chaku.cli.eval.run:run", "Ask models a suite's questions; judge the answers."),
    "bench": ("chaku.cli.eval.bench:bench", "Run standard benchmarks by lm-eval."),
    "judge": ("chaku.cli.eval.judge:judge", "Judge answers that were made elsewhere."),
    "judge-check": ("chaku.cli.eval.judge_check:judge_check", "Find out whether a judge can be trusted."),
    "label": ("chaku.cli.eval.label:label_pairs", "Say yourself which answers are better, blind."),
    "reparse": ("chaku.cli.eval.reparse:reparse", "Read the judge's texts of a run again."),
    "compare": ("chaku.cli.eval.compare_runs:compare_runs", "Compare models of runs and logs, with error bars."),
    "report": ("chaku.cli.eval.report:report", "Write a run as one HTML page."),
    "import": ("chaku.cli.eval.import_files:import_files", "Read what FastChat recorded: totals, wins, agreements."),
    "questions": ("chaku.cli.eval.questions:questions", "Write suites of your own."),
    "fetch": ("chaku.cli.eval.fetch:fetch", "Fetch a published suite."),
    "show": ("chaku.cli.eval.show:show", "Show what a run's folder holds."),
}


@click.group("eval", cls=LazyGroup, table=COMMANDS)
def evaluate() -> None:
    """Ask models the questions of a suite, judge the answers, and compare the models with error bars."""
