"""`chaku chat` as a person at a terminal meets it: a conversation."""

import contextlib
import json
import os
import pty
import select
import stat
import sys

import pytest

from chaku.cli.terminal.repl import _typing_waits
from fake_openai import answer, refusal
from processes import CHAKU, PATIENCE_S
from terminal import Terminal


@pytest.fixture
def repl(server, env):
    with contextlib.ExitStack() as ends:

        def start(*arguments, **size):
            terminal = Terminal([*CHAKU, "chat", "--base-url", server.base_url, *arguments], env, **size)
            ends.callback(terminal.close)
            terminal.expect("/help")
            terminal.expect("›")
            return terminal

        yield start


def test_a_conversation_is_continued_and_a_file_goes_with_the_first_message(repl, server, tmp_path):
    (tmp_path / "note.txt").write_text("a note\n")
    terminal = repl()
    terminal.send("first\r")
    terminal.expect("Hello there.")
    terminal.expect("›")
    terminal.send("exit\r")
    assert terminal.wait() == 0
    terminal = repl("-c", "-f", str(tmp_path / "note.txt"))
    for message in ("second", "third"):
        terminal.send(f"{message}\r")
        terminal.expect("Hello there.")
        terminal.expect("›")
    said = [message["content"] for message in server.bodies[2]["messages"] if message["role"] == "user"]
    assert said == ["first", "second\n\nnote.txt:\n```txt\na note\n```", "third"]


def test_a_refused_command_does_not_stay_in_the_input_line(repl, server):
    terminal = repl()
    terminal.send("/foo\r")
    terminal.expect("there is no command /foo")
    terminal.expect("›")
    terminal.send("hello\r")
    terminal.expect("Hello there.")
    assert server.bodies[0]["messages"][-1]["content"] == "hello"


def test_a_conversation_goes_on_and_ctrl_d_leaves(repl, server):
    terminal = repl()
    terminal.send("first\r")
    terminal.expect("Hello there.")
    terminal.expect("›")
    terminal.send("second\r")
    terminal.expect("Hello there.")
    terminal.expect("›")
    terminal.send("\x04")
    assert terminal.wait() == 0
    assert [message["content"] for message in server.bodies[1]["messages"]] == ["first", "Hello there.", "second"]


def test_ctrl_c_stops_the_answer_and_keeps_what_came(repl, server, tmp_path):
    server.script.append(answer("The beginning. ", *["word "] * 500, delay_s=0.05))
    terminal = repl()
    terminal.send("go\r")
    terminal.expect("word")
    terminal.send("\x03")
    terminal.expect("stopped")
    assert server.aborted.wait(PATIENCE_S)
    terminal.expect("›")
    terminal.send(f"/save {tmp_path}/talk.jsonl\r")
    terminal.expect("Saved 2 messages")
    (conversation,) = map(json.loads, (tmp_path / "talk.jsonl").read_text().splitlines())
    last = conversation["messages"][-1]
    assert last["stopped"] is True
    assert last["content"].startswith("The beginning. word ")
    terminal.send("and then?\r")
    terminal.expect("Hello there.")
    assert "stopped" not in server.bodies[1]["messages"][1], "a note is not sent to the model"


def test_ctrl_c_twice_on_an_empty_line_leaves(repl):
    terminal = repl()
    terminal.send("half a thought\x03")
    terminal.expect("›")
    terminal.send("\x03")
    terminal.expect("Ctrl-C again")
    terminal.expect("›")
    terminal.send("\x03")
    assert terminal.wait() == 0


def test_ctrl_c_between_two_prompts_waits_for_the_next(monkeypatch):
    """It would end the program, which then looks as if it had ended by itself."""
    keyboard, screen = pty.openpty()
    with os.fdopen(screen, "rb", buffering=0) as tty:
        monkeypatch.setattr(sys, "stdin", tty)
        with _typing_waits():
            os.write(keyboard, b"\x03")
            assert select.select([tty], [], [], 5)[0] and tty.read(1) == b"\x03"
    os.close(keyboard)


