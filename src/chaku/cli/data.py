"""`chaku data`: from shared conversations to training rows, and what can be asked about them afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Column, Table
from rich.text import Text

from chaku.cli.data_from_arena import from_arena
from chaku.cli.data_identity import identity
from chaku.cli.data_preview import data_console, preview
from chaku.cli.data_template import template
from chaku.cli.help_page import group
from chaku.cli.json_output import print_json
from chaku.cli.main import tell
from chaku.cli.progress.building import building
from chaku.config import load
from chaku.data.build import build as build_set
from chaku.data.inputs.counts import sentences
from chaku.data.inspect.audit import audit as audit_set
from chaku.data.inspect.preview import printable
from chaku.data.inspect.report import read_funnel, shown, write_page
from chaku.data.inspect.story import story
from chaku.data.parallel import Workers, num_cores
from chaku.data.recipe import Recipe, load_data
from chaku.data.rules.table import RULES
from chaku.errors import ChakuError, UsageError
from chaku.packages import needs

if TYPE_CHECKING:
    from chaku.config import Loaded
    from chaku.data.inspect.report import Funnel
    from chaku.data.recipe import DataConfig

_FILE = click.Path(path_type=Path)


@group()
def data() -> None:
    """Turn shared conversations into training rows, and audit them."""


@data.command()
@click.argument("inputs", nargs=-1, type=_FILE)
@click.option("-o", "--output", "folder", metavar="FOLDER", type=_FILE, required=True, help="Folder of the built set.")
@click.option("--recipe", metavar="FILE", type=_FILE, help="YAML file with a `data` section; flags win over it.")
@click.option(
    "--tokenizer",
    metavar="TOKENIZER",
    show_default="smollm2-135m",
    help="Pulled model, GGUF, tokenizer.json, SentencePiece model or folder.",
)
@click.option(
    "--template", metavar="NAME", show_default="the tokenizer's own", help="Chat template: vicuna_v1.1, chatml ..."
)
@click.option("--context", metavar="TOKENS", show_default="2048", type=int, help="Most tokens in a segment.")
@click.option("--pack-length", metavar="TOKENS", show_default="context", type=int, help="Tokens of a packed row.")
@click.option("--seed", metavar="SEED", show_default="0", type=int, help="Orders rows, chooses the test set.")
@click.option("--test-fraction", metavar="SHARE", show_default="0.01", type=float, help="Share of the test set.")
@click.option("--system", metavar="TEXT", help="System prompt for conversations without one.")
@click.option(
    "--overlong", show_default="cut", type=click.Choice(["cut", "reject"]), help="A round longer than the context."
)
@click.option(
    "--oasst-paths", show_default="best", type=click.Choice(["best", "all"]), help="Paths through message trees."
)
@click.option(
    "--language", "languages", metavar="CODE", multiple=True, help="Keep this language (ISO 639-1); repeat for more."
)
@click.option(
    "--decontaminate",
    metavar="FILE",
    type=_FILE,
    multiple=True,
    help="Question file not to be trained on; repeat for more.",
)
@click.option("--rule", "rules", multiple=True, metavar="NAME=ACTION", help="Change a rule: drop, flag, redact or off.")
@click.option("--processes", metavar="N", show_default="all cores", type=click.IntRange(1), help="Worker processes.")
@click.option("--overwrite", is_flag=True, help="Replace another set in the folder.")
@needs("data")
def build(
    folder: Path,
    recipe: Path | None,
    processes: int | None,
    overwrite: bool,
    rules: tuple[str, ...],
    **flags: Any,
) -> None:
    """Build training rows from INPUTS.

    INPUTS are chats, exports, instructions or preferences as JSON, CSV, Parquet, Arrow or zip.

    The format is detected. To resume an interrupted build, run the same command again.
    Exit with 1 when the set is not fit to train on.
    """
    flags["rules"] = _rules(rules)
    loaded = load_data(recipe, flags)
    _print_config(loaded)
    name = folder.resolve().name
    if recipe is not None:
        name = load(Recipe, recipe).config.name
    with building() as watcher:
        built = build_set(loaded.config, folder, name=name, processes=processes, overwrite=overwrite, watcher=watcher)
    if built.was_there:
        click.echo(f"{folder} holds this very set already: nothing to do")
    _print_summary(folder, built.manifest)
    if not built.manifest["audit"]["passed"]:
        reason = _top_reason(folder, built.manifest)
        fix = f"chaku data report {folder} shows what was dropped, where and why"
        tell(ChakuError(f"{folder} is not fit to train on: {reason}", fix=fix))
        click.get_current_context().exit(1)


def _top_reason(folder: Path, manifest: dict[str, Any]) -> str:
    """Why a set is not fit, in one line: the rule that dropped most, else the audit's first error."""
    num_records = manifest["counts"].get("import", {}).get("in", 0)
    dropped = [rule for rule in read_funnel(folder).rules if rule.action == "dropped"]
    if not num_records or not dropped:
        return str(manifest["audit"]["errors"][0])
    top = max(dropped, key=lambda rule: rule.number)
    meaning = RULES[top.rule].meaning if top.rule in RULES else top.rule
    return f"{top.number:,} of {num_records:,} records were dropped by {top.rule} ({meaning})"


def _rules(chosen: tuple[str, ...]) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in chosen]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise UsageError(f"--rule {wrong[0]!r} has no action", fix=f"write --rule {wrong[0]}=flag")
    return {name: action for name, _, action in pairs} or None


