"""The last conversation, kept for `chaku chat -c`: one private file in the data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from chaku.cli.terminal.transcript import Transcript, load
from chaku.config import data_dir
from chaku.errors import UsageError


@dataclass(frozen=True)
class Kept:
    """A conversation, and the model and server that were named for it (None: none was)."""

    transcript: Transcript
    model: str | None
    base_url: str | None


def place() -> Path:
    """The file."""
    return data_dir() / "last-chat.json"


def keep(transcript: Transcript, model: str | None, base_url: str | None) -> None:
    """Write the conversation in place of the one before it. Raises UsageError where that can't be written."""
    try:
        place().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't write {place()}: {error.strerror}", fix="export CHAKU_DATA=FOLDER") from None
    transcript.save(place(), overwrite=True, model=model, base_url=base_url)


def last() -> Kept:
    """Read it back. Raises UsageError where there is none."""
    if not place().exists():
        raise UsageError("there is no conversation to continue", fix="begin one: chaku chat")
    transcript = load(place())
    about = orjson.loads(place().read_bytes())
    return Kept(transcript, about.get("model"), about.get("base_url"))
