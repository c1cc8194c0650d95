"""What the data tests are made of: a tiny real tokenizer, conversations in every format, and a set built from them."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

from chaku.data.build import Built, build
from chaku.data.recipe import DataConfig

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = [
    "river",
    "stone",
    "window",
    "garden",
    "paper",
    "music",
    "winter",
    "letter",
    "bridge",
    "morning",
    "candle",
    "forest",
    "table",
    "voice",
    "number",
    "harbour",
    "silver",
    "story",
    "travel",
    "kitchen",
    "answer",
    "question",
    "market",
    "shadow",
    "summer",
    "painting",
    "teacher",
    "village",
    "engine",
    "mountain",
]


def write_tokenizer(folder: Path) -> Path:
    """A tokenizer.json of 256 bytes and four special tokens: one token a byte, so lengths can be told by hand."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "<|im_end|>", "add_bos_token": False, "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def sentence(chooser: random.Random, size: int = 8) -> str:
    return " ".join(chooser.choices(WORDS, k=size)).capitalize() + "."


def sharegpt(number: int, *, seed: int = 0, most_rounds: int = 5) -> list[dict[str, object]]:
    """Different conversations of one to `most_rounds` rounds."""
    chooser = random.Random(seed)
    made: list[dict[str, object]] = []
    for index in range(number):
        turns = []
        for _ in range(chooser.randint(1, most_rounds)):
            turns.append({"from": "human", "value": sentence(chooser, chooser.randint(4, 12))})
            turns.append({"from": "gpt", "value": " ".join(sentence(chooser) for _ in range(chooser.randint(1, 4)))})
        made.append({"id": f"chat{seed}-{index}", "conversations": turns})
    return made


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def write_lines(path: Path, values: list[object]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def built(folder: Path, tokenizer: Path, *inputs: Path, processes: int = 1, **config: object) -> Built:
    settings = {"tokenizer": str(tokenizer), "context": 512, "test_fraction": 0.2, **config}
    config = DataConfig(inputs=inputs, **settings)  # type: ignore[arg-type]
    result = build(config, folder, name="made", processes=processes)
    assert result.manifest["audit"]["errors"] == []
    return result


def digests(folder: Path) -> dict[str, str]:
    """Sha256 of every file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


WRAP = '<div class="markdown prose w-full">{}</div>'
"""What ChatGPT's pages put around an answer."""
PIECE = (
    '<pre><div class="bg-black"><div><span>python</span><button>Copy code</button></div><div>'
    '<code class="!whitespace-pre hljs language-python">x = 1\n</code></div></div></pre>'
)
"""Code as those pages have it."""
