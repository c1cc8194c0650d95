from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.made import sharegpt, write_json, write_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Inputs in several formats, with duplicates, bad lines and long conversations; a few shards' worth."""
    folder = tmp_path_factory.mktemp("mixed")
    made = sharegpt(100, most_rounds=9)
    first = write_json(folder / "shares.json", [*made, made[3], made[5]])
    lines = folder / "more.jsonl"
    texts = [
        json.dumps(
            {
                "id": f"m{n}",
                "messages": [
                    {"role": "user", "content": f"What is {n} and {n}?"},
                    {"role": "assistant", "content": f"{n} and {n} is {2 * n}, I think."},
                ],
            }
        )
        for n in range(60)
    ]

    texts[7] = texts[7][:-4]
    texts[9] = '{"unknown": 1}'
    lines.write_text("\n".join([*texts, '"Only a prompt?"']) + "\n")
    return [first, lines]
