"""`chaku models`: what is built in, pulled, converted; what a file says of itself, and what serving it would take."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chaku.cli import releases
from chaku.cli.help_page import group
from chaku.cli.json_output import print_json
from chaku.cli.progress.fetching import fetching
from chaku.errors import ModelError, UsageError
from chaku.models.fetch import cache, converted
from chaku.models.fetch.converted import conversions
from chaku.models.fetch.pull import pull
from chaku.models.files.gguf import read_metadata
from chaku.models.plan import free_memory as memory
from chaku.models.plan.memory_plan import gigabytes, plan
from chaku.models.reference import BuiltIn, HubFile, LocalFile, LocalFolder, UrlFile, WheelFile, parse
from chaku.models.registry import BUILT_IN, HUB_MODELS, BuiltInModel, HubModel
from chaku.models.vicunas import RELEASES, find
from chaku.nearest import did_you_mean

if TYPE_CHECKING:
    from chaku.models.fetch.cache import PulledModel
    from chaku.models.files.gguf import GgufMetadata
    from chaku.models.plan.memory_plan import MemoryPlan
    from chaku.models.reference import Reference


_json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")


@group(invoke_without_command=True)
@_json_option
@click.pass_context
def models(ctx: click.Context, /, as_json: bool) -> None:
    """List, show and remove models. Without a command, list them."""
    if ctx.invoked_subcommand is None:
        _list(as_json)
    elif as_json:
        raise UsageError(
            f"--json stands in front of {ctx.invoked_subcommand!r}",
            fix=f"chaku models {ctx.invoked_subcommand} --json",
        )


@models.command("list")
@_json_option
def list_models(as_json: bool) -> None:
    """List known, pulled and converted models."""
    _list(as_json)


def _list(as_json: bool) -> None:
    rows = _rows()
    if as_json:
        keys = dict.fromkeys(rows[0])
        print_json([*rows, *(keys | row for row in (*_converted_rows(), *releases.rows()))])
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        state = "pulled" if row["pulled"] else "-"
        click.echo(
            f"{row['name']:<{width}}  {_size(row['num_bytes']):>8}  {state:<6}  {row['licence'] or 'unknown licence'}"
        )
        if row["description"]:
            click.echo(f"{'':<{width}}  {row['description']}")
    if not any(row["pulled"] for row in rows):
        click.echo(f"\nNothing is pulled yet: chaku pull {rows[0]['name']}")
    _print_conversions()
    releases.print_section()


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in BUILT_IN.values():
        known = {"num_parameters": row.num_parameters, "context_tokens": row.context_tokens, "chat": row.chat}
        rows.append(_row(row, BuiltIn(row), row.num_bytes) | known | {"built_in": True})
    for model in HUB_MODELS.values():
        known = {"num_parameters": model.num_parameters, "context_tokens": model.context_tokens, "chat": True}
        rows.append(_row(model, HubFile(model.repo, model.file), model.num_bytes) | known | {"hub_id": model.repo})
    listed = {*BUILT_IN, *(model.source for model in HUB_MODELS.values())}
    for pulled in cache.pulled():
        if pulled.source not in listed:
            about = {"name": pulled.source, "num_bytes": pulled.num_bytes, "path": str(pulled.path)}
            rows.append(dict.fromkeys(rows[0]) | about | {"built_in": False, "pulled": True})
    return rows


def _row(model: BuiltInModel | HubModel, reference: BuiltIn | HubFile, num_bytes: int) -> dict[str, Any]:
    """What the list shows of a model that has a name."""
    found = cache.find(reference)
    return {
        "name": model.name,
        "built_in": False,
        "pulled": found is not None,
        "num_bytes": num_bytes,
        "path": str(found.path) if found else None,
        "licence": model.licence.name,
        "licence_url": model.licence.url,
        "description": model.description,
        "hub_id": None,
        "converted_from": None,
        "converted_at": None,
    }


def _print_conversions() -> None:
    if not (found := conversions()):
        return
    total_bytes = sum(one.num_bytes for one in found)
    click.echo(
        f"\nConverted here, {_size(total_bytes)}; what `chaku models rm NAME` removes is made again when needed:"
    )
    width = max(len(one.name) for one in found)
    for one in found:
        click.echo(f"  {one.name:<{width}}  {_size(one.num_bytes):>8}  {one.made_at[:10]}")


def _converted_rows() -> list[dict[str, Any]]:
    """The conversions for the list as JSON."""

    return [
        {
            "name": one.name,
            "built_in": False,
            "pulled": False,
            "num_bytes": one.num_bytes,
            "path": str(one.path),
            "description": f"{one.source} in {one.quantisation}",
            "converted_from": one.source,
            "converted_at": one.made_at,
        }
        for one in conversions()
    ]


@models.command()
@click.argument("model")
@click.option("--context", metavar="TOKENS", type=click.IntRange(min=64), help="Tokens per request to plan for.")
@click.option("--slots", metavar="N", type=click.IntRange(1, 256), help="Requests at once to plan for.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(model: str, context: int | None, slots: int | None, as_json: bool) -> None:
    """Show a model: its file, template and memory plan.

    MODEL may also be a published Vicuna, such as vicuna-13b-v1.1: what it was made of, its template, its successor.
    """

    if not model.endswith(".gguf") and not Path(model).exists() and (release := find(model)):
        if context is not None or slots is not None:
            raise UsageError(
                f"{release.name} has no file here to plan for", fix=f"chaku weights plan {release.name} --gpu ..."
            )
        print_json(releases.as_json(release)) if as_json else releases.print_release(release)
        return
    reference = _named(model, [*BUILT_IN, *HUB_MODELS, *RELEASES])
    found: PulledModel | None
    if isinstance(reference, LocalFile | LocalFolder):
        with fetching(model) as progress:
            found = pull(reference, progress=progress)
    else:
        found = cache.find(reference)
    if found is None:
        raise ModelError(f"{model} is not pulled", fix=f"chaku pull {model}")
    metadata = read_metadata(found.path)
    planned = plan(metadata, context, slots, available_bytes=memory.available_bytes())
    if as_json:
        totals = {"total_kv_bytes": planned.total_kv_bytes, "total_bytes": planned.total_bytes, "fits": planned.fits}
        print_json(
            {
                "metadata": dataclasses.asdict(metadata) | {"path": str(metadata.path)},
                "plan": dataclasses.asdict(planned) | totals,
            }
        )
        return
    _print_metadata(metadata, planned)


def _print_metadata(metadata: GgufMetadata, planned: MemoryPlan) -> None:
    context = f"{metadata.context_length:,} tokens" if metadata.context_length else "unknown"
    special = metadata.special_tokens
    shown = " ".join(special[:8]) + (f" and {len(special) - 8:,} more" if len(special) > 8 else "")
    size = f"{_size(metadata.file_bytes)}, {metadata.num_parameters / 1e6:,.0f} M parameters"
    lines = {
        "name": metadata.name or "unknown",
        "file": f"{metadata.path}" + (f" and {metadata.num_shards - 1} more" if metadata.num_shards > 1 else ""),
        "kind": metadata.kind,
        "size": f"{size}, {metadata.quantisation}",
        "architecture": f"{metadata.architecture}, {metadata.num_layers} layers of width {metadata.embedding_length:,}",
        "trained for": context,
        "vocabulary": f"{metadata.vocab_size:,} tokens ({metadata.tokenizer or 'unknown tokenizer'})",
        "special": shown or "none",
        "serving": planned.describe(),
        "fits": "yes" if planned.fits else "no: there is too little memory",
    }
    for name, value in lines.items():
        click.echo(f"{name:<13}{value}")
    for note in planned.notes:
        click.echo(f"{'note':<13}{note}")
    click.echo(f"{'template':<13}{'none: a base model' if metadata.chat_template is None else ''}")
    if metadata.chat_template is not None:
        click.echo(metadata.chat_template)


@models.command()
@click.argument("model")
def rm(model: str) -> None:
    """Delete a pulled model, or a conversion.

    MODEL is a name of the list; the name of a source removes all its conversions.
    """

    kept = converted.conversions()
    chosen = [one for one in kept if one.name == model]
    if not chosen and model not in BUILT_IN:
        chosen = [one for one in kept if one.source == model]
    for one in chosen:
        converted.remove(one)
        click.echo(f"{one.name} is removed, {_size(one.num_bytes)} freed")
    if chosen:
        return
    reference = _named(model, [one.name for one in kept])
    if not isinstance(reference, BuiltIn | HubFile | UrlFile | WheelFile):
        raise UsageError(f"{model} was not pulled by chaku", fix="delete it yourself")
    freed_bytes = cache.remove(reference)
    if isinstance(reference, HubFile):
        click.echo(f"{model} is forgotten; its file stays in the hub's cache (see `hf cache`)")
    else:
        click.echo(f"{model} is removed, {_size(freed_bytes)} freed")


def _named(model: str, known: list[str]) -> Reference:
    """The model that is meant. Raises ModelError offering the nearest name among `known` and what is pulled."""
    try:
        return parse(model).reference
    except ModelError as error:
        here = [pulled.source for pulled in cache.pulled()]
        otherwise = f"pulled: {', '.join(here)}" if here else "`chaku models list` shows the names"
        fix = did_you_mean(model, [*here, *known], otherwise, likeness=0.5)
        raise ModelError(error.message, fix=error.fix if find(model) else fix) from None


def _size(num_bytes: int) -> str:
    return gigabytes(num_bytes)
