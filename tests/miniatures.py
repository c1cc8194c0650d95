"""Random models of two layers with real or small tokenizers, as Hugging Face folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chaku.models.tokenizers.encoders import byte_of_letter
from chaku.models.tokenizers.tokenizer import load_tokenizer
from chaku.models.tokenizers.tokenizer_files import write_tokenizer
from real_tokenizers import file_of

FAMILIES = {
    "llama": {"rope_theta": 500000.0, "num_key_value_heads": 2, "attention_bias": True, "tie_word_embeddings": True},
    "llama-3-scaled": {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    },
    "llama-linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    "llama-yarn": {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128,
        },
    },
    "mistral": {"head_dim": 32, "num_key_value_heads": 2, "sliding_window": None},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"head_dim": 32, "num_key_value_heads": 2},
}  # fmt: skip
CONFIGS = {"llama": "LlamaConfig", "mistral": "MistralConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}


def save_miniature(folder: Path, name: str, num_rows: int, **overrides: Any) -> Any:
    """A random model of two layers that says different things after different texts."""
    import torch
    import transformers

    config = getattr(transformers, CONFIGS[name.partition("-")[0]])(
        **{
            "vocab_size": num_rows, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2,
            **FAMILIES[name], **overrides,
        }
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter_name, parameter in model.named_parameters():
        spread = 0.3 if "bias" in parameter_name or "norm" in parameter_name else 0.15
        torch.nn.init.normal_(parameter, 1.0 if "norm" in parameter_name else 0.0, spread)
    model.float().save_pretrained(folder)
    return model


def copy_sentencepiece(folder: Path) -> int:
    (folder / "tokenizer.model").write_bytes(file_of("llama_spm").read_bytes())
    return load_tokenizer(folder / "tokenizer.model").vocab_size


def save_small_smollm2(folder: Path, source: Path) -> None:
    """Two random layers below the tokenizer and the template of `source`, the GGUF of the 135M model: 13 MB."""
    write_tokenizer(folder, source)
    num_rows = load_tokenizer(folder).vocab_size
    save_miniature(folder, "llama", num_rows, attention_bias=False, max_position_embeddings=2048)


def write_byte_tokenizer(folder: Path) -> int:
    """A tokenizer of bytes and three merges: small, so that everything about it is quick. The number of its tokens."""
    letters = byte_of_letter()
    merges = ["t h", "th e", "i n"]
    vocab = {token: number for number, token in enumerate(("<unk>", "<s>", "</s>", *letters, "th", "the", "in"))}
    specials = [
        {"id": number, "content": text, "special": True} for number, text in enumerate(("<unk>", "<s>", "</s>"))
    ]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content = {
        "version": "1.0",
        "added_tokens": [token | flags for token in specials],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocab)


TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"


def save_llama(folder: Path, **overrides: Any) -> Any:
    """A whole folder of a few kilobytes: model, config and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    return save_miniature(folder, "llama", write_byte_tokenizer(folder), **{"attention_bias": False} | overrides)
