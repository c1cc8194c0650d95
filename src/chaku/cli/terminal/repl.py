"""The conversation: a prompt, an answer, again. Ctrl-C stops the answer, not the program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth
from rich.console import Console
from rich.text import Text

from chaku import __version__
from chaku.cli.terminal import commands
from chaku.cli.terminal.answer import ShownAnswer, ask, with_way_out
from chaku.cli.terminal.attached import Attached, check_sees, dropped_images, read_image
from chaku.cli.terminal.commands import COMMANDS, ChatSession
from chaku.cli.terminal.markdown import clean
from chaku.cli.terminal.one_shot import why_it_ended
from chaku.cli.terminal.recommended import recommended
from chaku.cli.terminal.settings import SETTINGS, Value
from chaku.cli.terminal.transcript import Transcript
from chaku.cli.terminal.view import view_for
from chaku.client import Client
from chaku.config import data_dir
from chaku.errors import ChakuError

BLOCK = '"""'


class Repl:
    """One conversation with a person at a terminal, who may change everything about it on the way."""

    def __init__(
        self,
        client: Client,
        model: str,
        rows: dict[str, dict[str, Any]],
        transcript: Transcript,
        sampling: dict[str, Value],
        console: Console,
        *,
        raw: bool = False,
        keep: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._session = ChatSession(transcript, model, list(rows), sampling)
        self._session.rows = rows
        self._session.suits = {name: recommended(row) for name, row in rows.items()}
        self._console = console
        self._raw = raw
        self._keep_for_next_time = keep
        self._attached = ""
        self._prompt = _prompt_session(self._session, color=not console.no_color)

    async def run(self, attached: Attached) -> None:
        """Talk until the person leaves. `attached` goes with their first message."""
        self._attached = attached.text
        self._session.images = list(attached.images)
        with _typing_waits():
            await self._talk()

    async def _talk(self) -> None:
        others = len(self._session.models) - 1
        also = f" ({others} more: /model)" if others > 0 else ""
        self._say(f"chaku {__version__} · {self._session.model}{also} at {self._client.base_url} · /help")
        if shown := self._session.model_suits.shown(self._session.sampling):
            self._say(f"{shown} (/set, /system)")
        if messages := self._session.transcript.num_turns:
            self._say(f"continued after {messages} message{'s' * (messages > 1)} of yours")
        if names := Attached(self._attached, tuple(self._session.images)).names:
            self._say(f"{names} goes with your first message")
        prefill = ""
        interrupted = False
        while True:
            try:
                typed = await self._prompt.prompt_async(default=prefill)
            except EOFError:
                return
            except KeyboardInterrupt:
                if interrupted:
                    return
                interrupted = not self._prompt.default_buffer.text
                if interrupted:
                    self._say("Ctrl-C again, or Ctrl-D, leaves.")
                prefill = ""
                continue
            interrupted = False
            outcome = await self._take(typed)
            if outcome.leave:
                return
            prefill = outcome.prefill

    async def _take(self, typed: str) -> commands.Outcome:
        """Do what was typed. A command that is refused is shown with its reason."""
        if not typed.strip():
            return commands.Outcome()
        if typed.strip().lower() in ("exit", "quit"):
            return commands.Outcome(leave=True)
        try:
            if dropped := dropped_images(typed):
                self._say(self._session.attach([read_image(path) for path in dropped]))
                return commands.Outcome()
            if not typed.startswith("/"):
                return await self._send(typed)
            outcome = commands.run(self._session, typed)
        except ChakuError as failure:
            self._tell(failure)
            return commands.Outcome()  # the arrow up brings it back
        if outcome.text:
            self._say(outcome.text)
        return await self._answer() if outcome.ask else outcome

    async def _send(self, typed: str) -> commands.Outcome:
        """Ask, with what waits for this message. Raises UsageError where the model can't see an image of it."""
        session = self._session
        if session.images:
            check_sees(session.model, session.rows.get(session.model, {}))
        message, self._attached = "\n\n".join(filter(None, (_without_quotes(typed), self._attached))), ""
        session.transcript.say(message, [image.url for image in session.images])
        session.images = []
        return await self._answer()

    async def _answer(self) -> commands.Outcome:
        session, answer = self._session, ShownAnswer()
        view = view_for(self._console, raw=self._raw)
        self._console.print()
        asking = asyncio.create_task(
            ask(self._client, session.transcript, session.model, session.to_sample, view, answer)
        )
        try:
            async with _interrupt_cancels(asking):
                await asyncio.wait([asking])
        finally:
            asking.cancel()
        stopped = asking.cancelled()
        if not stopped and isinstance(failure := asking.exception(), ChakuError):
            self._tell(await with_way_out(failure, self._client, session.model))
            return commands.Outcome(prefill=session.take_back() or "")
        if not stopped:
            asking.result()
        session.count(answer)
        return self._keep(answer, stopped=stopped)

    def _keep(self, answer: ShownAnswer, *, stopped: bool) -> commands.Outcome:
        transcript = self._session.transcript
        if stopped and not answer.text:
            self._say("stopped before the answer began; your message is back in the input line")
            return commands.Outcome(prefill=self._session.take_back() or "")
        transcript.answer(answer.text, reasoning=answer.reasoning, stopped=stopped)
        self._keep_for_next_time()
        if stopped:
            self._say("stopped")
        elif answer.tool_calls:
            self._say("".join(f"calls {call['name']}({call['arguments']})\n" for call in answer.tool_calls.values()))
        elif answer.finish_reason != "stop":
            self._say(why_it_ended(answer))
        self._console.print()
        return commands.Outcome()

    def _say(self, text: str) -> None:
        self._console.print(Text(clean(text), style="dim"), highlight=False)

    def _tell(self, failure: ChakuError) -> None:
        self._console.print(Text.assemble(("error:", "bold red"), " ", clean(failure.message)))
        if failure.fix:
            self._console.print(Text.assemble(("  fix:", "bold green"), " ", clean(failure.fix)))


@contextlib.asynccontextmanager
async def _interrupt_cancels(task: asyncio.Task[Any]) -> AsyncIterator[None]:
    """Ctrl-C cancels `task`."""
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        with _terminal_flags(local_on=termios.ISIG):
            yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _typing_waits() -> Iterator[None]:
    """What is typed while no prompt is there is not echoed into the answer, and reaches the next prompt key by key.

    So does Ctrl-C, but while an answer is written: it would end the program between two prompts.
    """
    # Enter stays Enter; a line feed would be Ctrl-J.
    with _terminal_flags(input_off=termios.ICRNL, local_off=termios.ECHO | termios.ICANON | termios.ISIG):
        yield


@contextlib.contextmanager
def _terminal_flags(*, input_off: int = 0, local_off: int = 0, local_on: int = 0) -> Iterator[None]:
    """Standard input with these of its input and local flags (termios) on or off, then as it was."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    flags = [before[0] & ~input_off, *before[1:3], before[3] & ~local_off | local_on, *before[4:]]
    termios.tcsetattr(descriptor, termios.TCSADRAIN, flags)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _without_quotes(typed: str) -> str:
    text = typed.strip()
    if text.startswith(BLOCK) and text.endswith(BLOCK) and len(text) >= 2 * len(BLOCK):
        return text.removeprefix(BLOCK).removesuffix(BLOCK).strip("\n")
    return text


def _in_block(text: str) -> bool:
    return text.lstrip().startswith(BLOCK) and text.count(BLOCK) % 2 == 1


def _prompt_session(session: ChatSession, *, color: bool) -> PromptSession[str]:
    history = data_dir() / "chat-history"
    history.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(history, os.O_CREAT | os.O_WRONLY, 0o600))  # what one asks is nobody else's business
    return PromptSession(
        HTML("<b>›</b> ") if color else "› ",
        history=FileHistory(str(history)),
        completer=_Words(session),
        complete_while_typing=False,
        multiline=True,
        key_bindings=_keys(),
        prompt_continuation="  ",
        color_depth=None if color else ColorDepth.DEPTH_1_BIT,
    )


def _keys() -> KeyBindings:
    """Enter sends, unless a block of quotes is open; Alt-Enter (that is, Esc and Enter) and Ctrl-J begin a new line."""
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None
        elif _in_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class _Words(Completer):
    """Completes commands, and what they take: models, settings, files."""

    def __init__(self, session: ChatSession) -> None:
        self._session = session
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Nothing for plain messages."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, rest = text.partition(" ")
        if not space:
            for known, command in COMMANDS.items():
                if known.startswith(name):
                    yield Completion(known, -len(name), display_meta=command.meaning)
        elif name in COMMANDS and COMMANDS[name].complete_paths:
            path = rest.removeprefix("-f ").lstrip()
            yield from self._paths.get_completions(Document(path), complete_event)
        else:
            known_words = {"/model": self._session.models, "/set": list(SETTINGS)}.get(name, [])
            yield from (Completion(word, -len(rest)) for word in known_words if word.startswith(rest))
