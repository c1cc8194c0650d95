"""The real 135M model and a copy that a few optimiser steps have moved, through every command."""

import shutil
import subprocess
import sys

import pytest
import torch

from processes import environment
from weights.small_models import bits_of

pytestmark = [pytest.mark.model, pytest.mark.prove]


def chaku(*arguments):
    command = [sys.executable, "-W", "error", "-m", "chaku", "weights", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tuned_folder(smollm2_folder, tmp_path_factory):
    """The model after two steps of SGD on one sentence, in f16 as the base is."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("tuned") / "tuned"
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode("Vicunas live in the high Andes, where the nights are cold.")])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    yield folder
    shutil.rmtree(folder)


def test_a_delta_brings_the_tuned_model_back_bit_for_bit(smollm2_folder, tuned_folder, tmp_path):
    said = chaku("make-delta", smollm2_folder, tuned_folder, "-o", tmp_path / "delta", "--shard-size", "100MB")
    assert "xor delta of 272 tensors, 134,515,008 values" in said
    assert len(list((tmp_path / "delta").glob("*.safetensors"))) == 3
    assert "272 tensors, each as recorded" in chaku(
        "apply-delta", smollm2_folder, tmp_path / "delta", "-o", tmp_path / "back"
    )
    wanted = bits_of(tuned_folder)
    assert bits_of(tmp_path / "back") == wanted != bits_of(smollm2_folder)
    assert (tmp_path / "back/tokenizer.json").read_text() == (tuned_folder / "tokenizer.json").read_text()


def test_paddles_layout_and_back_is_the_same_bit_for_bit(tuned_folder, tmp_path):
    assert "model_state.pdparams" in chaku("convert", tuned_folder, "-o", tmp_path / "paddle", "--to", "paddle")
    chaku("convert", tmp_path / "paddle", "-o", tmp_path / "back")
    assert bits_of(tmp_path / "back") == bits_of(tuned_folder)


def test_the_name_of_the_built_in_model_is_converted_as_its_file_is(smollm2_folder, tmp_path):
    chaku("convert", "smollm2-135m", "-o", tmp_path / "named")
    assert bits_of(tmp_path / "named") == bits_of(smollm2_folder)
