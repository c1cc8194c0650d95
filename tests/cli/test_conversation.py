"""Transcript, settings and slash commands, without a terminal."""

import json
import stat

import pytest

from chaku.cli.terminal.answer import ShownAnswer
from chaku.cli.terminal.commands import COMMANDS, ChatSession, run
from chaku.cli.terminal.recommended import Suits, recommended
from chaku.cli.terminal.settings import SETTINGS, parse
from chaku.cli.terminal.transcript import Transcript, load
from chaku.client import TokenUsage
from chaku.errors import UsageError


@pytest.fixture
def session():
    return ChatSession(Transcript(), "fake", ["fake", "other"], {})


def talked(session):
    session.transcript.system = "Be brief."
    session.transcript.say("hello")
    session.transcript.answer("Hi", reasoning="hm", stopped=True)
    return session


def test_what_is_saved_is_what_is_loaded(session, tmp_path):
    path = tmp_path / "a talk.jsonl"
    run(talked(session), f"/save '{path}'")
    (line,) = map(json.loads, path.read_text().splitlines())
    assert line["messages"] == session.transcript.messages
    assert (line["model"], line["sampling"]) == ("fake", {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = ChatSession(Transcript(), "fake", ["fake"], {})
    run(other, f"/load '{path}'")
    assert other.transcript == session.transcript


def test_nothing_is_overwritten_unless_told(session, tmp_path):
    path = tmp_path / "talk.jsonl"
    path.write_text("precious")
    with pytest.raises(UsageError, match="exists") as raised:
        run(talked(session), f"/save {path}")
    assert path.read_text() == "precious"
    assert raised.value.fix.endswith(f"/save -f {path}")
    run(session, f"/save -f {path}")
    assert len(load(path).messages) == 3


@pytest.mark.parametrize(
    "text",
    [
        '{"messages": [{"role": "user", "content": "x"}]}',
        '{\n "id": 1,\n "messages": [\n {"role": "user", "content": "x"}]}',
        '[{"role": "user", "content": "x"}]',
        '\n{"messages": [{"role": "user", "content": "x"}]}\n\n',
    ],
    ids=["line", "pretty", "list", "empty lines"],
)
def test_messages_are_read_from_jsonl_and_json(tmp_path, text):
    (tmp_path / "file").write_text(text)
    assert load(tmp_path / "file").messages == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{}\nnot json", "line 2: not JSON"),
        ("{}", "no `messages`"),
        ('{"messages": [{"role": "user"}]}', "message 1"),
        ('{"messages": [{"role": "boss", "content": ""}]}', "message 1"),
        ("", "holds 0 conversations"),
        ('{"messages": []}\n{"messages": []}', "holds 2 conversations"),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(tmp_path, text, cause):
    (tmp_path / "file").write_text(text)
    with pytest.raises(UsageError, match=cause):
        load(tmp_path / "file")


def test_one_of_several_conversations_is_chosen_by_number(session, tmp_path):
    lines = [json.dumps({"messages": [{"role": "user", "content": name}]}) for name in "ab"]
    (tmp_path / "file").write_text("\n".join(lines))
    run(session, f"/load {tmp_path}/file 2")
    assert session.transcript.messages[0]["content"] == "b"
    with pytest.raises(UsageError, match="no number 3"):
        run(session, f"/load {tmp_path}/file 3")


def test_notes_are_never_sent(session):
    assert talked(session).transcript.to_send()[-1] == {"role": "assistant", "content": "Hi"}


def test_the_system_prompt_is_set_shown_and_removed(session):
    run(session, "/system Be brief.")
    session.transcript.say("x")
    run(session, "/system Be long.")
    assert [message["content"] for message in session.transcript.messages] == ["Be long.", "x"]
    assert run(session, "/system").text == "Be long."
    run(session, "/system none")
    assert session.transcript.messages == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_keep_to_their_range(session, name):
    setting = SETTINGS[name]
    assert parse(name, f"{setting.low:g}") == setting.low
    for bad in (f"{setting.low - 1:g}", "nan", "much", *([f"{setting.high + 1:g}"] if setting.high else [])):
        with pytest.raises(UsageError, match=name):
            parse(name, bad)
    run(session, f"/set {name} {setting.low:g}")
    assert session.sampling == {name: setting.low}
    run(session, f"/set {name} default")
    assert session.sampling == {}


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("/hepl", "/help"),
        ("/set temprature 1", "temperature"),
        ("/set temp 1", "temperature"),
        ("/model othr", "other"),
        ("/save", "/save talk.jsonl"),
    ],
)
def test_a_slip_is_answered_with_the_nearest_word(session, line, fix):
    with pytest.raises(UsageError) as raised:
        run(session, line)
    assert fix in raised.value.fix


@pytest.mark.parametrize("line", ["/regen", "/undo", "/edit"])
def test_there_must_be_something_to_take_back(session, line):
    with pytest.raises(UsageError, match="nothing"):
        run(session, line)


def test_undo_clear_and_edit_leave_the_rest(session):
    talked(session).transcript.say("more")
    assert run(session, "/edit").prefill == "more"
    assert session.transcript.messages[-1]["content"] == "Hi"
    run(session, "/undo")
    assert [message["role"] for message in session.transcript.messages] == ["system"]
    talked(session)
    run(session, "/clear")
    assert session.transcript.messages == [{"role": "system", "content": "Be brief."}]


def test_tokens_are_counted_over_all_answers(session):
    assert run(session, "/tokens").text == "No answer yet."
    session.count(ShownAnswer(usage=TokenUsage(100, 21), first_token_s=0.5, total_s=2.5))
    session.count(ShownAnswer(usage=TokenUsage(120, 11, cached_tokens=64), first_token_s=0.25, total_s=1.25))
    shown = run(session, "/tokens").text
    for part in ("11 tokens after a prompt of 120, 64 of them cached", "10.0 tokens/s", "after 0.25 s", "1.25 s in all",
                 "32 tokens after prompts of 220"):  # fmt: skip
        assert part in shown
    session.count(ShownAnswer(num_deltas=5))
    assert "5 tokens (counted here" in run(session, "/tokens").text


def test_help_names_every_command(session):
    assert all(name in run(session, "/help").text for name in COMMANDS)


@pytest.mark.parametrize("word", ["/bye", "/exit", "/quit"])
def test_every_word_that_people_type_to_leave_leaves(session, word):
    assert run(session, word).leave


def test_what_the_model_recommends_is_sent_and_shown_until_the_person_sets_something(session):
    session.suits = {"fake": recommended({"recommended": {"temperature": 0.2, "max_tokens": 99, "system": "Be kind."}})}
    assert session.to_sample == {"temperature": 0.2, "max_tokens": 99}
    assert session.model_suits.system == "Be kind."
    assert "temperature is 0.2, the model's" in run(session, "/set temperature").text
    run(session, "/set temperature 1")
    assert session.to_sample["temperature"] == 1
    assert session.model_suits.shown(session.sampling) == "max_tokens 99: the model's"
    assert "0.2, the model's again" in run(session, "/set temperature default").text


@pytest.mark.parametrize(
    "row", [{}, {"recommended": None}, {"recommended": 3}, {"recommended": {"temperature": "hot", "system": 7}}]
)
def test_a_server_that_recommends_nothing_or_nonsense_is_left_alone(row):
    assert recommended(row) == Suits()
