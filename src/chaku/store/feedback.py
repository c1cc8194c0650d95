"""What a visitor thinks of single answers: a thumb up or down, with reasons, and whether it may be used as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import sqlalchemy as sa

from chaku.errors import InvalidRequest, NotFound
from chaku.store.database import Store
from chaku.store.ids import new_id
from chaku.store.tables import conversations, feedback, messages

Value = Literal["up", "down"]

LOCAL_VISITOR = "local"
"""Who comes without a key."""


@dataclass(frozen=True)
class Feedback:
    """One visitor's thumb on one answer."""

    message_id: str
    visitor: str
    value: str
    """up or down"""
    reasons: list[str]
    consent: bool
    """Whether it may be used as data."""
    created_at: datetime


class FeedbackBook:
    """The thumbs of one visitor (an API key's id; None: whoever comes without a key)."""

    def __init__(self, store: Store, owner_id: str | None) -> None:
        self._store = store
        self._owner_id = owner_id
        self.visitor = owner_id or LOCAL_VISITOR

    def give(
        self,
        conversation_id: str,
        message_id: str,
        value: Value,
        *,
        now: datetime,
        reasons: Sequence[str] = (),
        consent: bool | None = None,
    ) -> Feedback:
        """Rate an answer; what this visitor gave before on it is replaced. Without `consent` the last one given counts.

        Raises NotFound, or InvalidRequest for what is no answer, and with code `consent_needed` while the visitor was
        never asked.
        """
        with self._store.write() as connection:
            self._check_answer(connection, conversation_id, message_id)
            consent = self._last_consent(connection) if consent is None else consent
            if consent is None:
                raise InvalidRequest(
                    "nobody has said yet whether ratings may be used as data",
                    fix="send consent: true or false with the first rating",
                    param="consent",
                    code="consent_needed",
                )
            given = Feedback(message_id, self.visitor, value, list(reasons), consent, now)
            connection.execute(feedback.delete().where(self._mine, feedback.c.message_id == message_id))
            connection.execute(feedback.insert().values(**row_of(given, conversation_id)))
        return given

    def take_back(self, conversation_id: str, message_id: str) -> None:
        """Undo `give`; it is fine if nothing was given. Raises NotFound."""
        with self._store.write() as connection:
            self._check_answer(connection, conversation_id, message_id)
            connection.execute(feedback.delete().where(self._mine, feedback.c.message_id == message_id))

    def of(self, conversation_id: str) -> dict[str, Feedback]:
        """The thumbs in one conversation, by message id."""
        columns = (feedback.c[name] for name in Feedback.__dataclass_fields__)
        query = sa.select(*columns).where(self._mine, feedback.c.conversation_id == conversation_id)
        with self._store.read() as connection:
            return {row.message_id: Feedback(*row) for row in connection.execute(query)}

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return feedback.c.visitor == self.visitor

    def _last_consent(self, connection: sa.Connection) -> bool | None:
        query = (
            sa.select(feedback.c.consent).where(self._mine).order_by(feedback.c.created_at.desc(), feedback.c.id.desc())
        )
        consent: bool | None = connection.execute(query.limit(1)).scalar()
        return consent

    def _check_answer(self, connection: sa.Connection, conversation_id: str, message_id: str) -> None:
        """Hold the conversation, so that of two ratings at once the later one counts."""
        mine = sa.select(conversations.c.id).where(
            conversations.c.id == conversation_id,
            conversations.c.owner_id == self._owner_id,
            conversations.c.deleted_at.is_(None),
        )
        role = None
        if connection.execute(mine.with_for_update()).first() is not None:
            query = sa.select(messages.c.role).where(
                messages.c.conversation_id == conversation_id,
                messages.c.id == message_id,
                messages.c.deleted_at.is_(None),
            )
            role = connection.execute(query).scalar()
        if role is None:
            raise NotFound(f"no message {message_id!r} in conversation {conversation_id!r}")
        if role != "assistant":
            raise InvalidRequest(f"message {message_id!r} is the {role}'s: only answers are rated", param="message")


def row_of(given: Feedback, conversation_id: str) -> dict[str, object]:
    """A thumb as its table's columns."""
    return {"id": new_id(given.created_at), "conversation_id": conversation_id, **vars(given)}
