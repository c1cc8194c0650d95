"""A dated folder of what visitors said: supervised conversations and preference pairs, with personal data masked.

Consent and choice are the store's (`chaku.store.donations`). Files are what `data build` reads; no visitor is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

import chaku
from chaku.chat.messages import Conversation, Message, Role
from chaku.data.inputs.fields import BadMessage
from chaku.data.inputs.pairs import Pair
from chaku.data.rules.dedup import group_of
from chaku.data.rules.privacy import judge_personal
from chaku.data.rules.table import PII_RULES, actions
from chaku.errors import InvalidRequest, UsageError
from chaku.records import atomic_folder, describe_file
from chaku.store.donations import DonatedAnswer, DonatedPair, Donations
from chaku.store.message_record import StoredMessage

CONVERSATIONS, PAIRS, FACTS = "conversations.jsonl", "pairs.jsonl", "snapshot.json"


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was written."""

    folder: Path
    facts: Mapping[str, Any]
    """What snapshot.json holds: when, how many records of each kind, what was left out and why, sha256 of files."""


def write_snapshot(donations: Donations, folder: Path, kinds: Sequence[str], *, now: datetime) -> Snapshot:
    """Write the folder, whole or not at all. Raises UsageError where it exists, or nothing is there to write."""
    if folder.exists():
        raise UsageError(f"{folder} exists", fix="name another folder with --output")
    left_out, counts, masked = Counter(donations.left_out), Counter[str](), Counter[str]()
    chats, pairs = list[bytes](), list[bytes]()
    everything: list[DonatedAnswer | DonatedPair] = [*donations.answers, *donations.pairs]
    for given in everything:
        lines, shape = (chats, "conversations") if isinstance(given, DonatedAnswer) else (pairs, "pairs")
        try:
            record = _chat(given, masked) if isinstance(given, DonatedAnswer) else _pair(given, masked)
        except (BadMessage, InvalidRequest) as error:
            left_out[str(error)] += 1
            continue
        lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        counts[f"{given.kind}: {shape}"] += 1
    if not chats and not pairs:
        why = "; ".join(f"{reason}: {number:,}" for reason, number in left_out.most_common()) or "nobody said anything"
        raise UsageError(f"there is nothing to train on ({why})", fix="chat, give thumbs, or vote in the arena first")
    with atomic_folder(folder) as part:
        for name, lines in ((CONVERSATIONS, chats), (PAIRS, pairs)):
            if lines:
                (part / name).write_bytes(b"".join(lines))
        facts = {
            "created": now.isoformat(), "chaku": chaku.__version__, "kinds": list(kinds),
            "records": dict(sorted(counts.items())), "left_out": dict(left_out.most_common()),
            "masked": dict(sorted(masked.items())),
            "files": {path.name: describe_file(path) for path in sorted(part.iterdir())},
        }  # fmt: skip
        (part / FACTS).write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return Snapshot(folder, facts)


def _chat(given: DonatedAnswer, masked: Counter[str]) -> dict[str, Any]:
    """The answer that was found good carries loss; answers before it don't."""
    messages = _messages(given.system, given.path)
    is_read_only = [message.role is Role.ASSISTANT for message in messages[:-1]] + [False]
    marked = (
        replace(message, weight=0) if is_read else message
        for message, is_read in zip(messages, is_read_only, strict=True)
    )
    chat = _masked(Conversation("", tuple(marked)), masked)
    source = {"kind": given.kind, "model": given.path[-1].model, "group": group_of(chat)}
    return {"messages": [message.to_json() for message in chat.messages], "source": source}


def _pair(given: DonatedPair, masked: Counter[str]) -> dict[str, Any]:
    chosen = _masked(Conversation("", _messages(given.system, given.chosen)), masked)
    rejected = _masked(Conversation("", _messages(given.system, given.rejected)), masked)
    pair = Pair("", chosen.messages, rejected=rejected.messages)
    sides = {
        name: [message.to_json() for message in messages]
        for name, messages in zip(("prompt", "chosen", "rejected"), pair.parts(), strict=True)
    }
    models = {"chosen_model": given.chosen_model, "rejected_model": given.rejected_model}
    return {**sides, "source": {"kind": given.kind, **models, "group": group_of(chosen)}}


def _masked(chat: Conversation, masked: Counter[str]) -> Conversation:
    """Every kind of personal data is masked, also what `data build` only flags: here it leaves the store."""
    decision = judge_personal(chat, actions(dict.fromkeys(PII_RULES, "redact")))
    masked.update({flag.rule: int(flag.score or 0) for flag in decision.flags})
    assert decision.kept is not None  # nothing is dropped where all is masked
    return decision.kept


def _messages(system: str | None, path: Sequence[StoredMessage]) -> tuple[Message, ...]:
    """Raises InvalidRequest for what is not text."""
    messages = [Message(Role.SYSTEM, system)] if system else []
    for stored in path:
        message = Message.from_json(
            {**(stored.extra or {}), "role": stored.role, "content": stored.content}
            | ({"reasoning_content": stored.reasoning} if stored.reasoning else {})
        )
        if message.parts:
            raise InvalidRequest("a message is not only text")
        messages.append(message)
    return tuple(messages)