@pytest.mark.parametrize(
    "typed",
    ["one\x1b\rtwo\r", "\x1b[200~one\ntwo\x1b[201~\r", '"""one\rtwo"""\r'],
    ids=["alt-enter", "paste", "quotes"],
)
def test_a_message_may_have_several_lines(repl, server, typed):
    terminal = repl()
    terminal.send(typed)
    terminal.expect("Hello there.")
    assert server.bodies[0]["messages"][-1]["content"] == "one\ntwo"


def test_the_history_is_kept_for_the_next_time_and_private(repl, server, tmp_path):
    terminal = repl()
    terminal.send("remember me\r")
    terminal.expect("Hello there.")
    terminal.expect("›")
    terminal.send("\x04")
    assert terminal.wait() == 0
    again = repl()
    again.send("\x1b[A")  # up
    again.expect("remember me")
    again.send("\r")
    again.expect("Hello there.")
    assert [body["messages"][-1]["content"] for body in server.bodies] == ["remember me"] * 2
    assert stat.S_IMODE((tmp_path / "data" / "chat-history").stat().st_mode) == 0o600


def test_an_error_keeps_the_program_and_the_message(repl, server):
    server.script.append(refusal(400, "the prompt is too long", code="context_length_exceeded"))
    terminal = repl()
    terminal.send("my long message\r")
    terminal.expect("error: the prompt is too long")
    terminal.expect("fix: shorten it")
    terminal.expect("my long message")  # back in the input line
    terminal.send(", shortened\r")
    terminal.expect("Hello there.")
    assert [len(body["messages"]) for body in server.bodies] == [1, 1]
    assert server.bodies[1]["messages"][0]["content"] == "my long message, shortened"


def test_regen_asks_again_and_undo_and_edit_take_back(repl, server):
    terminal = repl()
    terminal.send("question\r")
    terminal.expect("Hello there.")
    terminal.expect("›")
    terminal.send("/set temperature 0.5\r")
    terminal.expect("temperature is 0.5.")
    terminal.send("/regen\r")
    terminal.expect("Hello there.")
    terminal.expect("›")
    assert [body.get("temperature") for body in server.bodies] == [None, 0.5]
    assert server.bodies[0]["messages"] == server.bodies[1]["messages"]
    terminal.send("/edit\r")
    terminal.expect("question")
    terminal.send("!\r")
    terminal.expect("Hello there.")
    assert server.bodies[2]["messages"] == [{"role": "user", "content": "question!"}]


def test_what_is_typed_during_an_answer_waits_for_the_prompt(repl, server):
    server.script.append(answer("slow", *["."] * 20, delay_s=0.05))
    terminal = repl()
    terminal.send("first\r")
    terminal.expect("slow")
    terminal.send("second\r")
    terminal.expect("Hello there.")
    assert server.bodies[1]["messages"][-1]["content"] == "second"


def test_commands_models_and_settings_are_completed(repl, server):
    server.models = ["fake", "other-model"]
    terminal = repl()
    terminal.send("/mod\t")
    terminal.expect("el")
    terminal.send(" other\t")
    terminal.expect("-model")
    terminal.send("\r")
    terminal.expect("other-model answers from now on")
    terminal.send("/set top_\t")
    terminal.expect("top_k")
    terminal.send("\x15")
    terminal.send("/modle\r")
    terminal.expect("did you mean /model?")


def test_what_a_model_writes_can_not_steer_the_terminal(repl, server):
    server.reply = ["before \x1b]0;title\x07\x1b[2J after", "\n\n```\n\x1b[31mred\n```\n"]
    terminal = repl()
    terminal.send("go\r")
    terminal.expect("after")
    terminal.expect("red")
    terminal.expect("›")
    assert b"\x1b]0;title" not in terminal.raw
    assert b"\x1b[2J" not in terminal.raw and b"\x1b[31mred" not in terminal.raw


def test_colours_are_off_when_asked(server, env):
    server.reply = ["# Head\n\n```python\nx = 'text'\n```\n"]
    terminal = Terminal([*CHAKU, "--no-color", "chat", "--base-url", server.base_url, "hello"], env)
    try:
        assert terminal.wait() == 0
        assert "x = 'text'" in terminal.text
        assert not [code for code in ("\x1b[31m", "\x1b[32m", "\x1b[36m") if code in terminal.raw.decode()]
    finally:
        terminal.close()