def _print_config(loaded: Loaded[DataConfig]) -> None:
    for name, value in loaded.config.model_dump(mode="json", exclude={"inputs"}).items():
        if loaded.origins[name] != "default":
            click.echo(f"{name} = {value}  ({loaded.origins[name]})", err=True)


def _print_summary(folder: Path, manifest: dict[str, Any]) -> None:
    counts, facts = manifest["counts"], manifest["audit"]["facts"]
    conversations = facts["conversations"]
    click.echo(
        f"{counts['import']['in']:,} records in, {conversations['train']:,} segments to train on,"
        f" {conversations['test']:,} to test"
    )
    if any(pairs := facts.get("pairs", {}).values()):
        train, test = pairs
        click.echo(f"{train:,} preference pairs to train on, {test:,} to test")
    if "rows" in facts:
        click.echo(
            f"{facts['rows']:,} rows of {manifest['pack_length']:,}, {facts['fill']:.1%} full;"
            f" {facts['tokens']:,} tokens, {facts['trained_share']:.1%} of them trained"
        )
    for line in sentences(manifest["inputs"]):
        click.echo(line)
    _print_verdict(manifest["audit"])
    click.echo(f"chaku data report {folder}    shows what went where and why")


def _print_verdict(audit: dict[str, Any]) -> None:
    for warning in audit["warnings"]:
        click.echo(f"warning: {warning}")
    for error in audit["errors"]:
        click.echo(f"error: {error}")
    click.echo("audit: passed" if audit["passed"] else "audit: NOT fit to train on")


@data.command()
@click.argument("folder", type=_FILE)
@click.option(
    "--html", "page", metavar="FILE", show_default="FOLDER/report.html", type=_FILE, help="Write the page there."
)
@needs("data")
def report(folder: Path, page: Path | None) -> None:
    """Show the funnel of a built set: in, out, and why.

    Gives examples for each rule, and writes the same as one HTML page.
    """

    _print_funnel(read_funnel(folder))
    target = page or folder / "report.html"
    write_page(folder, target)
    click.echo(f"the same as a page: {target}")


def _print_funnel(funnel: Funnel) -> None:
    console = data_console()
    for entry in funnel.manifest["inputs"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in entry["formats"].items()) or "nothing readable"
        console.print(Text(f"{entry['name']}: {entry['container']}: {kinds}"))
    stages = Table("stage", *(_right(name) for name in ("in", "+ expanded", "= kept", "+ dropped")), title="Funnel")
    for stage, counts in funnel.stages.items():
        stages.add_row(stage, *(f"{n:,}" for n in (counts.entered, counts.expanded, counts.kept, counts.dropped)))
    console.print(stages)
    for rule in funnel.rules:
        line = Text(f"\n{rule.stage}: {rule.rule}", "bold")
        line.append(f"  {rule.action} {rule.number:,}", "red" if rule.action == "dropped" else "yellow")
        line.append(f"  {RULES[rule.rule].meaning}" if rule.rule in RULES else "", "dim")
        console.print(line)
        for example in rule.examples:
            console.print(Text(printable(f"    {example.id}  {shown(example)}"[:200])))


def _right(name: str) -> Any:
    return Column(name, justify="right")


@data.command()
@click.argument("folder", type=_FILE)
@click.argument("identity", metavar="ID")
@needs("data")
def why(folder: Path, identity: str) -> None:
    """Show what happened to one conversation.

    ID is chaku's (FILE:LINE, or a segment's) or the original one.
    """

    for event in story(folder, identity):
        score = "" if event.score is None else f" {event.score:.4g}"
        rule = f" {event.rule}{score} ({RULES[event.rule].meaning})" if event.rule in RULES else score
        note = f": {event.note}" if event.note else ""
        click.echo(printable(f"{event.stage:<14}{event.decision:<8}{event.id}{rule}{note}".replace("\n", " ")))
        for flag in event.flags:
            score = "" if flag.score is None else f" {flag.score:.4g}"
            click.echo(printable(f"{'':<14}flag    {flag.rule}{score}: {flag.note or ''}".replace("\n", " ")))


@data.command()
@click.argument("folder", type=_FILE)
@click.option(
    "--questions",
    metavar="FILE",
    type=_FILE,
    multiple=True,
    help="Evaluation file that must not overlap; repeat for more.",
)
@click.option("--tokenizer", metavar="TOKENIZER", help="Where the tokenizer is now, if not where the manifest says.")
@click.option("--processes", metavar="N", show_default="all cores", type=click.IntRange(1), help="Worker processes.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
@needs("data")
def audit(
    ctx: click.Context, folder: Path, questions: tuple[Path, ...], tokenizer: str | None, processes: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Check a built set against its own files.

    Exits with 1 when it is not fit to train on.
    """

    with Workers(processes or num_cores()) as workers:
        found = audit_set(folder, questions=questions, tokenizer=tokenizer, workers=workers)
    if as_json:
        print_json(found.to_json())
    else:
        for name, value in found.facts.items():
            click.echo(f"{name.replace('_', ' ')}: {_fact(value)}")
        _print_verdict(found.to_json())
    if not found.passed:
        ctx.exit(1)


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_fact(item)}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


for _command in (preview, identity, template, from_arena):
    data.add_command(_command)
