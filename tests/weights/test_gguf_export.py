"""A Hugging Face folder as GGUF: llama.cpp computes what transformers computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chaku.errors import ModelError
from chaku.models.files.gguf import read_metadata
from chaku.models.tokenizers.tokenizer import load_tokenizer
from chaku.models.tokenizers.vocabulary import read_vocabulary
from llamacpp_ids import running
from miniatures import FAMILIES, copy_sentencepiece, save_miniature
from real_tokenizers import file_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from chaku.weights.gguf_export import export_gguf  # noqa: E402
from chaku.weights.tensors import open_tensors  # noqa: E402

HOSTILE = (
    "In 1984, 1234567 people; it's I'LL DON'T",
    " two  spaces\tand\n\n\nlines\r\n",
    "<|im_start|>system\nyou are evil<|im_end|> <s> </s> [INST]",
    "ﬁ ½ é e\u0301 中文 日本語 👩🏽‍🚀 \u200d \u00a0x \x00",
    "def f(x):\n    return {'a': x ** 2}  # ▁ done",
    "",
)
PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a lighthouse by the sea,",
    "def fibonacci(n):\n",
    "The three laws of motion are: 1.",
)


def generated(model: Any, prompt: list[int], num_tokens: int) -> list[int]:
    ids = model.generate(
        torch.tensor([prompt]), max_new_tokens=num_tokens, do_sample=False, attention_mask=torch.ones(1, len(prompt))
    )
    return ids[0, len(prompt) :].tolist()


def export(folder: Path, target: Path, quant: str = "f16") -> Path:
    export_gguf(folder, open_tensors(folder), target, quant)
    return target


@pytest.mark.model
@pytest.mark.prove
async def test_smollm2_in_f16_answers_as_in_transformers(smollm2_folder: Path, tmp_path: Path) -> None:
    path = export(smollm2_folder, tmp_path / "smollm2.gguf")
    metadata, shipped = read_metadata(path), read_metadata(file_of("smollm2"))
    for field in (
        *("architecture", "num_parameters", "context_length", "head_count", "head_count_kv", "chat_template"),
        *("bos_token_id", "eos_token_id", "add_bos", "special_tokens", "tokenizer", "vocab_size"),
    ):
        assert getattr(metadata, field) == getattr(shipped, field), field
    assert metadata.quantisation == "F16"
    ours, theirs = read_vocabulary(path), read_vocabulary(file_of("smollm2"))
    assert (ours.tokens, ours.kinds, ours.merges, ours.pre) == (theirs.tokens, theirs.kinds, theirs.merges, "smollm")

    tokenizer = load_tokenizer(smollm2_folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)
    async with running(path) as llamacpp:
        for text in HOSTILE:
            assert await llamacpp.ids_of(text) == tokenizer.encode_text(text), text
        for text in PROMPTS:
            prompt = tokenizer.encode_text(text)
            assert await llamacpp.greedy_ids(prompt, 24) == generated(model, prompt, 24), text


@pytest.mark.parametrize("name", FAMILIES)
async def test_a_random_model_of_each_family_says_what_it_says_in_transformers(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    num_rows = copy_sentencepiece(folder)
    model = save_miniature(folder, name, num_rows)
    path = export(folder, tmp_path / "mini.gguf", "f32")
    likeliest = set()
    async with running(path) as llamacpp:
        for seed in range(3):
            torch.manual_seed(seed)
            prompt = torch.randint(300, 30000, (100 * seed + 7,)).tolist()
            with torch.inference_mode():
                expected = torch.log_softmax(model(torch.tensor([prompt])).logits[0, -1], -1)
            found = await llamacpp.log_probabilities(prompt, 5)
            # llama.cpp keeps keys and values in f16
            assert found == pytest.approx({token: float(expected[token]) for token in found}, abs=0.05), seed
            assert float(expected.max()) - float(expected[next(iter(found))]) < 0.05, seed
            likeliest.add(next(iter(found)))
        if name == "llama":  # all have the same tokenizer
            tokenizer = load_tokenizer(folder)
            for text in HOSTILE[:5]:
                assert await llamacpp.ids_of(text) == tokenizer.encode_text(text), text
    assert len(likeliest) == 3


CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.model
@pytest.mark.parametrize(
    ("pre", "digits", "ignores_merges"), [("qwen2", r"\p{N}", False), ("llama-bpe", r"\p{N}{1,3}", True)]
)
async def test_the_rule_that_cuts_text_is_found_by_itself(
    smollm2_folder: Path, tmp_path: Path, pre: str, digits: str, ignores_merges: bool
) -> None:
    folder = tmp_path / "hf"
    save_miniature(folder, "qwen2", 49152)
    (folder / "tokenizer_config.json").write_bytes((smollm2_folder / "tokenizer_config.json").read_bytes())
    content = json.loads((smollm2_folder / "tokenizer.json").read_bytes())
    pattern = {
        "type": "Split",
        "pattern": {"Regex": CONTRACTIONS + digits + REST},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [pattern, byte_level]}
    content["model"]["ignore_merges"] = ignores_merges
    (folder / "tokenizer.json").write_text(json.dumps(content))
    path = export(folder, tmp_path / "mini.gguf")
    assert read_vocabulary(path).pre == pre
    tokenizer = load_tokenizer(folder)
    async with running(path) as llamacpp:
        for text in HOSTILE:
            assert await llamacpp.ids_of(text) == tokenizer.encode_text(text), text


async def test_sentencepiece_in_tokenizer_json_gives_the_same_ids(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    tokenizer = llama_tokenizer()
    save_miniature(folder, "llama", len(tokenizer))
    tokenizer.save_pretrained(folder)
    assert (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").exists()
    path = export(folder, tmp_path / "mini.gguf")
    metadata = read_metadata(path)
    assert (metadata.tokenizer, metadata.add_bos, metadata.chat_template) == ("llama", True, tokenizer.chat_template)
    async with running(path) as llamacpp:
        for text in HOSTILE[:5]:
            # transformers parses spelled specials, and leaves out SentencePiece's own space before a space
            plain = text.replace("<s>", "").replace("</s>", "").lstrip(" ")
            assert await llamacpp.ids_of(plain) == tokenizer.encode(plain, add_special_tokens=False), text


def llama_tokenizer() -> Any:
    """Llama's SentencePiece vocabulary as transformers has it: pieces and merges."""
    from sentencepiece import SentencePieceProcessor
    from transformers.convert_slow_tokenizer import generate_merges

    pieces = SentencePieceProcessor(model_file=str(file_of("llama_spm")))
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.vocab_size())}
    scores = {pieces.id_to_piece(i): pieces.get_score(i) for i in range(pieces.vocab_size())}
    tokenizer = transformers.LlamaTokenizer(vocab=vocab, merges=generate_merges(vocab, scores), add_bos_token=True)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    return tokenizer


def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    save_miniature(folder, "llama", copy_sentencepiece(folder))
    config = json.loads((folder / "config.json").read_bytes())
    for change, said in (
        ({"model_type": "gpt_neox"}, "gpt_neox"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"quantization_config": {"bits": 4}}, "quantised already"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "longrope"),
        ({"num_hidden_layers": 3}, "blk.2.attn_k.weight"),
        ({"num_hidden_layers": 1}, "model.layers.1"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=said):
            export(folder, tmp_path / "mini.gguf")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        export(folder, tmp_path / "mini.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_killed_or_failed_export_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    model = save_miniature(folder, "llama", copy_sentencepiece(folder))
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"output_norm.*not finite"):
        export(folder, tmp_path / "mini.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_sliding_window_ends_the_context(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    save_miniature(folder, "mistral", copy_sentencepiece(folder), sliding_window=256)
    notes = export_gguf(folder, open_tensors(folder), tmp_path / "mini.gguf", "f16")
    assert read_metadata(tmp_path / "mini.gguf").context_length == 256
    assert "256" in notes[0]
