"""The slash commands: what they do to a conversation. They know no terminal; they return what to show and do next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaku.cli.terminal import settings
from chaku.cli.terminal.answer import ShownAnswer
from chaku.cli.terminal.attached import AttachedImage, check_sees, read_image
from chaku.cli.terminal.recommended import Suits
from chaku.cli.terminal.transcript import Transcript, load
from chaku.errors import UsageError
from chaku.nearest import did_you_mean


@dataclass
class ChatSession:
    """What the commands work on."""

    transcript: Transcript
    model: str
    models: list[str]
    sampling: dict[str, settings.Value]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the server says of each model."""
    images: list[AttachedImage] = field(default_factory=list)
    """What goes with the next message."""
    suits: dict[str, Suits] = field(default_factory=dict)
    """What the server recommends for each model."""
    last: ShownAnswer | None = None
    num_answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def model_suits(self) -> Suits:
        """What the server recommends for the model in use."""
        return self.suits.get(self.model, Suits())

    @property
    def to_sample(self) -> dict[str, settings.Value]:
        """What is sent: what the model recommends, under what the person has set."""
        return {**self.model_suits.sampling, **self.sampling}

    def value(self, name: str) -> str:
        """A setting's value, and whose it is."""
        if name in self.sampling:
            return str(self.sampling[name])
        theirs = self.model_suits.sampling.get(name)
        return "default" if theirs is None else f"{theirs}, the model's"

    def attach(self, images: Sequence[AttachedImage]) -> str:
        """Let images go with the next message, and say so. Raises UsageError where the model can't see."""
        check_sees(self.model, self.rows.get(self.model, {}))
        self.images += images
        return f"{', '.join(image.name for image in self.images)} goes with your next message; /image none takes it off"

    def take_back(self) -> str | None:
        """Undo the last message. Its images wait for the next one."""
        urls = self.transcript.last_images
        text = self.transcript.undo()
        if text is not None:
            self.images = [AttachedImage("the image of before", url) for url in urls]
        return text

    def count(self, answer: ShownAnswer) -> None:
        """Add an answer to the totals."""
        self.last = answer
        self.num_answers += 1
        self.prompt_tokens += answer.usage.prompt_tokens if answer.usage else 0
        self.completion_tokens += answer.num_tokens


@dataclass(frozen=True)
class Outcome:
    """What follows from a command."""

    text: str = ""
    """To be shown."""
    prefill: str = ""
    """To be put into the input line."""
    ask: bool = False
    """Send the conversation as it now stands."""
    leave: bool = False


@dataclass(frozen=True)
class Command:
    """`arguments` and `meaning` are for /help."""

    run: Callable[[ChatSession, str], Outcome]
    arguments: str
    meaning: str
    complete_paths: bool = field(default=False)


def run(session: ChatSession, line: str) -> Outcome:
    """Run one line that begins with a slash. Raises UsageError, naming the nearest command where there is none."""
    name, _, rest = line.strip().partition(" ")
    name = _ALSO.get(name, name)
    if name not in COMMANDS:
        fix = did_you_mean(name, COMMANDS, "/help lists the commands.")
        raise UsageError(
            f"there is no command {name}", fix=f"{fix} A message that begins with / takes a space before it."
        )
    return COMMANDS[name].run(session, rest.strip())


def _help(session: ChatSession, rest: str) -> Outcome:
    lines = [f"{f'{name} {command.arguments}':22} {command.meaning}" for name, command in COMMANDS.items()]
    keys = [
        "",
        'Enter sends. Alt-Enter, Esc Enter or Ctrl-J begin a new line, and so does Enter after an opening """.',
        "Ctrl-C stops the answer; twice on an empty line, or Ctrl-D, leaves. Up and down go through the history.",
    ]
    return Outcome("\n".join(lines + keys))


def _model(session: ChatSession, rest: str) -> Outcome:
    if not rest:
        return Outcome("\n".join(f"{'*' if name == session.model else ' '} {name}" for name in session.models))
    if rest not in session.models:
        fix = did_you_mean(rest, session.models, f"models here: {', '.join(session.models)}", likeness=0.5)
        raise UsageError(f"there is no model {rest!r} here", fix=fix)
    session.model = rest
    return Outcome(f"{rest} answers from now on; the conversation stays.")


def _system(session: ChatSession, rest: str) -> Outcome:
    if not rest:
        return Outcome(
            session.transcript.system or "There is no system prompt. /system TEXT sets one, /system none removes it."
        )
    session.transcript.system = None if rest == "none" else rest
    return Outcome("System prompt removed." if rest == "none" else "System prompt set.")


def _set(session: ChatSession, rest: str) -> Outcome:
    name, _, text = rest.partition(" ")
    text = text.removeprefix("=").strip()
    if not name:
        rows = [f"{name:20}{session.value(name):20}{setting.range}" for name, setting in settings.SETTINGS.items()]
        rows.append("/set NAME says what one does, /set NAME VALUE changes it.")
        return Outcome("\n".join(rows))
    setting = settings.find(name)
    if not text:
        return Outcome(f"{name} is {session.value(name)}; {setting.range}: {setting.meaning}")
    if text == "default":
        session.sampling.pop(name, None)
        return Outcome(f"{name} is {session.value(name)} again.")
    session.sampling[name] = settings.parse(name, text)
    return Outcome(f"{name} is {session.sampling[name]}.")


