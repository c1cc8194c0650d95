"""What `chaku serve` says of names under which nothing is known: models that are not served, categories of no judge."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner, Result
from pydantic import BaseModel

from chaku import logs
from chaku.cli import serve as serve_module
from chaku.cli.unknown_names import MODEL_NAMES, warnings_of
from chaku.complaints import MODEL_NAME
from chaku.config import load
from chaku.data.rules.content import CONTENT_RULES
from chaku.errors import ConfigError
from chaku.policies import Limits
from chaku.serve import server
from chaku.settings import ServeConfig
from chaku.store import keys
from chaku.store.database import open_store

WITH_EVERY_NAME = """
models: [{source: "scripted:", name: served, fallback: of-models.fallback}]
score_model: of-score_model
prices: {of-prices: {prompt: 1, completion: 2}}
contestants: [{name: x, model: of-contestants.model}]
moderation: {guard: of-moderation.guard}
guests: {limits: {models: [of-guests.limits.models, served]}}
"""
GIVE_NAMES = {"models.name", "models.adapters", "models.upstream_model", "contestants.name"}
"""Settings that give a model or a contestant its name, here or elsewhere."""


def settings_with_names(kind: Any, path: str = "") -> Iterator[str]:
    """Where a model's name may stand, by the types of the settings."""
    for key, field in kind.model_fields.items() if isinstance(kind, type) and issubclass(kind, BaseModel) else ():
        if repr(MODEL_NAME) in repr(field):
            yield path + key
        inner = [field.annotation, *get_args(field.annotation)]
        yield from (found for one in inner for found in settings_with_names(one, f"{path}{key}."))


def test_every_setting_that_names_a_model_is_looked_at(tmp_path: Path) -> None:
    assert set(settings_with_names(ServeConfig)) - GIVE_NAMES == MODEL_NAMES.keys()
    (tmp_path / "serve.yaml").write_text(WITH_EVERY_NAME)
    told = warnings_of(load(ServeConfig, tmp_path / "serve.yaml").config, {"served": "scripted:"})
    assert len(told) == len(MODEL_NAMES)
    for warning, (path, (flag, _)) in zip(told, MODEL_NAMES.items(), strict=True):
        assert warning.startswith(f"{flag} names the model 'of-{path}', which is not served. ")


def dry_run(*flags: str) -> Result:
    return CliRunner().invoke(serve_module.serve, ["tiny=scripted:", "large=scripted:", *flags, "--print-config"])


def test_a_name_of_nothing_is_one_warning_with_the_nearest_name() -> None:
    printed = dry_run("--score-model", "tinny", "--price", "tinny=1/2", "--contestant", "a=large").stdout
    assert [line for line in printed.splitlines() if "warning" in line] == [
        "# warning: --score-model, --price name the model 'tinny', which is not served. Did you mean tiny? "
        "Served: tiny, large. If a model joins under that name, it counts."
    ]
    assert "joins under" not in dry_run("--score-model", "other", "--no-joins").stdout
    assert "warning" not in dry_run("--score-model", "tiny").stdout


def test_a_start_warns_of_settings_and_keys_once_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run_nothing(*_: object) -> None:
        return

    url = f"sqlite:///{tmp_path}/chaku.db"
    with open_store(url) as store:
        keys.create(store, "demo", now=datetime.now(UTC), limits=Limits(models=("tiny", "gone")))
    monkeypatch.setattr(server, "run", run_nothing)
    monkeypatch.setattr(logs, "set_up", lambda level: None)
    flags = ["--database", url, "--port", "0", "--no-ui", "--score-model", "gone"]
    with caplog.at_level(logging.WARNING):
        result = CliRunner().invoke(serve_module.serve, ["tiny=scripted:", *flags])
    assert result.exception is None
    told = [record.getMessage() for record in caplog.records if record.name.startswith("chaku.cli")]
    assert len(told) == 1 and told[0].startswith("--score-model, key demo name the model 'gone', which is not served.")


@pytest.mark.parametrize(
    ("policy", "fix"),
    [
        ("{rules: true, actions: {slurs: warn}}", "did you mean slur? known categories: minors, sexual, slur, "),
        ("{patterns: {secret: x}, actions: {other: warn}}", "known categories: secret"),
        ("{patterns: {secret: x}, actions: {slur: warn}}", "known categories: secret"),
        ("{guard: llama-guard-3-1b, actions: {S15: warn}}", "did you mean S5? known categories: S1, S2, "),
        ("{guard: tiny, actions: {violence: warn}}", None),
        ("{guard: llama-guard-3-1b, actions: {S13: warn, unsafe: hide}}", None),
        (f"{{rules: true, actions: {dict.fromkeys(CONTENT_RULES, 'warn')}}}", None),
    ],
)
def test_a_category_of_no_judge_is_refused(policy: str, fix: str | None) -> None:
    result = dry_run("--moderation", policy)
    if fix is None:
        assert result.exception is None
        return
    assert isinstance(result.exception, ConfigError)
    assert result.exception.message.startswith("moderation.actions has ")
    assert result.exception.fix is not None and result.exception.fix.startswith(fix)


@pytest.mark.parametrize(
    ("policy", "warning"),
    [
        (
            "{url: 'http://a.example/v1', actions: {sexuall: warn, sexual/minors: hide}}",
            "'sexuall'. Whether the moderation API names that",
        ),
        (
            "{guard: large, rules: true, actions: {slurs: warn}}",
            "'slurs'. Whether large names that is not known here; did you mean slur?",
        ),
        ("{url: 'http://a.example/v1', url_model: theirs, actions: {flagged: warn}}", None),
        ("{url: 'http://a.example/v1', actions: {violence/graphic: warn}}", None),
    ],
)
def test_a_category_that_an_unknown_judge_may_name_is_a_warning(policy: str, warning: str | None) -> None:
    printed = dry_run("--moderation", policy).stdout
    assert ("warning: moderation.actions has" in printed) == (warning is not None)
    assert (warning or "") in printed


def test_a_guard_is_recognised_by_its_source_too() -> None:
    models = [{"source": "hf:meta-llama/Llama-Guard-3-1B", "name": "judge"}]
    config = ServeConfig.model_validate(
        {"models": models, "moderation": {"guard": "judge", "actions": {"S99": "warn"}}}
    )
    with pytest.raises(ConfigError):
        warnings_of(config, {"judge": "hf:meta-llama/Llama-Guard-3-1B"})
