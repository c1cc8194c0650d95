"""What a vote makes of a battle: a game for the ratings, and the names of its sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from chaku.arena.battle_files import style_of
from chaku.arena.categories import category_of, language_of
from chaku.arena.leaks import leaks_identity
from chaku.comparison import Comparison, Outcome
from chaku.settings import Contestant
from chaku.store.battles import SIDES, Battles, Side, StoredBattle, StoredVote, undo_left_s
from chaku.store.message_record import StoredMessage
from chaku.web import arena_shapes
from chaku.web.battle_record import paths_of

_NOT_COUNTED = {
    "leaked": "an answer said which model wrote it",
    "moderated": "moderation ended an answer",
    "replaced": "a side failed and was replaced",
    "failed": "a side failed",
    "shown": "the names had been shown before the vote",
}


def flags_of_vote(sides: Mapping[Side, Contestant], answers: Mapping[Side, Sequence[str]]) -> list[str]:
    """What the answers add to a battle's flags: "leaked" where one says which model wrote it."""
    texts = [text for side in SIDES for text in answers[side]]
    models = {contestant.model for contestant in sides.values()}
    names = {contestant.name for contestant in sides.values()}
    return ["leaked"] if leaks_identity(texts, models, names) else []


def game_of(
    battle: StoredBattle,
    sides: Mapping[Side, Contestant],
    prompts: Sequence[str],
    answers: Mapping[Side, Sequence[str]],
    choice: Outcome,
    *,
    flags: Iterable[str],
    voter: str,
    now: datetime,
) -> Comparison:
    """The vote as a game. It is not counted where one of `flags` forbids it."""
    why_not = _why_not_counted(flags)
    return Comparison(
        source="human",
        model_a=sides["a"].name,
        model_b=sides["b"].name,
        outcome=choice,
        prompt_id=hashlib.sha256(prompts[0].encode(errors="replace")).hexdigest()[:16],
        cluster=voter,
        category=category_of(prompts),
        language=language_of(prompts),
        turn=max(1, battle.turn),
        voter=voter,
        style_a=style_of("\n".join(answers["a"])),
        style_b=style_of("\n".join(answers["b"])),
        counted=why_not is None,
        reason=why_not,
        consent=battle.publish,
        created=now.isoformat(),
    )


def reveal(
    book: Battles, battle_id: str, given: StoredVote, num_parameters: Mapping[str, int | None]
) -> arena_shapes.Revealed:
    """The vote with the names of the sides. `num_parameters` are those of the models that are served."""
    battle = book.get(battle_id)
    sides, paths = book.sides(battle), paths_of(book, battle)
    why_not = _why_not_counted(battle.flags)
    return {
        "state": "revealed",
        "choice": given.choice,
        "counted": why_not is None,
        "reason": why_not,
        "sides": {
            side: _reveal_side(sides[side], paths[side], num_parameters.get(sides[side].model)) for side in SIDES
        },
        "reasons": given.reasons,
        "undo_s": undo_left_s(given, datetime.now(UTC)),
    }


def _why_not_counted(flags: Iterable[str]) -> str | None:
    return next((_NOT_COUNTED[flag] for flag in flags if flag in _NOT_COUNTED), None)


def _reveal_side(
    contestant: Contestant, path: Sequence[StoredMessage], num_parameters: int | None
) -> arena_shapes.SideRevealed:
    """Who answered, how fast and with what."""
    answers = [message for message in path if message.role == "assistant"]
    rates = [message.timings["tokens_per_s"] for message in answers if message.timings]
    tokens = [message.usage["completion_tokens"] for message in answers if message.usage]
    return {
        "contestant": contestant.name,
        "model": contestant.model,
        "tokens_per_s": next((rate for rate in reversed(rates) if rate is not None), None),
        "num_tokens": sum(tokens) if tokens else None,
        "num_parameters": num_parameters,
        "parameters": {**({"system": contestant.system} if contestant.system else {}), **contestant.sampling},
    }
