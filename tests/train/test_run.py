"""A run from a built set to a Hugging Face folder."""

from __future__ import annotations

import itertools
import shutil
import sys
import threading
import types
from pathlib import Path

import orjson
import pytest

from chaku.errors import ModelError, UsageError
from chaku.models.tokenizers import load_tokenizer
from chaku.train.log import read_log
from train import small


@pytest.fixture(scope="module")
def finished(base: Path, small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.trained(small.recipe("first", base, tmp_path_factory.mktemp("runs")), small_set)


def test_a_run_learns_and_logs_from_step_one(finished: Path) -> None:
    records = small.numbers(finished)
    assert [record[0] for record in records] == list(range(1, len(records) + 1))
    assert records[-1][2] < 0.8 * records[0][2]
    assert records[-1][-1] is not None


def test_the_result_opens_in_transformers_with_its_template(finished: Path, base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(finished / "final")
    tokenizer = AutoTokenizer.from_pretrained(finished / "final")
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert asked == "<|im_start|>user\nhi<|im_end|>\n"
    assert load_tokenizer(finished / "final").hash == load_tokenizer(base).hash
    assert orjson.loads((finished / "final" / "generation_config.json").read_bytes())["eos_token_id"] == [259]


def test_a_result_whose_template_was_changed_is_not_converted_for_serving(finished: Path, tmp_path: Path) -> None:
    from chaku.weights.gguf_tokenizer import read_tokenizer

    final = shutil.copytree(finished / "final", tmp_path / "final")
    template = (final / "chat_template.jinja").read_text()
    with pytest.raises(ModelError, match="cuts text by a rule"):  # the tests' tokenizer, whose template is right
        read_tokenizer(final, 260)
    (final / "chat_template.jinja").write_text(template.replace("<|im_end|>", "<|im_end|> "))
    with pytest.raises(ModelError, match="not the one that the model was trained with"):
        read_tokenizer(final, 260)
    (final / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"restore chat_template\.jinja"):
        read_tokenizer(final, 260)


def test_the_manifest_says_what_went_in_and_what_came_out(finished: Path, base: Path, small_set: Path) -> None:
    manifest = orjson.loads((finished / "manifest.json").read_bytes())
    assert manifest["base"] == {"name": str(base)}
    assert manifest["data"]["num_trained_tokens"] > 0
    assert manifest["data"]["folder"] == str(small_set)
    assert (
        manifest["data"]["template_hash"]
        == orjson.loads((small_set / "manifest.json").read_bytes())["template"]["hash"]
    )
    assert manifest["result"]["steps"] == len(small.numbers(finished))
    assert manifest["result"]["final_loss"] == small.numbers(finished)[-1][2]
    assert manifest["finished"] >= manifest["started"]


def test_a_second_run_into_the_same_folder_is_refused(finished: Path, base: Path, small_set: Path) -> None:
    with pytest.raises(UsageError, match="holds a run already"):
        small.trained(small.recipe("first", base, finished.parent), small_set)


def test_resuming_with_other_numbers_is_refused(finished: Path, base: Path, small_set: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.lr 0\.003 against 0\.5"):
        small.trained(small.recipe("first", base, finished.parent, lr=0.5), small_set, resume=True)


def test_sample_prompts_are_answered_before_and_after(base: Path, small_set: Path, tmp_path: Path) -> None:
    heard = small.Heard()
    made = small.recipe("run", base, tmp_path, max_steps=2, sample_prompts=["Who are you?"])
    folder = small.trained(made, small_set, heard=heard)
    said = [(one["step"], one["prompt"]) for one in read_log(folder / "log.jsonl") if one.get("event") == "sample"]
    assert said == [(0, "Who are you?"), (2, "Who are you?")]
    assert heard.lines[0].startswith("behind step 0: 'Who are you?' -> ")


def test_a_step_reads_from_the_device_once(
    base: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each such read makes the host wait for a GPU. There are five micro-batches, a norm and a signal to ask about."""
    import torch

    reads: list[int] = []
    heard = small.Heard(lambda record: behind.append(len(reads)))
    behind: list[int] = []
    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "nonzero", "numpy"):
        genuine = getattr(torch.Tensor, name)

        def read(self: torch.Tensor, *args: object, genuine: object = genuine) -> object:
            if threading.current_thread() is threading.main_thread():
                reads.append(1)
            return genuine(self, *args)  # type: ignore[operator]

        monkeypatch.setattr(torch.Tensor, name, read)
    made = small.recipe("run", base, tmp_path, max_steps=5, evaluate_every=0, save_every=100, micro_rows=1)
    small.trained(made, small_set, heard=heard)
    assert [after - before for before, after in itertools.pairwise(behind[:-1])] == [1, 1, 1]


def test_a_tracker_gets_the_numbers_of_the_log(
    base: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, int | str]] = []
    fake = types.ModuleType("trackio")
    fake.init = lambda project, name, config: heard.append(("init", name))  # type: ignore[attr-defined]
    fake.log = lambda values, step: heard.append((f"{values['loss']:.6f}", step))  # type: ignore[attr-defined]
    fake.finish = lambda: heard.append(("finish", ""))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trackio", fake)
    folder = small.trained(small.recipe("run", base, tmp_path, max_steps=2, track="trackio"), small_set)
    steps = [(f"{row[2]:.6f}", row[0]) for row in small.numbers(folder)]
    assert heard == [("init", "run"), *steps, ("finish", "")]


def test_a_tracker_that_is_not_installed_is_named(base: Path, small_set: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wandb, which is not installed"):
        small.trained(small.recipe("run", base, tmp_path, max_steps=2, track="wandb"), small_set)
