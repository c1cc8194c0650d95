"""`chaku eval reparse`: what the judge's texts of a run say to the parser of today."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from chaku.cli.help_page import command
from chaku.evals.records import Run, write_records
from chaku.evals.reparsing import reparse as reparsed
from chaku.records import append_only


@command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print the counts and the changed judgements as one JSON object.")
def reparse(folder: Path, as_json: bool) -> None:
    """Read the judge's texts of a run again, and write what they say. No call is made.

    Scores that were imported as recorded are replaced by those of the texts too.
    """
    with append_only(folder / "judgements.jsonl"):
        run = Run.load(folder)
        result = reparsed(run.judgements, run.questions)
        write_records(folder / "judgements.jsonl", result.judgements)
    num_newly_read = sum(
        old.state == "unparsed" and new.state == "ok"
        for old, new in zip(run.judgements, result.judgements, strict=True)
    )
    if as_json:
        click.echo(orjson.dumps({"newly_read": num_newly_read, **result.as_json()}).decode())
        return
    click.echo(
        f"{result.equal:,} of {result.compared:,} say what was recorded, {len(result.conflicts):,} say something else, "
        f"{len(result.unparsed):,} can't be read any more, {num_newly_read:,} can be read now"
    )
    for case in result.conflicts:
        models = " and ".join(case["models"])
        click.echo(
            f"question {case['question_id']}, {models}: recorded {case['recorded']}, the text says {case['parsed']}"
        )
