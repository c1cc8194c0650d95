"""`chaku runs push`: a finished run becomes a repository on the hub. Says what goes there before it does."""

from __future__ import annotations

import sys
import typing

import click

from chaku.cli.help_page import command
from chaku.errors import UsageError
from chaku.models.plan.memory_plan import gigabytes
from chaku.packages import needs
from chaku.runs import find_run
from chaku.train import publish
from chaku.weights.card import read_manifest


@command()
@click.argument("run")
@click.argument("repo", metavar="REPO_ID")
@click.option(
    "--private/--public", "is_private", default=True, show_default=True,
    help="Visibility of a new repository; an existing one stays as it is.",
)  # fmt: skip
@click.option("--base", metavar="ORG/NAME", help="Where others find the base model, if the run had it from a folder.")
@click.option(
    "--checkpoints", is_flag=True, help="Upload the checkpoints too: large, needed only to continue training."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be uploaded.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@needs("hub")
def push(
    run: str, repo: str, is_private: bool, base: str | None, checkpoints: bool, dry_run: bool, yes: bool
) -> None:  # fmt: skip
    """Upload a finished RUN to the hub.

    Uploads model, tokenizer, template and card, and below run/ config, manifest and log.

    HF_TOKEN (or `hf auth login`) says who you are, HF_ENDPOINT which hub. Paths of this machine are taken out.
    """

    folder = find_run(run)
    for each in filter(None, (repo, base)):
        publish.check_id(each)
    uploads = publish.collect(folder, repo, base=base, with_checkpoints=checkpoints)
    for upload in uploads:
        click.echo(f"{upload.num_bytes:>15,}  {upload.place}")
    total = sum(upload.num_bytes for upload in uploads)
    made = "private" if is_private else "PUBLIC"
    click.echo(f"{len(uploads)} files, {gigabytes(total)}, to {_endpoint()}/{repo} ({made} if it is new)")
    for note in _notes(read_manifest(folder), base):
        click.echo(f"note: {note}")
    if dry_run:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody is here to say yes", fix="look at --dry-run, then say --yes")
        click.confirm("Upload?", abort=True)
    if not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
    done = publish.push(repo, uploads, is_private=is_private, message=f"Upload of the run {folder.resolve().name}")
    for note in done.notes:
        click.echo(f"note: {' '.join(note.split())}", err=True)
    for name in done.deleted:
        click.echo(f"deleted {name}, of an earlier push", err=True)
    state = "holds the run" if done.is_changed else "held all of it already"
    click.echo(f"{done.url} {state} ({'private' if done.is_private else 'public'})")


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _notes(manifest: dict[str, object], base: str | None) -> list[str]:
    """What others will miss."""

    before = typing.cast(dict[str, str], manifest["base"])
    notes = []
    if not (base or before.get("hub_id")):
        notes.append("others don't know where the base is: --base ORG/NAME says it")
    if not (manifest.get("licence") or before.get("licence")):
        notes.append("no licence is recorded: write `licence:` into the recipe")
    return notes
