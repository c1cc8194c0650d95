"""`chaku chat` as a pipe meets it: one question, one answer."""

import json
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from fake_openai import answer, chunk, pieces, refusal, sse
from in_process import run_here
from processes import CHAKU, PATIENCE_S, heed_ctrl_c


@pytest.fixture
def ask(server, env):
    def run(*arguments, piped="", **more):
        return run_here("chat", "--base-url", server.base_url, *arguments, env={**env, **more}, piped=piped)

    return run


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
        ([], None, 2, "nothing to ask", "give a prompt"),
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
