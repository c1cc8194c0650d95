"""Options that the commands of `chaku eval` share."""

from __future__ import annotations

from pathlib import Path

import click

from chaku.cli.help_page import option_group

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
MODES = ("verdict", "pair-score", "score")


judge_options = option_group(
    click.option("--prompts", metavar="FILE", type=_FILE, show_default="our own", help="Judge prompts of FastChat."),
    click.option(
        "--judge-temperature", metavar="NUMBER", type=float, default=0.0, show_default=True, help="For the judge."
    ),
    click.option(
        "--judge-tokens",
        metavar="N",
        type=click.IntRange(1),
        default=1024,
        show_default=True,
        help="Longest judgement.",
    ),
)
"""How the judge is asked."""

judging_options = option_group(
    click.option("--judge", metavar="MODEL", help="The model that judges; without one, only programs check."),
    click.option(
        "--mode",
        type=click.Choice(MODES),
        default="verdict",
        show_default=True,
        help="Which answer is better; two scores from 1 to 10; or one answer alone.",
    ),
    click.option(
        "--orders",
        type=click.Choice(("both", "given")),
        default="both",
        show_default=True,
        help="Show each pair in both orders, or only in the given one.",
    ),
    click.option("--baseline", metavar="NAME", help="Judge only pairs with this contestant, shown second."),
    click.option(
        "--repeats",
        metavar="N",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Make every judgement N times.",
    ),
    click.option("--judge-url", metavar="URL", show_default="--base-url", help="The judge's API, if it is another."),
    click.option("--judge-key", metavar="KEY", show_default="OPENAI_API_KEY", help="The key of --judge-url."),
    judge_options,
)
"""How answers are judged."""

calling_options = option_group(
    click.option(
        "-o",
        "--output",
        metavar="RUN",
        type=click.Path(path_type=Path, file_okay=False),
        show_default="a folder in evals/",
        help="The run's folder.",
    ),
    click.option(
        "--parallel",
        metavar="N",
        type=click.IntRange(1, 1024),
        default=8,
        show_default=True,
        help="Calls at once to one host.",
    ),
    click.option(
        "--prices",
        metavar="FILE",
        type=_FILE,
        help="Dollars per million tokens: MODEL: {prompt: 0.15, completion: 0.6}.",
    ),
    click.option(
        "--budget",
        metavar="DOLLARS",
        type=click.FloatRange(min=0, min_open=True),
        help="Stop before a call that could pass it.",
    ),
    click.option("--dry-run", is_flag=True, help="Print calls, tokens and dollars, and send nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object."),
)
"""Limits of the calls, and where their results go."""

code_option = click.option(
    "--allow-code", is_flag=True, help="Run the code of answers to check it. This is no sandbox."
)
