"""A run from a built set to a Hugging Face folder."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import threading
import types
from pathlib import Path
from typing import Any

import orjson
import pytest

from chaku.errors import ModelError, RunInterrupted, UsageError
from chaku.models.tokenizers.tokenizer import load_tokenizer
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
    read_tokenizer(final, 260)  # with its template it is read
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
    with pytest.raises(UsageError, match="holds a finished run") as caught:
        small.trained(small.recipe("first", base, finished.parent), small_set)
    assert "chaku serve" in str(caught.value.fix) and "--overwrite" in str(caught.value.fix)


def test_resuming_with_other_numbers_is_refused(finished: Path, base: Path, small_set: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.lr 0\.003 against 0\.5"):
        small.trained(small.recipe("first", base, finished.parent, lr=0.5), small_set, resume=True)


def test_sample_prompts_are_answered_before_and_after(base: Path, small_set: Path, tmp_path: Path) -> None:
    heard = small.Heard()
    made = small.recipe("run", base, tmp_path, max_steps=2, sample_prompts=["Who are you?"])
    folder = small.trained(made, small_set, heard=heard)
    said = [(one["step"], one["prompt"]) for one in read_log(folder / "log.jsonl") if one.get("event") == "sample"]
    assert said == [(0, "Who are you?"), (2, "Who are you?")]
    assert heard.lines[0].startswith("after step 0: 'Who are you?' -> ")


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


def test_a_run_that_begins_again_has_its_first_answers_once(base: Path, small_set: Path, tmp_path: Path) -> None:
    """It was killed before its first checkpoint."""
    made = small.recipe("run", base, tmp_path, max_steps=2, save_every=2, sample_prompts=["Who are you?"])
    heard = small.Heard(lambda record: small.kill_self() if record.step == 1 else None)
    assert small.in_fork(lambda: small.trained(made, small_set, heard=heard)) == -signal.SIGKILL
    folder = small.trained(made, small_set, resume=True)
    assert [one["step"] for one in read_log(folder / "log.jsonl") if one.get("event") == "sample"] == [0, 2]


@pytest.mark.parametrize("kind", ["trackio", "wandb"])
def test_a_tracker_gets_the_numbers_of_the_log_and_a_resumed_run_is_the_same_there(
    base: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    heard: list[tuple[Any, ...]] = []
    fake: Any = types.ModuleType(kind)
    fake.init = lambda **options: heard.append(("init", options))
    fake.log = lambda values, step: heard.append((f"{values['loss']:.6f}", step, "step" in values))
    fake.finish = lambda: heard.append(("finish",))
    monkeypatch.setitem(sys.modules, kind, fake)
    made = small.recipe("run", base, tmp_path, max_steps=4, track=kind)
    stopping = small.Heard(lambda record: os.kill(os.getpid(), signal.SIGTERM) if record.step == 1 else None)
    with pytest.raises(RunInterrupted):
        small.trained(made, small_set, heard=stopping)
    folder = small.trained(made, small_set, resume=True)
    begun, gone_on = (options for name, options in [one for one in heard if one[0] == "init"])
    assert (begun["project"], begun["name"], begun["config"]["train.lr"]) == ("chaku", "run", 3e-3)
    assert (begun["resume"], gone_on["resume"]) == ("never", "allow")
    assert begun.get("id") == gone_on.get("id") and ("id" in begun) == (kind == "wandb")
    steps = [one for one in heard if one[0] not in ("init", "finish")]
    assert steps == [(f"{row[2]:.6f}", row[0], False) for row in small.numbers(folder)]
    assert [one[0] for one in heard].count("finish") == 2


def test_tensorboard_shows_each_step_once_though_the_run_was_killed(
    base: Path, small_set: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (58 MB)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = small.recipe("run", base, tmp_path, max_steps=5, track="tensorboard", save_every=2)
    heard = small.Heard(lambda record: small.kill_self() if record.step == 3 else None)
    assert small.in_fork(lambda: small.trained(made, small_set, heard=heard)) == -signal.SIGKILL
    folder = small.trained(made, small_set, resume=True)
    shown = EventAccumulator(str(folder / "tensorboard"))
    shown.Reload()
    losses = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in shown.Scalars("loss")]
    assert losses == [(row[0], row[2]) for row in small.numbers(folder)]


def test_a_tracker_that_is_not_installed_is_named(base: Path, small_set: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="wandb, which is not installed"):
        small.trained(small.recipe("run", base, tmp_path, max_steps=2, track="wandb"), small_set)
