"""`chaku weights quality`: what a quantisation or conversion costs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from chaku.cli.help_page import command
from chaku.cli.progress.counting import counting
from chaku.cli.weights.options import FOLDER
from chaku.complaints import not_utf8
from chaku.errors import UsageError
from chaku.packages import needs
from chaku.weights.quality import compare


@command()
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@click.option(
    "--text",
    "text_file",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="UTF-8 text like that which the model will see. It must not be training text.",
)
@click.option(
    "--chunk",
    "chunk_tokens",
    metavar="TOKENS",
    type=click.IntRange(8),
    default=512,
    show_default=True,
    help="Tokens per chunk.",
)
@click.option("--max-chunks", metavar="N", type=click.IntRange(2), help="Read no more of the text than that.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@needs("train")
def quality(a: Path, b: Path, text_file: Path, chunk_tokens: int, max_chunks: int | None, as_json: bool) -> None:
    """Compare model B with model A on a text: perplexity, divergence, and agreement on the most likely token.

    A and B are .gguf files or Hugging Face folders; both are read in float32, a GGUF dequantised.
    """

    for path in (a, b):
        if not path.exists():
            raise UsageError(f"there is no {path}", fix="give a .gguf file or a folder with config.json")
    try:
        text = text_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(not_utf8(str(text_file), error), fix="convert it to UTF-8") from None

    def step(done: int, total: int) -> None:
        counting(done, total, "chunks")

    found = compare(a, b, text, chunk_tokens=chunk_tokens, max_chunks=max_chunks, step=step)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=1))
        return
    lines = {
        "text": f"{found.num_tokens:,} tokens in {found.num_chunks} chunks; in brackets 95 % by resampling chunks",
        "perplexity A": found.perplexity_a,
        "perplexity B": found.perplexity_b,
        "B over A": found.perplexity_ratio,
        "KL, nats": found.kl,
        "same top token": found.top_agreement,
    }
    for name, value in lines.items():
        click.echo(f"{name:<16}{value}")
