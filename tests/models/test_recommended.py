"""What suits a model in a chat, by its name or by the files of its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chaku.models.recommended import recommended_here, write_recommended
from chaku.models.registry import BUILT_IN, Recommended


def folder(path: Path, settings: dict[str, Any] | str | None) -> str:
    path.mkdir(parents=True)
    (path / "config.json").write_text('{"model_type": "llama"}')
    if settings is not None:
        (path / "generation_config.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return str(path)


@pytest.mark.parametrize(
    ("settings", "suits"),
    [
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 2}, Recommended(0.6, top_p=0.9)),
        ({"max_new_tokens": 300, "top_k": 20, "repetition_penalty": 1.1}, Recommended(None, 300, 1.1, top_k=20)),
        ({"do_sample": False}, Recommended(0.0)),
        ({"temperature": "hot", "top_k": True, "eos_token_id": 2}, None),
        (None, None),
        ("no JSON", None),
    ],
)
def test_a_folders_own_settings_suit_its_model(
    tmp_path: Path, settings: dict[str, Any] | str | None, suits: Recommended | None
) -> None:
    assert recommended_here(folder(tmp_path / "model", settings)) == suits
    folder(tmp_path / "run" / "final", settings)
    assert recommended_here(str(tmp_path / "run")) == suits


def test_a_name_has_what_its_row_says_and_other_sources_nothing() -> None:
    assert recommended_here("smollm2-135m") == BUILT_IN["smollm2-135m"].recommended
    assert recommended_here("scripted:") is None
    assert recommended_here("http://127.0.0.1:9/v1") is None


@pytest.mark.parametrize(
    "suits", [Recommended(0.0, 512, 1.1), Recommended(0.7, 2048, top_p=0.8, top_k=20), Recommended()]
)
def test_what_is_written_is_read_and_keeps_what_the_folder_says(tmp_path: Path, suits: Recommended) -> None:
    source = folder(tmp_path / "model", None)
    write_recommended(tmp_path / "model", suits, {"eos_token_id": [2]})
    assert recommended_here(source) == (suits if suits.known() else None)
    again = tmp_path / "again"
    folder(again, None)
    write_recommended(again, suits, {"eos_token_id": [2], "top_p": 0.5})
    written = json.loads((again / "generation_config.json").read_text())
    assert (written["top_p"], written["eos_token_id"]) == (0.5, [2])
