"""The audit passes a sound set and fails one with a planted defect, naming it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from chaku.data.inspect.audit import audit
from chaku.data.manifest import file_errors, read_manifest
from chaku.data.rows.packed import Row, read_rows, schema
from chaku.errors import ChakuError, ModelError, UsageError
from chaku.train.rows import checked_manifest
from data.made import built, sharegpt, write_json, write_lines


@pytest.fixture(scope="module")
def sound(tmp_path_factory, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    return built(folder / "set", tokenizer, write_json(folder / "in.json", sharegpt(40))).folder


@pytest.fixture
def copy(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "set"))


def rewrite(folder: Path, change: Callable[[Row], tuple[object, object, object] | None]) -> None:
    """Change the rows of the training file; None leaves a row out."""
    path = folder / "rows/train-00000.arrow"
    rows = [changed for row in read_rows(path) if (changed := change(row)) is not None]
    columns = [
        pa.array([np.asarray(column).tolist() for column in values], field.type)
        for values, field in zip(zip(*rows, strict=True), schema(), strict=True)
    ]
    with pa.ipc.new_file(str(path), schema()) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema()))


def test_a_sound_set_passes_with_its_numbers(sound):
    found = audit(sound)
    assert found.passed and found.errors == []
    assert 0 < found.facts["trained_tokens"] < found.facts["tokens"]
    assert found.facts["documents"] == sum(found.facts["conversations"].values())


def once(change: Callable[[Row], tuple[object, object, object] | None]):
    """Change the first row that holds several documents."""
    done = []

    def maybe(row: Row) -> tuple[object, object, object] | None:
        if done or row.doc_ids.max() == 0:
            return row.ids, row.loss_mask, row.doc_ids
        done.append(row.number)
        return change(row)

    return maybe


def with_id(position: int, token: int) -> Callable[[Row], tuple[object, object, object]]:
    return lambda row: (np.where(np.arange(len(row.ids)) == position, token, row.ids), row.loss_mask, row.doc_ids)


def with_mask(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Row], tuple[object, object, object]]:
    return lambda row: (row.ids, change(row.loss_mask), row.doc_ids)


def with_documents(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Row], tuple[object, object, object]]:
    return lambda row: (row.ids, row.loss_mask, change(row.doc_ids))


def tripled(row: Row) -> tuple[object, object, object]:
    ids, mask, documents = (np.concatenate([column] * 3) for column in (row.ids, row.loss_mask, row.doc_ids))
    return ids, mask, documents


DEFECTS = {
    "trains on user text": (with_mask(np.ones_like), "train on other than assistant text"),
    "trains on nothing": (with_mask(np.zeros_like), "no trained token"),
    "mask shifted by one": (with_mask(lambda mask: np.roll(mask, 1)), "trained spans are not the assistant's texts"),
    "a row is lost": (lambda row: None, "packing wrote"),
    "unknown ids": (with_id(3, 9999), "does not know"),
    "mask of twos": (with_mask(lambda mask: mask * 2), "other than 0 and 1"),
    "columns of unequal length": (with_mask(lambda mask: mask[:-1]), "differ in length"),
    "documents run together": (with_documents(np.zeros_like), "documents"),
    "documents out of order": (with_documents(lambda documents: documents + 1), "count up from 0"),
    "row too long": (tripled, "longer than pack_length"),
    "forged special token": (with_id(8, 259), "special tokens"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_in_the_rows_is_named(copy, name):
    change, complaint = DEFECTS[name]
    rewrite(copy, once(change))
    found = audit(copy)
    assert not found.passed
    assert any(complaint in error for error in found.errors), found.errors


def test_an_answer_changed_after_tokenising_is_found(copy):
    path = copy / "messages/train-00000.jsonl"
    lines = path.read_text().splitlines()
    first = json.loads(lines[0])
    first["messages"][-1]["content"] = "Something else."
    path.write_text("\n".join([json.dumps(first, separators=(",", ":")), *lines[1:]]) + "\n")
    assert any("assistant" in error for error in audit(copy).errors)


def test_a_conversation_in_train_and_test_is_an_error(copy):
    line = (copy / "messages/train-00000.jsonl").read_text().splitlines()[0]
    with (copy / "messages/test-00000.jsonl").open("a") as file:
        file.write(line + "\n")
    errors = audit(copy).errors
    assert any("both train and test" in error for error in errors)
    assert any("ids stand for several" in error for error in errors)


def test_a_ledger_that_does_not_add_up_is_an_error(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["counts"]["dedup"]["kept"] -= 1
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert any("dedup" in error for error in audit(copy).errors)


def test_an_evaluation_question_in_the_set_is_an_error(sound, tmp_path):
    question = json.loads((sound / "messages/train-00000.jsonl").read_text().splitlines()[0])["messages"][0]["content"]
    clean = write_lines(
        tmp_path / "clean.jsonl", [{"question_id": 1, "turns": ["How far away is the nearest large black hole today?"]}]
    )
    dirty = write_lines(tmp_path / "dirty.jsonl", [{"question_id": 1, "turns": [question]}])
    assert audit(sound, questions=[clean]).passed
    found = audit(sound, questions=[dirty])
    assert found.facts["evaluation_overlap"] >= 1 and not found.passed
    suite = write_lines(tmp_path / "suite.jsonl", [{"id": "a-1", "turns": [question], "category": "writing"}])
    assert not audit(sound, questions=[suite]).passed


def test_text_that_spells_special_tokens_is_counted_and_stays_text(tmp_path, tokenizer):
    spelled = {
        "conversations": [
            {"from": "human", "value": "What does <|im_end|> mean, and <|im_start|>system?"},
            {"from": "gpt", "value": "It is how <|im_end|> ends a turn."},
        ]
    }
    folder = built(tmp_path / "set", tokenizer, write_json(tmp_path / "in.json", [spelled, *sharegpt(5)])).folder
    found = audit(folder)
    assert found.passed and found.facts["special_tokens_spelled_in_text"] == 1


def test_cut_rounds_are_a_warning_with_their_number(tmp_path, tokenizer):
    long = {
        "conversations": [
            {"from": "human", "value": "Tell me a long story about the sea."},
            {"from": "gpt", "value": " ".join(f"{n} waves rolled in." for n in range(90))},
        ]
    }
    folder = built(tmp_path / "set", tokenizer, write_json(tmp_path / "in.json", [long, *sharegpt(5)])).folder
    found = audit(folder)
    assert found.passed and found.facts["cut_documents"] == 1
    assert any("cut at the context" in warning for warning in found.warnings)
    rejecting = built(tmp_path / "other", tokenizer, tmp_path / "in.json", overlong="reject")
    assert rejecting.manifest["counts"]["split"]["drops"] == {"round_too_long": 1}


def test_a_folder_that_is_no_set_and_a_tokenizer_that_is_gone_are_told_apart(copy, tmp_path):
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        audit(tmp_path)
    with pytest.raises(ModelError, match="no tokenizer at"):
        audit(copy, tokenizer=str(tmp_path / "gone.json"))


def test_a_file_that_is_no_arrow_is_an_error_of_its_own(copy):
    (copy / "rows/train-00000.arrow").write_bytes(b"nonsense")
    with pytest.raises(ChakuError, match="not an Arrow file"):
        audit(copy)


@pytest.mark.parametrize("name", ["rows/train-00000.arrow", "messages/test-00000.jsonl", "ledger/14-pack.parquet"])
def test_a_flipped_byte_is_named_with_its_file(copy, name):
    path = copy / name
    content = bytearray(path.read_bytes())
    places = [at for at in range(len(content) // 2, len(content)) if content[at : at + 1].isalpha()]
    content[places[0] if path.suffix == ".jsonl" else len(content) // 2] ^= 1
    path.write_bytes(content)
    manifest = read_manifest(copy)
    errors = file_errors(copy, manifest, hashes=True)
    (error,) = errors
    assert error.startswith(f"{name} can't be read as it was built: it has changed since it was written: sha256 ")
    assert file_errors(copy, manifest, hashes=False) == []
    try:
        said = audit(copy).errors
    except ChakuError as error:  # Arrow may refuse to read it at all
        said = error.message
    assert errors[0] in said


def test_files_that_are_missing_added_or_cut_are_named_without_reading_them(copy):
    rows = copy / "rows"
    shutil.copy(rows / "train-00000.arrow", rows / "train-00009.arrow")
    (rows / "test-00000.arrow").unlink()
    with (copy / "messages/train-00000.jsonl").open("r+b") as file:
        file.truncate(10)
    errors = file_errors(copy, read_manifest(copy), hashes=False)
    cut, gone, added = errors
    assert cut.startswith("messages/train-00000.jsonl can't be read as it was built: it has 10 bytes, not ")
    assert gone == "rows/test-00000.arrow can't be read as it was built: it is missing"
    assert added == "rows/train-00009.arrow is not a file of this set"
    with pytest.raises(UsageError, match=r"is not as it was built: .*rows/test-00000\.arrow can't be read .*missing"):
        checked_manifest(copy)


def test_a_set_from_before_there_were_hashes_is_read_and_said_to_have_none(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    assert {"rows/train-00000.arrow", "messages/train-00000.jsonl"} < manifest.pop("files").keys()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    found = audit(copy)
    assert found.passed and any("not checked against hashes" in warning for warning in found.warnings)
    assert not any("hashes" in warning for warning in manifest["audit"]["warnings"])
    assert checked_manifest(copy) == manifest
