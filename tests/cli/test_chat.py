"""`chaku chat` as a person and as a pipe meets it."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaku.cli.terminal import endpoint
from chaku.errors import ModelError, NotFound
from fake_openai import answer, chunk, pieces, refusal, sse
from in_process import run_here
from processes import PATIENCE_S, environment, heed_ctrl_c
from terminal import Terminal

CHAKU = [sys.executable, "-m", "chaku"]


@pytest.fixture
def env(tmp_path):
    return environment(CHAKU_DATA=str(tmp_path / "data"))


@pytest.fixture
def ask(server, env):
    def run(*arguments, piped="", **more):
        return run_here("chat", "--base-url", server.base_url, *arguments, env={**env, **more}, piped=piped)

    return run


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


# One question


def test_an_answer_in_a_pipe_is_plain_text(server, env):
    server.reply = ["# Hi\n\n**bold**", " `code`"]
    words = ["--base-url", server.base_url, "hello", "-s", "Be brief.", "--temperature", "0", "--max-tokens", "9"]
    done = subprocess.run([*CHAKU, "chat", *words], input="", capture_output=True, text=True, env=env, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "# Hi\n\n**bold** `code`\n", "")
    (body,) = server.bodies
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("fake", 0.0, 9)


def test_what_is_piped_in_forms_the_prompt(ask, server):
    ask(piped="print(1)\n")
    ask("Explain:", piped="print(1)\n")
    assert [body["messages"][-1]["content"] for body in server.bodies] == ["print(1)", "Explain:\n\nprint(1)"]


def test_json_carries_answer_usage_and_timings(ask, server):
    server.script.append(answer("one", "two", reasoning=["hm"], delay_s=0.01))
    report = json.loads(ask("--json", "hello").stdout)
    assert (report["answer"], report["reasoning"], report["finish_reason"]) == ("onetwo", "hm", "stop")
    assert report["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "cached_tokens": 0}
    assert 0 < report["timings"]["first_token_s"] < report["timings"]["total_s"]
    assert report["timings"]["tokens_per_s"] > 0


def test_an_answer_cut_by_the_limit_says_so_beside_the_answer(ask, server):
    server.script.append(answer("half", finish_reason="length"))
    done = ask("hello")
    assert done.stdout == "half\n"
    assert "cut at the token limit" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "respond", "code", "cause", "fix"),
    [
        (["--temperature", "3", "hi"], None, 2, "temperature is 3, out of range", "0 to 2"),
        (["--max-tokens", "many", "hi"], None, 2, "max_tokens is 'many', not a whole number", "1 or more"),
        ([], None, 2, "nothing to ask", ""),
        (["hi"], refusal(401, "wrong key", code="invalid_api_key"), 1, "wrong key", "--api-key"),
        (["-m", "fak", "hi"], refusal(404, "no model fak", code="model_not_found"), 1, "no model fak", "mean fake?"),
        (["-m", "x", "hi"], refusal(404, "no model x", code="model_not_found"), 1, "no model x", "models here: fake"),
        (["hi"], refusal(400, "9 > 8 tokens", code="context_length_exceeded"), 1, "9 > 8 tokens", "shorten it"),
    ],
)
def test_an_error_is_one_line_and_a_way_out(ask, server, arguments, respond, code, cause, fix):
    if respond:
        server.script.append(respond)
    done = ask(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    error, *rest = done.stderr.splitlines()
    assert error.startswith("error: ") and cause in error
    assert (rest[0].startswith("  fix: ") and fix in rest[0] and len(rest) == 1) if fix else not rest


def test_a_server_that_lists_its_models_to_nobody_asks_for_the_key(ask, server):
    server.key = "right"
    done = ask("hello")
    assert done.stderr.splitlines()[0] == "error: wrong key"
    assert "--api-key" in done.stderr
    assert ask("hello", "--api-key", "right").stdout == "Hello there.\n"


def test_a_broken_answer_is_shown_and_fails(ask, server):
    server.script.append(pieces(sse(chunk({"content": "half an"}))))
    done = ask("hello")
    assert (done.returncode, done.stdout) == (1, "half an\n")
    assert done.stderr.startswith("error: ") and "broke off its answer" in done.stderr


def test_the_key_of_the_environment_goes_to_the_configured_address(ask, server, env):
    ask("hello", OPENAI_API_KEY="from-env")
    ask("hello", "--api-key", "from-flag", OPENAI_API_KEY="from-env")
    run_here("chat", "hello", env={**env, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "from-env"})
    keys = [headers.get("Authorization") for path, headers, _ in server.requests if path.endswith("completions")]
    assert keys == ["Bearer from-env", "Bearer from-flag", "Bearer from-env"]


def test_a_reader_that_leaves_is_no_error(server, env):
    server.reply = ["line\n"] * 20_000
    command = " ".join([*CHAKU, "chat", "--base-url", server.base_url, "hello"])
    done = subprocess.run(f"{command} </dev/null | head -1", shell=True, capture_output=True, text=True, env=env)
    assert (done.stdout, done.stderr) == ("line\n", "")


def test_ctrl_c_in_a_pipe_ends_with_130_and_without_a_traceback(server, env):
    server.script.append(answer(*["word "] * 50_000, delay_s=0.02))
    process = subprocess.Popen(
        [*CHAKU, "chat", "--base-url", server.base_url, "hello"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    with process:
        try:
            assert process.stdout.read(5) == "word "
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, stderr.strip()) == (130, "")
    assert server.aborted.wait(PATIENCE_S)


def test_a_file_goes_into_the_message_below_the_prompt(ask, server, tmp_path):
    (tmp_path / "f.py").write_text("print('```')\n")
    assert ask("-f", str(tmp_path / "f.py"), "explain").returncode == 0
    assert server.bodies[0]["messages"][-1]["content"] == "explain\n\nf.py:\n````py\nprint('```')\n````"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_can_not_be_read_as_text_is_refused(ask, server, tmp_path, content):
    if content is not None:
        (tmp_path / "f.bin").write_bytes(content)
    done = ask("-f", str(tmp_path / "f.bin"), "explain")
    assert (done.returncode, server.bodies) == (2, [])
    assert "f.bin" in done.stderr and "  fix: " in done.stderr


def test_the_last_conversation_is_continued(ask, server, env):
    assert ask("first", "-s", "Be brief.").returncode == 0
    assert ask("-c", "second").returncode == 0
    contents = [message["content"] for message in server.bodies[1]["messages"]]
    assert contents == ["Be brief.", "first", "Hello there.", "second"]
    kept = Path(env["CHAKU_DATA"]) / "last-chat.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_continued_conversation_keeps_its_server_and_model(ask, server, env):
    assert ask("first", "-m", "alpha").returncode == 0
    done = run_here("chat", "-c", "second", env=env)
    assert (done.returncode, len(server.bodies)) == (0, 2), done.stderr
    assert server.bodies[1]["model"] == "alpha"


def test_nothing_to_continue_is_said(ask, server):
    done = ask("-c", "and then?")
    assert (done.returncode, server.bodies) == (2, [])
    assert "there is no conversation to continue" in done.stderr


def test_a_conversation_that_can_not_be_kept_is_answered_all_the_same(ask, tmp_path):
    (tmp_path / "file").touch()
    done = ask("hello", CHAKU_DATA=str(tmp_path / "file" / "below"))
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert "note: this conversation is not kept for -c" in done.stderr


def test_run_is_chat_with_the_model_first(server, env):
    done = run_here("run", "alpha", "hello", "--base-url", server.base_url, env=env)
    assert (done.returncode, done.stdout) == (0, "Hello there.\n"), done.stderr
    assert server.bodies[0]["model"] == "alpha"


# A conversation


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


# Where it goes


@pytest.fixture
def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def fake_serve(monkeypatch, tmp_path, free_port):
    """No gateway on the usual port, and a `chaku serve` that writes its pid."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    fake, pid_file = Path(__file__).parent.parent / "fake_serve.py", tmp_path / "pid"
    real = endpoint.serve_command
    monkeypatch.setattr(endpoint, "DEFAULT_PORT", free_port)
    monkeypatch.setattr(
        endpoint, "serve_command", lambda *args: [sys.executable, str(fake), str(pid_file), *real(*args)[3:]]
    )
    return pid_file