def _image(session: ChatSession, rest: str) -> Outcome:
    if rest == "none":
        session.images = []
        return Outcome("No image goes with your next message.")
    if rest:
        check_sees(session.model, session.rows.get(session.model, {}))
        return Outcome(session.attach([read_image(Path(word).expanduser()) for word in _words(rest)]))
    waiting = "\n".join(image.name for image in session.images)
    return Outcome(waiting or "No image goes with your next message. /image FILE attaches one.")


def _regen(session: ChatSession, rest: str) -> Outcome:
    messages = session.transcript.messages
    if not session.transcript.num_turns:
        raise UsageError("there is nothing to answer again", fix="ask something first")
    while messages[-1]["role"] != "user":
        messages.pop()
    return Outcome(ask=True)


def _undo(session: ChatSession, rest: str) -> Outcome:
    text = session.transcript.undo()
    if text is None:
        raise UsageError("there is nothing to take back", fix="ask something first")
    return Outcome(f"Taken back: {_first_words(text)}")


def _edit(session: ChatSession, rest: str) -> Outcome:
    text = session.take_back()
    if text is None:
        raise UsageError("there is nothing to edit", fix="ask something first")
    return Outcome(prefill=text)


def _save(session: ChatSession, rest: str) -> Outcome:
    words = _words(rest)
    overwrite = "-f" in words
    words = [word for word in words if word != "-f"]
    if len(words) != 1:
        raise UsageError("/save takes one file", fix="/save talk.jsonl")
    path = Path(words[0]).expanduser()
    session.transcript.save(path, overwrite=overwrite, model=session.model, sampling=session.sampling)
    return Outcome(f"Saved {len(session.transcript.messages)} messages to {path}.")


def _load(session: ChatSession, rest: str) -> Outcome:
    words = _words(rest)
    if not 1 <= len(words) <= 2 or (len(words) == 2 and not words[1].isdigit()):
        raise UsageError("/load takes one file, and perhaps the number of a conversation in it", fix="/load talk.jsonl")
    path = Path(words[0]).expanduser()
    session.transcript.messages = load(path, int(words[1]) if len(words) == 2 else None).messages
    messages = session.transcript.messages
    last = next((message["content"] for message in reversed(messages) if message["role"] != "system"), "")
    return Outcome(f"Loaded {len(messages)} messages from {path}. The last one: {_first_words(str(last))}")


def _tokens(session: ChatSession, rest: str) -> Outcome:
    last = session.last
    if last is None:
        return Outcome("No answer yet.")
    counted = "" if last.usage else " (counted here: the answer was stopped before the server did)"
    lines = [f"last answer   {last.num_tokens} tokens{counted}"]
    if last.usage:
        cached = f", {last.usage.cached_tokens} of them cached" if last.usage.cached_tokens else ""
        lines[0] += f" after a prompt of {last.usage.prompt_tokens}{cached}"
    speed = f"{last.tokens_per_s:.1f} tokens/s" if last.tokens_per_s else "too short for a speed"
    first = f"first token after {last.first_token_s:.2f} s" if last.first_token_s is not None else "no token came"
    lines.append(f"              {speed}, {first}, {last.total_s:.2f} s in all")
    lines.append(f"{'all ' + str(session.num_answers):13} {session.completion_tokens} tokens")
    lines[-1] += f" after prompts of {session.prompt_tokens}"
    return Outcome("\n".join(lines))


def _clear(session: ChatSession, rest: str) -> Outcome:
    system = session.transcript.system
    session.transcript.messages = []
    session.transcript.system = system
    return Outcome("A new conversation; system prompt and settings stay.")


def _quit(session: ChatSession, rest: str) -> Outcome:
    return Outcome(leave=True)


def _words(rest: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise UsageError(f"can't read {rest!r}: {error}", fix="close the quotes") from None


def _first_words(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}…"


_ALSO = {"/bye": "/quit", "/exit": "/quit", "/?": "/help"}
"""What people type from habit."""

COMMANDS = {
    "/help": Command(_help, "", "this list"),
    "/model": Command(_model, "[NAME]", "the models here, or change to one"),
    "/system": Command(_system, "[TEXT]", "the system prompt, or a new one; `none` removes it"),
    "/set": Command(_set, "[NAME [VALUE]]", "the sampling settings, or change one; `default` unsets it"),
    "/image": Command(_image, "FILE…", "attach images to the next message; `none` takes them off", complete_paths=True),
    "/regen": Command(_regen, "", "answer the last message again"),
    "/edit": Command(_edit, "", "take the last message back into the input line"),
    "/undo": Command(_undo, "", "take back the last message and its answer"),
    "/clear": Command(_clear, "", "begin a new conversation"),
    "/save": Command(_save, "[-f] FILE", "save as messages JSONL; -f overwrites", complete_paths=True),
    "/load": Command(_load, "FILE [N]", "go on with a saved conversation (the N-th)", complete_paths=True),
    "/tokens": Command(_tokens, "", "tokens and speed of the last answer, and totals"),
    "/quit": Command(_quit, "", "leave"),
}
