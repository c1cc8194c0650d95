"""`chaku compare`: several models asked at once, in a pipe, on terminals of two widths, and as JSON."""

import json
import sys

import pytest

from chaku.cli.terminal import endpoint
from fake_openai import FakeServer, answer, refusal
from in_process import run_here
from processes import CHAKU
from terminal import Terminal


@pytest.fixture
def both():
    """A server with two models: the first one is slow, and answers with its name."""

    class Server(FakeServer):
        async def _chat(self, request):
            body = await request.json()
            self.requests.append((request.path, dict(request.headers), body))
            if body["model"] == "broken":
                return await refusal(500, "out of memory")(request, self)
            slow = body["model"] == "slow-model"
            return await answer(*(["late ", "words"] if slow else ["**early**"]), delay_s=0.1 * slow)(request, self)

    server = Server()
    server.models = ["slow-model", "quick-model", "broken"]
    with server.running() as running:
        yield running


@pytest.fixture
def compare(both, env):
    def run(*arguments, piped=""):
        return run_here("compare", "--base-url", both.base_url, *arguments, env=env, piped=piped)

    return run


SLOW_FIRST = ("-m", "slow-model", "-m", "quick-model")


def test_a_pipe_gets_the_answers_in_the_order_of_the_models(compare, both):
    done = compare(*SLOW_FIRST, "-s", "Be brief.", "--temperature", "0", "hello")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.split("\n\n")
    assert first.startswith("slow-model · ") and first.endswith("\nlate words")
    assert second.startswith("quick-model · ") and second.endswith("\n**early**\n")
    assert [body["messages"] for body in both.bodies] == [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    ] * 2
    assert {body["temperature"] for body in both.bodies} == {0.0}


def test_json_has_every_answer_and_a_failure_is_an_error_with_its_exit_code(compare):
    done = compare("-m", "broken", "-m", "quick-model", "--json", piped="hello")
    report = json.loads(done.stdout)
    broken, quick = report["answers"]
    assert (report["prompt"], quick["answer"], quick["error"]) == ("hello", "**early**", None)
    assert (broken["answer"], broken["model"]) == ("", "broken")
    assert "out of memory" in broken["error"]["message"]
    assert done.returncode != 0


def test_a_failed_model_leaves_the_others_shown(compare):
    done = compare("-m", "broken", "-m", "quick-model", "hello")
    assert "**early**" in done.stdout
    assert "out of memory" in done.stderr
    assert "out of memory" not in done.stdout
    assert done.returncode != 0


@pytest.mark.parametrize("models", [("-m", "a"), ("-m", "a") * 5, ()])
def test_two_to_four_models_are_compared(compare, models):
    done = compare(*models, "hello")
    assert done.returncode == 2
    assert "takes 2 to 4 models" in done.stderr


@pytest.mark.parametrize(("width", "is_beside"), [(100, True), (60, False)])
def test_a_wide_terminal_shows_columns_and_a_narrow_one_does_not(both, env, width, is_beside):
    terminal = Terminal([*CHAKU, "compare", "--base-url", both.base_url, *SLOW_FIRST, "hello"], env, columns=width)
    try:
        assert terminal.wait() == 0
        lines = [line.rstrip() for line in terminal.text.splitlines()]
        assert any("late words" in line and "early" in line for line in lines) == is_beside
        titles = [line for line in lines if "slow-model · " in line]
        assert ("quick-model" in titles[-1]) == is_beside
        assert "**" not in terminal.text
    finally:
        terminal.close()


async def test_a_server_started_for_it_serves_all_models_under_the_names_it_gives_them(monkeypatch):
    commands = []
    monkeypatch.setattr(endpoint, "serve_command", lambda *args: commands.append(args) or [sys.executable, "-c", ""])
    monkeypatch.setattr(endpoint, "_answers", _no)
    with pytest.raises(endpoint.ChakuError):
        async with endpoint.choose(None, None, "runs/a", beside=["b"]):
            pass
    assert commands[0][1:] == ("runs/a", "b")


async def _no(url, *, ready=False):
    return False
