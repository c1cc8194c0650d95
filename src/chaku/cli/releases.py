"""How `chaku models` shows the published Vicunas: a section of the list, and a page for each."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from chaku.models.vicunas import RELEASES

if TYPE_CHECKING:
    from chaku.models.vicunas import Release


def print_section() -> None:
    """The releases in a few lines, the newest version first."""

    by_version: dict[str, list[str]] = {}
    for release in RELEASES.values():
        by_version.setdefault(release.version, []).append(release.name)
    click.echo("\nPublished Vicunas (* outdated); `chaku models show NAME` says what they are:")
    for version, names in reversed(by_version.items()):
        shown = (name + "*" * bool(RELEASES[name].successor) for name in names)
        click.echo(f"  {version:<9} {'  '.join(shown)}")


def rows() -> list[dict[str, Any]]:
    """The releases for the list as JSON."""

    return [
        {
            "name": release.name,
            "built_in": False,
            "pulled": False,
            "licence": release.licence.name,
            "licence_url": release.licence.url,
            "description": f"Vicuna {release.version}, {release.form}, on {release.base}",
            "num_parameters": release.shape.num_parameters,
            "context_tokens": release.shape.context,
            "chat": True,
            "hub_id": release.hub_id,
        }
        for release in RELEASES.values()
    ]


def as_json(release: Release) -> dict[str, Any]:
    """All of a release."""
    return dataclasses.asdict(release) | {"notice": release.notice}


def print_release(release: Release) -> None:
    """A release's page."""
    shape = release.shape
    if release.notice:
        click.echo(click.style("NOTE: ", bold=True) + release.notice)
    form = "delta, to be added to its base (chaku weights apply-delta)" if release.form == "delta" else "merged"
    dimensions = (
        f"{shape.num_layers} layers, width {shape.width:,}, {shape.heads} heads, {shape.kv_heads} key-value heads"
    )
    lines = {
        "name": release.name,
        "version": f"{release.version}, {release.released}",
        "hub": f"https://huggingface.co/{release.hub_id}",
        "form": form,
        "base": release.base,
        "data": f"about {release.num_conversations:,} user-shared conversations",
        "template": f"{release.template}, answers end with {release.separator}",
        "context": f"{shape.context:,} tokens",
        "vocabulary": f"{shape.vocab_size:,} tokens",
        "parameters": f"{shape.num_parameters:,} ({2 * shape.num_parameters / 1e9:.1f} GB in 16 bits)",
        "architecture": f"llama, {dimensions}, feed-forward {shape.feed_forward:,}",
        "licence": f"{release.licence.name} ({release.licence.url})",
        "successor": release.successor or "none",
    }
    if release.notes:
        lines["note"] = release.notes
    for name, value in lines.items():
        click.echo(f"{name:<13}{value}")
