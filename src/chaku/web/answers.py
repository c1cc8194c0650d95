"""Answers under way: each is a task of the gateway, asked through `client`, written down as it grows, read by any tab.

It belongs to no connection: a browser may go and come back, and read on where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from chaku import tasks
from chaku.client import Client
from chaku.errors import ChakuError, EngineError, InvalidRequest, NotFound, StoreError
from chaku.store.conversations import StoredConversation
from chaku.store.database import Store
from chaku.store.leases import LEASE_S, Lease
from chaku.store.message_record import MessageState, StoredMessage
from chaku.store.tree import Tree
from chaku.web.running_answer import RunningAnswer, last_event
from chaku.web.shapes import show_error, show_message
from chaku.web.streams import ELSEWHERE, Numbered

log = logging.getLogger(__name__)

KEEP_S = 1.0
"""A running answer is written to the store every so many seconds. A kill loses at most the text since then."""

_SAVE_PAUSES_S = (0.5, 2.0, 5.0)
_LAST_SAVE_PAUSES_S = (0.5,)
"""When the gateway stops."""

_LAST_WORDS_S = 2.0


class Answers:
    """The answers under way in this process. `tell` hears of each that begins or ends, with its owner."""

    def __init__(
        self,
        store: Store,
        base_url: str,
        token_for: Callable[[str | None], str],
        tell: Callable[[str | None, StoredMessage], None],
        *,
        lease_s: float = LEASE_S,
        certificate: str | None = None,
    ) -> None:
        self._store = store
        self._base_url = base_url
        self._certificate = certificate
        self._token_for = token_for
        self._tell = tell
        self._lease = Lease(store, lease_s=lease_s)
        self._running: dict[tuple[str | None, str, str], RunningAnswer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._is_closing = False

    async def start(self) -> None:
        """Take a lease, and begin to write answers down. Raises StoreError."""
        await asyncio.to_thread(self._lease.start)
        self._keeper = tasks.repeat(self._keep, "answers-keeper", pause_s=KEEP_S)

    def close(self) -> None:
        """The gateway is stopping: an answer that breaks off from here on does so because of that."""
        self._is_closing = True

    @property
    def is_closing(self) -> bool:
        """Whether the gateway is stopping: answers that fail now fail because of that."""
        return self._is_closing

    async def stop(self) -> None:
        """Have every answer written down with how it ended."""
        self._is_closing = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_LAST_WORDS_S)
            for answer in self._running.values():
                answer.asking.cancel()
            if late:
                await asyncio.wait(late)
        await tasks.cancel(self._keeper)
        await asyncio.to_thread(self._lease.close)

    def find(self, owner_id: str | None, chat_id: str, message_id: str) -> RunningAnswer | None:
        """An answer under way here; its owner's."""
        return self._running.get((owner_id, chat_id, message_id))

    async def begin(
        self, owner_id: str | None, chat: StoredConversation, parent_id: str, model: str, settings: dict[str, Any]
    ) -> StoredMessage:
        """Ask a model to answer a user message; the new, empty answer. Raises NotFound or InvalidRequest."""
        # Shielded: if the caller leaves now, the answer is still written.
        return await asyncio.shield(self._begin(owner_id, chat, parent_id, model, settings))

    async def _begin(
        self, owner_id: str | None, chat: StoredConversation, parent_id: str, model: str, settings: dict[str, Any]
    ) -> StoredMessage:
        tree = Tree(self._store, owner_id, chat.id)
        path = await asyncio.to_thread(tree.path, parent_id)
        if path[-1].role != "user":
            raise InvalidRequest(f"message {parent_id!r} is the {path[-1].role}'s, not the user's", param="parent_id")
        messages = prompt(chat.system, path)
        message = await asyncio.to_thread(
            tree.append,
            parent_id,
            "assistant",
            "",
            now=datetime.now(UTC),
            state=MessageState.STREAMING,
            model=model,
            sampling=settings,
            gateway_id=self._lease.id,
        )
        self._start(owner_id, RunningAnswer(tree, message, is_told=chat.battle_id is None), messages)
        return message

    async def resume(
        self,
        owner_id: str | None,
        chat: StoredConversation,
        message_id: str,
        model: str | None,
        settings: dict[str, Any],
    ) -> StoredMessage:
        """Have a model continue an answer that was cut off; the answer so far. Raises NotFound or InvalidRequest."""
        return await asyncio.shield(self._resume(owner_id, chat, message_id, model, settings))

    async def _resume(
        self,
        owner_id: str | None,
        chat: StoredConversation,
        message_id: str,
        model: str | None,
        settings: dict[str, Any],
    ) -> StoredMessage:
        tree = Tree(self._store, owner_id, chat.id)
        path = await asyncio.to_thread(tree.path, message_id)
        message = await asyncio.to_thread(
            tree.resume,
            message_id,
            now=datetime.now(UTC),
            model=model,
            sampling=settings,
            gateway_id=self._lease.id,
        )
        messages = prompt(chat.system, [*path[:-1], message])
        self._start(owner_id, RunningAnswer(tree, message), messages, continue_final_message=True)
        return message

    def _start(
        self, owner_id: str | None, answer: RunningAnswer, messages: Sequence[dict[str, Any]], **fields: Any
    ) -> None:
        message = answer.message
        # A task of its own does the asking, so that it can be cancelled at any moment.
        answer.asking = asyncio.create_task(self._ask(owner_id, answer, messages, **fields))
        self._running[owner_id, message.conversation_id, message.id] = answer
        task = tasks.start(self._run(owner_id, answer), f"answer-{message.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if answer.is_told:
            self._tell(owner_id, message)

    async def end(self, owner_id: str | None, chat_id: str, message_id: str) -> StoredMessage:
        """Stop an answer, and return it; one that is over already stays as it is. Raises NotFound."""
        tree = Tree(self._store, owner_id, chat_id)
        answer = self.find(owner_id, chat_id, message_id)
        if answer is not None:
            answer.asking.cancel()
            async for _ in answer.events(None):
                pass
            return answer.message
        message = await asyncio.to_thread(tree.get, message_id)
        if message.state is MessageState.STREAMING:  # another gateway's, which sees it within KEEP_S
            message = await asyncio.to_thread(_finish, tree, replace(message, state=MessageState.STOPPED))
        return message

    async def follow(
        self, owner_id: str | None, chat_id: str, message_id: str, after: int | None
    ) -> AsyncGenerator[Numbered]:
        """The events of an answer, from this gateway or another one. Raises NotFound."""
        answer = self.find(owner_id, chat_id, message_id)
        if answer is not None:
            async with aclosing(answer.events(after)) as events:
                async for numbered in events:
                    yield numbered
            return
        tree = Tree(self._store, owner_id, chat_id)
        message = await asyncio.to_thread(tree.get, message_id)
        yield ELSEWHERE, {"type": "snapshot", "message": show_message(message)}
        while message.state is MessageState.STREAMING:  # another gateway's: what it writes down is what there is to see
            await asyncio.sleep(KEEP_S)
            before, message = message, await asyncio.to_thread(tree.get, message_id)
            if message.content != before.content or message.reasoning != before.reasoning:
                yield ELSEWHERE, {"type": "snapshot", "message": show_message(message)}
        yield ELSEWHERE, last_event(message)

    async def _run(self, owner_id: str | None, answer: RunningAnswer) -> None:
        """Wait for the end, and write it down. Whatever fails on the way, the followers hear of the end."""
        await asyncio.wait({answer.asking})
        try:
            await self._save(answer, *self._outcome(answer.asking))
        finally:
            if not answer.is_over:
                failure = show_error(ChakuError("the gateway failed on this answer; its log has the details"))
                answer.end(replace(answer.so_far(), state=MessageState.FAILED, error=failure))
            message = answer.message
            self._running.pop((owner_id, message.conversation_id, message.id), None)
            if answer.is_told:
                self._tell(owner_id, message)

    async def _ask(
        self, owner_id: str | None, answer: RunningAnswer, messages: Sequence[dict[str, Any]], **fields: Any
    ) -> None:
        model, settings = answer.message.model, answer.message.sampling or {}
        assert model is not None
        async with (
            Client(self._base_url, self._token_for(owner_id), certificate=self._certificate) as client,
            aclosing(client.stream(messages, model, **settings, **fields)) as deltas,
        ):
            async for delta in deltas:
                answer.take(delta)

    def _outcome(self, asked: asyncio.Task[None]) -> tuple[MessageState, ChakuError | None]:
        error = None if asked.cancelled() else asked.exception()
        if not asked.cancelled() and error is None:
            return MessageState.COMPLETE, None
        if self._is_closing:
            return MessageState.FAILED, EngineError(
                "the gateway was stopped while this answer was written",
                fix="ask for the answer again",
                code="gateway_stopped",
            )
        if error is None:
            return MessageState.STOPPED, None
        if not isinstance(error, ChakuError):
            log.error("answer failed", exc_info=error)
            error = ChakuError("the gateway failed on this answer; its log has the details")
        return MessageState.FAILED, error

    async def _save(self, answer: RunningAnswer, state: MessageState, error: ChakuError | None) -> None:
        """Write the end down; where the store does not take it, the readers hear of that instead."""
        ended = replace(
            answer.so_far(),
            state=state,
            usage=answer.usage,
            timings=answer.timings(),
            finish_reason=answer.finish_reason,
            error=show_error(error) if error else None,
        )
        async with answer.saving:
            for pause_s in (*(_LAST_SAVE_PAUSES_S if self._is_closing else _SAVE_PAUSES_S), None):
                try:
                    answer.end(await asyncio.to_thread(_finish, answer.tree, ended))
                    return
                except StoreError as trouble:
                    log.error("answer can't be written down message=%s error=%s", ended.id, trouble)
                    if pause_s is None:
                        answer.end(replace(ended, state=MessageState.FAILED, error=show_error(trouble)))
                        return
                    await asyncio.sleep(pause_s)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            for answer in list(self._running.values()):
                await self._keep_one(answer)

    async def _keep_one(self, answer: RunningAnswer) -> None:
        async with answer.saving:
            if answer.is_over:
                return
            said = answer.so_far()
            try:
                await asyncio.to_thread(
                    answer.tree.grow, said.id, said.content, now=datetime.now(UTC), reasoning=said.reasoning
                )
            except NotFound:
                answer.asking.cancel()
            except StoreError as error:
                log.error("answer can't be written down message=%s error=%s", said.id, error)


def _finish(tree: Tree, ended: StoredMessage) -> StoredMessage:
    """Write how an answer ended; the message as it stands, which another gateway may have ended before."""
    try:
        tree.finish(
            ended.id,
            ended.content,
            now=datetime.now(UTC),
            state=ended.state,
            reasoning=ended.reasoning,
            usage=ended.usage,
            timings=ended.timings,
            finish_reason=ended.finish_reason,
            error=ended.error,
        )
    except NotFound:
        log.info("answer had ended elsewhere message=%s", ended.id)
        return tree.get(ended.id)
    return ended


def prompt(system: str | None, path: Sequence[StoredMessage]) -> list[dict[str, Any]]:
    """The messages that a model gets: the system prompt and those of the path.

    Empty answers are left out, and so is a message that moderation refused: it would have all later ones refused too.
    """
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message, answer in zip_longest(path, path[1:]):
        if (message.content or message.extra) and not (answer and _refused_prompt(answer)):
            messages.append({"role": message.role, "content": message.content, **(message.extra or {})})
    return messages


def _refused_prompt(answer: StoredMessage) -> bool:
    return not answer.content and (answer.error or {}).get("code") == "content_filter"
