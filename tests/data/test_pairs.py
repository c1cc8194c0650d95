"""Preference pairs through the build: both answers or none, never cut, neighbours in a row, audited and previewed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaku.data.build import Built, build
from chaku.data.inspect.audit import audit
from chaku.data.inspect.preview import page, samples
from chaku.data.inspect.story import story
from chaku.data.recipe import DataConfig
from chaku.data.rows.pack import pairs_together
from chaku.data.rows.packed import read_rows

QUESTION = "How deep is it?"


def pair(prompt: str = QUESTION, chosen: str = "It is twelve metres deep.", rejected: str = "I am not sure.") -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def chat(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def built(folder: Path, tokenizer: Path, records: list[dict], **settings: object) -> Built:
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    values = {"inputs": (source,), "tokenizer": str(tokenizer), "context": 256, "test_fraction": 0.0, **settings}
    return build(DataConfig.model_validate(values), folder / "set", processes=1)


def lines(result: Built, part: str) -> list[dict]:
    paths = sorted((result.folder / "messages").glob(f"{part}-0*"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def trained(result: Built, tokenizer: Path, part: str = "pairs-train") -> list[list[str]]:
    """What carries loss in each row's documents. The tokenizer has one token a byte."""
    from chaku.models.tokenizers.tokenizer import load_tokenizer

    spell = load_tokenizer(tokenizer)
    return [
        [spell.decode([int(i) for i, is_on in zip(ids, mask, strict=True) if is_on]) for ids, mask in row.documents()]
        for path in sorted((result.folder / "rows").glob(f"{part}-*.arrow"))
        for row in read_rows(path)
    ]


def test_a_pair_becomes_neighbours_of_one_row_in_which_only_the_answers_carry_loss(tmp_path, tokenizer):
    talk = {
        "prompt": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "And now?"},
        ],
        "chosen": "Now we go on with it.", "rejected": "Now we stop it all.",
    }  # fmt: skip
    result = built(tmp_path, tokenizer, [chat("Who?", "Nobody at all, I think."), pair(), talk])
    found = {tuple(two) for row in trained(result, tokenizer) for two in np.reshape(row, (-1, 2)).tolist()}
    assert found == {
        ("It is twelve metres deep.<|im_end|>", "I am not sure.<|im_end|>"),
        ("Now we go on with it.<|im_end|>", "Now we stop it all.<|im_end|>"),
    }
    assert result.manifest["audit"]["passed"] and result.manifest["audit"]["facts"]["pairs"] == {"train": 2, "test": 0}
    (first, _) = lines(result, "pairs-train")
    assert len(first["group"]) == 16 and first["source"]["file"] == "in" and len(lines(result, "train")) == 1


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        (pair(chosen="long " * 50), "pair_too_long"),
        (pair(rejected="long " * 50), "pair_too_long"),
        (pair(chosen="half " * 20, rejected="half of " * 15), "pair_too_long"),
        (pair(rejected="IT is  twelve metres deep."), None),
        (pair(rejected="It is twelve metres deep."), "bad_message"),
        (pair(rejected="I am ChatGPT, a model made by OpenAI."), None),
        (pair(chosen="I am ChatGPT, a model made by OpenAI."), "identity_claim"),
        (pair(rejected="The card is 4111 1111 1111 1111."), None),
    ],
)
def test_a_pair_is_kept_with_both_answers_or_dropped_for_one_rule(tmp_path, tokenizer, record, rule):
    records = [pair("What else is there?"), record]
    result = built(tmp_path, tokenizer, records, context=200, pack_length=240)
    drops = {name for counts in result.manifest["counts"].values() for name in counts["drops"]}
    assert drops == ({rule} if rule else set())
    assert len(lines(result, "pairs-train")) == sum(map(len, trained(result, tokenizer))) / 2 == (1 if rule else 2)
    assert "4111" not in json.dumps(lines(result, "pairs-train"))


def test_contrary_opinions_stay_and_the_same_one_counts_once(tmp_path, tokenizer):
    contrary = pair(chosen="I am not sure.", rejected="It is twelve metres deep.")
    alone = chat(QUESTION, "It is twelve metres deep.")
    result = built(tmp_path, tokenizer, [pair(), contrary, pair(), alone])
    assert len(lines(result, "pairs-train")) == 2 and len(lines(result, "train")) == 1
    assert result.manifest["counts"]["dedup"]["drops"] == {"exact_duplicate": 1}


def test_a_set_of_pairs_alone_is_built_without_a_tokenizer_too(tmp_path, tokenizer, monkeypatch):
    from chaku.data.rows import rendering
    from chaku.errors import ModelError

    def missing(_: object) -> None:
        raise ModelError("no tokenizer here")

    monkeypatch.setattr(rendering, "rendering_of", missing)
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(pair()) + "\n")
    result = build(DataConfig(inputs=(source,)), tmp_path / "set", processes=1)
    assert len(lines(result, "pairs-train") + lines(result, "pairs-test")) == 1


def test_preview_shows_both_answers_side_by_side(tmp_path, tokenizer):
    result = built(tmp_path, tokenizer, [pair(), pair("Why?", "Because it rains.", "No idea whatsoever.")])
    shown = list(samples(result.folder, 1, part="pairs-train"))
    assert [sample.where.rpartition(" ")[2] for sample in shown] == ["chosen", "rejected"]
    assert "⟦" in page(shown, "pairs") and shown[0].num_trained > 0


def test_why_follows_a_pair_to_its_two_documents(tmp_path, tokenizer):
    result = built(tmp_path, tokenizer, [pair()])
    events = story(result.folder, "in:1")
    assert [event.id for event in events if event.stage == "pack"] == ["in:1/chosen", "in:1/rejected"]


@pytest.mark.parametrize("part", ["swap", "leak"])
def test_audit_refuses_parted_answers_and_prompts_of_the_other_part(tmp_path, tokenizer, part):
    result = built(tmp_path, tokenizer, [pair(), pair("Why?", "Because it rains.", "No idea whatsoever.")])
    messages = result.folder / "messages/pairs-train-00000.jsonl"
    if part == "leak":
        line = json.loads(messages.read_text().splitlines()[0]) | {"id": "other"}
        (result.folder / "messages/pairs-test-00000.jsonl").write_text(json.dumps(line, separators=(",", ":")) + "\n")
    else:
        import pyarrow.parquet as parquet

        (ledger,) = (result.folder / "ledger").glob("*-pack.parquet")
        table = parquet.read_table(ledger)
        parquet.write_table(table.take([1, 0, 2, 3]), ledger)
    errors = " ".join(audit(result.folder, check_files=False).errors)
    assert ("both train and test" if part == "leak" else "not neighbours") in errors


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=40), st.booleans())
def test_packing_keeps_every_pair_once_and_whole(sizes, packs):
    lengths = np.array(sizes, np.int64).reshape(-1)
    layout = pairs_together(lengths, 80 if packs else None, seed=3)
    rows = [layout.order[a:b].tolist() for a, b in zip(layout.starts, layout.starts[1:], strict=False)]
    assert sorted(document for row in rows for document in row) == list(range(len(lengths)))
    for row in rows:
        assert lengths[row].sum() <= 80 and all(
            b == a + 1 and a % 2 == 0 for a, b in zip(row[::2], row[1::2], strict=True)
        )
