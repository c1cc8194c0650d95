"""What `weights quality` says is what the two models' probabilities say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chaku.errors import ModelError, UsageError
from chaku.models.tokenizers.tokenizer import load_tokenizer
from miniatures import copy_sentencepiece, save_llama

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from chaku.cli.main import root  # noqa: E402
from chaku.weights.quality import compare  # noqa: E402
from chaku.weights.to_gguf import to_gguf  # noqa: E402

TEXT = "The quick brown fox jumps over the lazy dog, and then sleeps. " * 12


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A random model, and one a little beside it."""
    a, b = (tmp_path_factory.mktemp("models") / name for name in "ab")
    for folder in (a, b):
        model = save_llama(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(b)
    return a, b


def test_the_figures_are_those_of_the_probabilities(models: tuple[Path, Path]) -> None:
    found = compare(*models, TEXT, chunk_tokens=32, max_chunks=4)
    ids = load_tokenizer(models[0]).encode_text(TEXT)
    logs = []
    for folder in models:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        with torch.inference_mode():
            chunks = torch.tensor(ids[:128]).reshape(4, 32)
            logs.append(torch.log_softmax(model(chunks).logits[:, :-1].double(), -1))
    nll = [-log.gather(2, chunks[:, 1:, None]).mean() for log in logs]
    kl = (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean()
    same = (logs[0].argmax(-1) == logs[1].argmax(-1)).double().mean()
    assert (found.num_tokens, found.num_chunks) == (124, 4)
    assert found.perplexity_a.value == pytest.approx(math.exp(nll[0]), rel=1e-4)
    assert found.perplexity_b.value == pytest.approx(math.exp(nll[1]), rel=1e-4)
    assert found.perplexity_ratio.value == pytest.approx(math.exp(nll[1] - nll[0]), rel=1e-4)
    assert found.kl.value == pytest.approx(float(kl), rel=2e-3) and found.kl.value > 0.01
    assert found.top_agreement.value == pytest.approx(float(same)) and found.top_agreement.value < 1
    for interval in (found.perplexity_a, found.perplexity_ratio, found.kl, found.top_agreement):
        assert interval.low <= interval.value <= interval.high and interval.low < interval.high


def test_a_gguf_is_compared_with_its_folder(models: tuple[Path, Path], tmp_path: Path) -> None:
    folder = models[0]
    kls = []
    for quant in ("f32", "q8_0", "q4_0"):
        to_gguf(folder, tmp_path / f"{quant}.gguf", quant)
        kls.append(compare(folder, tmp_path / f"{quant}.gguf", TEXT, chunk_tokens=64, max_chunks=2).kl.value)
    assert abs(kls[0]) < 1e-4 < kls[1] < kls[2]


def test_a_gguf_that_transformers_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    scaling = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    save_llama(folder, rope_parameters=scaling, tie_word_embeddings=False, attention_bias=True)
    to_gguf(folder, tmp_path / "scaled.gguf", "f32")
    with pytest.raises(ModelError, match="rope scaling"):
        compare(folder, tmp_path / "scaled.gguf", TEXT, chunk_tokens=64, max_chunks=2)
    save_llama(folder, attention_bias=True)
    to_gguf(folder, tmp_path / "biased.gguf", "f32")
    with pytest.raises(ModelError, match=r"transformers reads .* of the .* numbers"):
        compare(folder, tmp_path / "biased.gguf", TEXT, chunk_tokens=64, max_chunks=2)


def test_the_command_prints_a_table_or_json(models: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(TEXT)

    def run(*arguments: object) -> Any:
        command = ["weights", "quality", *map(str, models), "--text", str(tmp_path / "t.txt"), *map(str, arguments)]
        return CliRunner().invoke(root, command, standalone_mode=False)

    table = run("--chunk", 32, "--max-chunks", 2)
    assert "perplexity A" in table.stdout and "62 tokens in 2 chunks" in table.stdout
    found = json.loads(run("--chunk", 32, "--max-chunks", 2, "--json").stdout)
    assert found["kl"].keys() == {"value", "low", "high"} and found["num_tokens"] == 62
    (tmp_path / "t.txt").write_text("Too short.")
    error = run().exception
    assert isinstance(error, UsageError) and "two chunks" in error.message


def test_other_tokenizers_are_not_compared(models: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    copy_sentencepiece(other)
    with pytest.raises(ModelError, match="different tokens"):
        compare(models[0], other, TEXT)
