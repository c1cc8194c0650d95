"""One reading of a config.json, whoever asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chaku.errors import ModelError
from chaku.models.fetch.folders import base_of
from chaku.models.files.modelconfig import dimensions, read_config, read_optional, require_config, write_config
from chaku.models.files.shape import shape_of_folder

CONFIG: dict[str, Any] = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100, "max_position_embeddings": 4096,
}  # fmt: skip


def test_an_estimate_takes_the_length_that_an_export_takes(tmp_path: Path) -> None:
    from chaku.weights.gguf_architecture import read_architecture

    config = CONFIG | {"max_sequence_length": 16384, "rope_scaling": {"type": "linear", "factor": 4.0}}
    write_config(tmp_path, config)
    assert shape_of_folder(tmp_path).context == 16384
    assert read_architecture(config, tmp_path / "config.json").context_length == 16384


def test_a_size_that_is_missing_or_wrong_is_named_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with pytest.raises(ModelError, match=r"config\.json has no hidden_size"):
        dimensions({key: value for key, value in CONFIG.items() if key != "hidden_size"}, file)
    for wrong in (0, -1, "2", True, 2.0):
        with pytest.raises(ModelError, match=f"says num_key_value_heads is {wrong!r}"):
            dimensions(CONFIG | {"num_key_value_heads": wrong}, file)
    found = dimensions(CONFIG | {"num_key_value_heads": None, "head_dim": 32}, file)
    assert (found.kv_heads, found.head_length, found.ties_embeddings) == (4, 32, False)


def test_files_that_are_no_config_are_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    assert read_config(tmp_path) is None and read_optional(file) == {}
    with pytest.raises(ModelError, match=r"there is no .*config\.json"):
        require_config(tmp_path)
    for content, said in (("{", "is not JSON"), ("[1]", "is not a JSON object")):
        file.write_text(content)
        for read in (read_config, require_config):
            with pytest.raises(ModelError, match=said):
                read(tmp_path)
    write_config(tmp_path, CONFIG)
    assert read_config(tmp_path) == require_config(file) == json.loads(file.read_bytes()) == CONFIG


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_folder_that_is_no_adapter_is_refused_the_same_by_all_who_read_it(
    tmp_path: Path, content: str | None
) -> None:
    from chaku.weights.adapter import read_adapter

    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    said = []
    for read in (base_of, read_adapter):
        with pytest.raises(ModelError, match="is not a peft adapter") as caught:
            read(tmp_path)
        said.append((caught.value.message, caught.value.fix))
    assert said[0] == said[1]
