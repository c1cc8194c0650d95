from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaku.cli.paths import paths


def test_paths_names_every_place_and_what_moves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CHAKU_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CHAKU_DATABASE", "postgresql+psycopg://me:hidden@db/chaku")
    monkeypatch.chdir(tmp_path)
    found = json.loads(CliRunner().invoke(paths, ["--json"]).stdout)
    assert found == {
        "cache": str(tmp_path / "cache"),
        "models": str(tmp_path / "cache" / "models"),
        "data": str(tmp_path / "data"),
        "database": "postgresql+psycopg://me:***@db/chaku",
        "settings": None,
        "runs": str(tmp_path / "runs"),
    }
    lines = CliRunner().invoke(paths, []).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(found)
    assert lines[0].endswith("CHAKU_CACHE")
    assert list(tmp_path.iterdir()) == [], "nothing is made"
