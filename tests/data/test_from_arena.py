"""`chaku data from-arena`: what visitors agreed to give, masked, as conversations and pairs that `data build` reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chaku.cli.data_from_arena import from_arena
from chaku.cli.visitors import visitors
from chaku.data.build import build
from chaku.data.recipe import DataConfig
from chaku.errors import UsageError
from chaku.policies import Limits
from chaku.settings import Contestant
from chaku.store.battles import Battles
from chaku.store.comparisons import ComparisonBook
from chaku.store.conversations import Conversations
from chaku.store.database import Store, open_store
from chaku.store.feedback import FeedbackBook
from chaku.store.guests import Guests
from chaku.store.tree import Tree
from store.test_battles import game

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PAIR = (Contestant(name="ant", model="m"), Contestant(name="bee", model="m"))


@pytest.fixture
def store(database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CHAKU_DATABASE", f"sqlite:///{database}")
    monkeypatch.chdir(tmp_path)
    with open_store(f"sqlite:///{database}") as opened:
        yield opened


def run(*arguments: str) -> Result:
    return CliRunner().invoke(from_arena, arguments)


def lines(name: str, folder: str = "out") -> list[dict[str, Any]]:
    path = Path(folder, f"{name}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def fight(
    store: Store, *, owner: str | None = None, publish: bool = True, choice: str = "b", prompt: str = "Hi",
    systems: tuple[str | None, str | None] = (None, None), **facts: Any,
) -> tuple[Battles, str]:  # fmt: skip
    book = Battles(store, owner)
    pair = tuple(
        contestant.model_copy(update={"system": system}) for contestant, system in zip(PAIR, systems, strict=True)
    )
    battle = book.create(pair, 0.5, publish=publish, per_hour=99, now=NOW)  # type: ignore[arg-type]
    book.begin_turn(battle.id, most=9, now=NOW)
    for side, answer in (("a", "An ant's answer."), ("b", "Write to bee@hive.org, she knows.")):
        tree = book.tree(battle, side)  # type: ignore[arg-type]
        user = tree.append(None, "user", prompt, now=NOW)
        tree.append(user.id, "assistant", answer, now=NOW, model="m")
    battle = book.open_voting(battle.id, now=NOW)
    record = game(NOW, outcome=choice, voter=book.visitor, consent=publish, prompt_id=battle.id, **facts)
    book.vote(battle.id, choice, battle.token, record, now=NOW)  # type: ignore[arg-type]
    return book, battle.id


def chat(store: Store, owner: str | None = None, question: str = "How tall is it?") -> tuple[Tree, str]:
    mine = Conversations(store, owner)
    tree = mine.tree(mine.create("Chat", now=NOW).id)
    return tree, tree.append(None, "user", question, now=NOW).id


def test_a_vote_becomes_a_pair_without_voter_and_personal_data(store):
    fight(store)
    assert run("-o", "out", "--votes").exit_code == 0
    (pair,) = lines("pairs")
    assert pair["prompt"] == [{"role": "user", "content": "Hi"}]
    assert pair["chosen"] == [{"role": "assistant", "content": "Write to [EMAIL], she knows."}]
    assert pair["rejected"] == [{"role": "assistant", "content": "An ant's answer."}]
    assert pair["source"]["chosen_model"] == "bee" and pair["source"]["kind"] == "votes"
    assert "local" not in Path("out/pairs.jsonl").read_text() and not lines("conversations")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"publish": False}, "no consent"),
        ({"choice": "tie"}, "neither answer was preferred"),
        ({"counted": False, "reason": "an answer said which model wrote it"}, "the vote does not count"),
        ({"systems": ("Buzz", None)}, "the sides had different system prompts"),
    ],
)
def test_a_vote_that_says_nothing_fair_is_left_out_with_its_reason(store, facts, reason):
    fight(store, **facts)
    with pytest.raises(UsageError, match=f"{reason}: 1"):
        raise run("-o", "out").exception  # type: ignore[misc]
    assert not Path("out").exists()


def test_an_undone_vote_and_an_excluded_voter_are_not_in_it(store):
    book, battle = fight(store)
    book.undo(battle, now=NOW + timedelta(seconds=1))
    guest = Guests(store, Limits()).create(now=NOW).key
    fight(store, owner=guest.id)
    ComparisonBook(store).exclude("voter", guest.id, "a bot", by="local", now=NOW)
    fight(store, prompt="The one that counts")
    assert run("-o", "out").exit_code == 0
    assert [pair["prompt"][0]["content"] for pair in lines("pairs")] == ["The one that counts"]


def test_thumbs_give_the_good_answer_alone_its_loss_and_a_pair_with_the_bad_one(store):
    tree, first = chat(store)
    earlier = tree.append(first, "assistant", "About so tall.", now=NOW)
    more = tree.append(earlier.id, "user", "In metres?", now=NOW)
    bad = tree.append(more.id, "assistant", "Very.", now=NOW, model="old")
    good = tree.append(more.id, "assistant", "Twelve metres.", now=NOW, model="new")
    book = FeedbackBook(store, None)
    book.give(tree.conversation_id, bad.id, "down", now=NOW, consent=True)
    book.give(tree.conversation_id, good.id, "up", now=NOW, consent=True)
    assert run("-o", "out", "--thumbs").exit_code == 0
    (said,), (pair,) = lines("conversations"), lines("pairs")
    assert [(message["content"], message.get("weight", 1)) for message in said["messages"]] == [
        ("How tall is it?", 1), ("About so tall.", 0), ("In metres?", 1), ("Twelve metres.", 1),
    ]  # fmt: skip
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("Twelve metres.", "Very.")
    assert said["source"]["group"] == pair["source"]["group"] and len(pair["prompt"]) == 3


def test_edits_and_regenerations_need_the_newest_thumb_to_agree(store):
    tree, user = chat(store)
    first = tree.append(user, "assistant", "First try.", now=NOW)
    second = tree.append(user, "assistant", "Second try.", now=NOW)
    more = tree.append(second.id, "user", "Go on", now=NOW)
    weak = tree.append(more.id, "assistant", "Weak.", now=NOW)
    tree.edit(weak.id, "Strong and clear.", now=NOW)
    book = FeedbackBook(store, None)
    assert "no consent: 2" in str(run("-o", "out").exception)
    book.give(tree.conversation_id, first.id, "down", now=NOW, consent=True)
    assert run("-o", "out", "--edits", "--regenerations").exit_code == 0
    found = {
        (pair["source"]["kind"], pair["chosen"][0]["content"], pair["rejected"][0]["content"])
        for pair in lines("pairs")
    }
    assert found == {("edits", "Strong and clear.", "Weak."), ("regenerations", "Second try.", "First try.")}
    assert [said["messages"][-1]["content"] for said in lines("conversations")] == ["Strong and clear."]
    book.give(tree.conversation_id, first.id, "down", now=NOW + timedelta(hours=1), consent=False)
    assert "no consent: 3" in str(run("-o", "again").exception)


def test_what_was_deleted_is_gone(store):
    tree, user = chat(store)
    answer = tree.append(user, "assistant", "An answer.", now=NOW)
    FeedbackBook(store, None).give(tree.conversation_id, answer.id, "up", now=NOW, consent=True)
    Conversations(store, None).delete(tree.conversation_id, now=NOW)
    assert "nothing to train on" in str(run("-o", "out").exception)


def test_deleting_a_visitor_names_the_snapshot_that_holds_the_words(store):
    guest = Guests(store, Limits()).create(now=NOW).key
    other = Guests(store, Limits()).create(now=NOW).key
    tree, user = chat(store, guest.id)
    answer = tree.append(user, "assistant", "An answer.", now=NOW)
    FeedbackBook(store, guest.id).give(tree.conversation_id, answer.id, "up", now=NOW, consent=True)
    assert run("-o", "spring").exit_code == 0
    assert "spring" not in CliRunner().invoke(visitors, ["delete", other.name]).output
    assert "spring" in CliRunner().invoke(visitors, ["delete", guest.name]).output


def test_the_files_build_and_no_prompt_is_in_both_train_and_test(store, tokenizer):
    for number in range(12):
        fight(store, prompt=f"Question {number}: what is a bridge of {number} stones?")
        tree, user = chat(store, question=f"Question {number}: what is a bridge of {number} stones?")
        answer = tree.append(user, "assistant", f"It is a bridge with {number} stones in it.", now=NOW)
        FeedbackBook(store, None).give(tree.conversation_id, answer.id, "up", now=NOW, consent=True)
    assert run("-o", "out").exit_code == 0
    config = DataConfig(
        inputs=(Path("out/conversations.jsonl"), Path("out/pairs.jsonl")), tokenizer=str(tokenizer), context=512,
        test_fraction=0.4, rules={"near_duplicate": "off"},
    )  # fmt: skip
    result = build(config, Path("set"), processes=1)
    assert result.manifest["audit"]["passed"] and not any(entry.get("unused") for entry in result.manifest["inputs"])

    def prompts(part: str) -> set[str]:
        texts = [json.loads(line) for line in Path(f"set/messages/{part}-00000.jsonl").read_text().splitlines()]
        return {(said.get("prompt") or said["messages"])[0]["content"] for said in texts}

    train, test = (prompts(part) | prompts(f"pairs-{part}") for part in ("train", "test"))
    assert len(train | test) == 12 and train and test and not train & test
