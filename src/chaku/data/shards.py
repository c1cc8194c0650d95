"""Shards on disk: a folder that is whole or absent, and conversations as JSONL in it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from chaku.chat.messages import Conversation
from chaku.records import sync


@contextlib.contextmanager
def write_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder that becomes `folder` when the block ends well. Its files are on disk before its name is."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for file in part.iterdir():
            sync(file)
        part.replace(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_jsonl(path: Path, conversations: Iterable[Conversation]) -> int:
    """One conversation a line; returns how many."""
    number = 0
    with path.open("wb") as file:
        for number, conversation in enumerate(conversations, start=1):  # noqa: B007
            file.write(orjson.dumps(conversation.to_json(), option=orjson.OPT_APPEND_NEWLINE))
    return number


def read_jsonl(path: Path) -> Iterator[Conversation]:
    """Conversations in order, one in memory at a time."""
    with path.open("rb") as file:
        for line in file:
            yield Conversation.from_json(orjson.loads(line))