def is_running(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def test_without_an_endpoint_the_built_in_model_is_started_and_ended(fake_serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "must stay here")
    async with endpoint.choose(None, None, None) as chosen:
        assert (chosen.model, chosen.api_key) == ("smollm2-135m", "session-key")
        pid = int(fake_serve.read_text())
        assert is_running(pid)
    assert not is_running(pid)


async def test_a_model_may_be_anything_that_serve_takes(fake_serve):
    async with endpoint.choose(None, None, "some/path.gguf") as chosen:
        assert chosen.model == "some/path.gguf"


async def test_a_child_that_fails_is_quoted(fake_serve):
    with pytest.raises(ModelError, match="there is no model 'missing'") as raised:
        async with endpoint.choose(None, None, "missing"):
            pass
    assert raised.value.fix == "`chaku models` lists them"


async def test_a_gateway_here_is_used_without_the_key_of_the_environment(server, fake_serve, monkeypatch):
    monkeypatch.setattr(endpoint, "DEFAULT_PORT", server.port)
    monkeypatch.setenv("OPENAI_API_KEY", "must stay here")
    async with endpoint.choose(None, None, None) as chosen:
        assert chosen == endpoint.ChatEndpoint(server.base_url, None, None)
    with pytest.raises(NotFound) as raised:
        async with endpoint.choose(None, None, "fakee"):
            pass
    assert raised.value.fix == "did you mean fake?"
    assert not fake_serve.exists()


async def test_a_gateway_here_gets_a_key_of_chaku_from_the_environment(server, fake_serve, monkeypatch):
    monkeypatch.setattr(endpoint, "DEFAULT_PORT", server.port)
    monkeypatch.setenv("OPENAI_API_KEY", "ck-mine")
    async with endpoint.choose(None, None, None) as chosen:
        assert chosen == endpoint.ChatEndpoint(server.base_url, "ck-mine", None)
    async with endpoint.choose(None, "ck-given", None) as chosen:
        assert chosen.api_key == "ck-given"


async def test_a_model_the_gateway_lacks_is_started(server, fake_serve, monkeypatch):
    monkeypatch.setattr(endpoint, "DEFAULT_PORT", server.port)
    async with endpoint.choose(None, None, "smollm2-135m") as chosen:
        assert chosen.model == "smollm2-135m"
        assert chosen.base_url != server.base_url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_chat_that_is_ended_ends_its_child(number, tmp_path, free_port, env):
    fake = Path(__file__).parent.parent / "fake_serve.py"
    code = f"""if True:
        import sys, chaku.cli.terminal.endpoint as endpoint
        real = endpoint.serve_command
        endpoint.DEFAULT_PORT = {free_port}
        fake = [sys.executable, {str(fake)!r}, {str(tmp_path / "pid")!r}]
        endpoint.serve_command = lambda *args: [*fake, *real(*args)[3:]]
        from chaku.cli.main import main
        main(["chat"])"""
    terminal = Terminal([sys.executable, "-c", code], env)
    try:
        terminal.expect("smollm2-135m at http://127.0.0.1")
        terminal.expect("›")
        pid = int((tmp_path / "pid").read_text())
        assert is_running(pid)
        if number == signal.SIGINT:
            terminal.send("\x03\x03")
        else:
            terminal.process.send_signal(number)
        assert terminal.wait() == (0 if number == signal.SIGINT else 128 + number)
        deadline = time.monotonic() + PATIENCE_S
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(pid)
    finally:
        terminal.close()
