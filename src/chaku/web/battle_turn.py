"""One turn of a battle: both sides answer at their own pace, and begin to be seen together.

The answers are the gateway's, as a chat's are (`web.answers`). This follows both and tells the battle's readers.
Nothing that they are told has a name in it, no error's text either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime

from chaku.errors import ChakuError, Conflict
from chaku.settings import Contestant
from chaku.store.battles import SIDES, Battles, Side, StoredBattle
from chaku.store.conversations import StoredConversation
from chaku.store.message_record import MessageState, StoredMessage
from chaku.web.answers import Answers
from chaku.web.arena_shapes import BattleEvent, SideState
from chaku.web.feed import Feed

log = logging.getLogger(__name__)

Substitute = Callable[[set[str]], Contestant | None]
"""A contestant that is ready and has none of these names."""


class BattleTurn:
    """One turn under way. `run` ends when both sides have."""

    def __init__(self, book: Battles, battle: StoredBattle, answers: Answers, substitute: Substitute) -> None:
        self.feed = Feed()
        self.battle = battle
        self.models: list[str] = []
        """Those that were asked."""
        self.shown: dict[Side, str] = {"a": "", "b": ""}
        """What readers have of this turn's answers."""
        self._book = book
        self._answers = answers
        self._substitute = substitute
        self._texts: dict[Side, str] = {"a": "", "b": ""}
        self._begun: set[Side] = set()
        self._ended: set[Side] = set()
        self._failed: set[Side] = set()
        self._moderated: set[Side] = set()
        """Sides whose answer moderation ended: nobody takes their place, and the battle is over."""
        self._tried: set[str] = set()
        self._opening = asyncio.Lock()
        self._both_begun = asyncio.Event()
        """Set as well when the turn has failed."""

    def state_of(self, side: Side) -> SideState:
        """Where a side is, as readers may know it."""
        return "failed" if side in self._failed else "ended" if side in self._ended else "answering"

    async def run(self, content: str) -> None:
        """Ask both sides, and see them to their ends."""
        try:
            sides = await asyncio.to_thread(self._book.sides, self.battle)
            self._tried = {contestant.name for contestant in sides.values()}
            async with asyncio.TaskGroup() as both:
                for side in SIDES:
                    both.create_task(self._run_side(side, content))
        except Exception:
            await asyncio.to_thread(self._fail)
            raise
        finally:
            self.feed.end()

    async def _run_side(self, side: Side, content: str) -> None:
        """One side's answer; on the first turn another contestant takes the place of one that fails."""
        while not await self._answer(side, content):
            if self._answers.is_closing:
                self._both_begun.set()
                return
            if side in self._moderated or not await self._replace(side):
                self._failed.add(side)
                if self.battle.turn == 1:
                    self._both_begun.set()
                flag = "moderated" if side in self._moderated else "failed"
                await asyncio.to_thread(self._book.flag, self.battle.id, flag, now=_now())
                break
        await self._begin_if_both()
        if side in self._failed:
            if (
                self.battle.turn == 1 or self._moderated
            ):  # before it is told: who comes after the event sees it in the snapshot
                await asyncio.to_thread(self._fail)
            self.feed.add(BattleEvent(kind="failed", side=side))
            return
        await self._both_begun.wait()
        self._ended.add(side)
        self.feed.add(BattleEvent(kind="ended", side=side))

    async def _replace(self, side: Side) -> bool:
        """Put another contestant on a side. Whether there is one, and a reason to: the other side stands."""
        contestant = self._substitute(self._tried) if self.battle.turn == 1 and not self._failed else None
        if contestant is None:
            return False
        self._tried.add(contestant.name)
        try:
            self.battle = await asyncio.to_thread(self._book.replace_side, self.battle.id, side, contestant, now=_now())
        except Conflict:  # the vote was faster
            return False
        self._texts[side] = self.shown[side] = ""
        self._begun.discard(side)
        self._both_begun.clear()
        self.feed.add(BattleEvent(kind="replaced", side=side))
        return True

    async def _answer(self, side: Side, content: str) -> bool:
        """Have the side's contestant answer. Whether it did."""
        try:
            chat, user = await asyncio.to_thread(self._append, side, content)
            assert chat.model is not None
            self.models.append(chat.model)
            message = await self._answers.begin(chat.owner_id, chat, user.id, chat.model, chat.settings or {})
            state = str(message.state)
            async with aclosing(self._answers.follow(chat.owner_id, chat.id, message.id, None)) as events:
                async for _, event in events:
                    if event["type"] == "delta":
                        await self._grow(side, event.get("content", ""))
                        continue
                    state = event["message"]["state"]
                    if event["message"].get("finish_reason") == "content_filter":
                        self._moderated.add(side)
                    await self._grow(side, event["message"]["content"][len(self._texts[side]) :])
        except ChakuError as error:
            log.info("a side can't answer battle=%s side=%s: %s", self.battle.id, side, error.for_log)
            return False
        if state == MessageState.STOPPED:  # by the vote
            return True
        return side not in self._moderated and state == MessageState.COMPLETE and bool(self._texts[side].strip())

    def _append(self, side: Side, content: str) -> tuple[StoredConversation, StoredMessage]:
        contestant = self._book.sides(self.battle)[side]
        tree = self._book.tree(self.battle, side)
        path = tree.path()
        user = tree.append(path[-1].id if path else None, "user", content, now=_now())
        chat = StoredConversation(
            tree.conversation_id,
            self.battle.owner_id,
            "",
            user.id,
            is_pinned=False,
            created_at=user.created_at,
            updated_at=user.created_at,
            system=contestant.system,
            model=contestant.model,
            settings=contestant.sampling,
            battle_id=self.battle.id,
        )
        return chat, user

    async def _grow(self, side: Side, text: str) -> None:
        if not text:
            return
        self._texts[side] += text
        if self._begun == set(SIDES):
            self._show(side)
        else:
            await self._begin_if_both()

    def _show(self, side: Side) -> None:
        """Tell the text that readers have not got yet."""
        new = self._texts[side][len(self.shown[side]) :]
        if new:
            self.shown[side] = self._texts[side]
            self.feed.add(BattleEvent(kind="delta", side=side, text=new))

    async def _begin_if_both(self) -> None:
        """Once both sides have text (on a later turn: or have failed) show both, and let the visitor vote."""
        async with self._opening:
            has_text = {side for side in SIDES if self._texts[side].strip()}
            may_begin = has_text | self._failed == set(SIDES) and not (self._failed and self.battle.turn == 1)
            if not may_begin or self._begun == set(SIDES):
                return
            self.battle = await asyncio.to_thread(self._book.open_voting, self.battle.id, now=_now())
            for side in SIDES:
                if side not in self._begun | self._failed:
                    self.feed.add(BattleEvent(kind="began", side=side))
                self._begun.add(side)
                self._show(side)
            self._both_begun.set()
            if self.battle.state == "votable":
                self.feed.add(BattleEvent(kind="votable", token=self.battle.token))

    def _fail(self) -> None:
        """A first turn that gave no two answers is the end of the battle."""
        if self._book.get(self.battle.id).state != "voted":
            self.battle = self._book.flag(self.battle.id, "failed", now=_now(), state="failed")


def _now() -> datetime:
    return datetime.now(UTC)
