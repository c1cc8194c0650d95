"""The published Vicunas: what their rows say, how checkpoints are recognised, and mismatches that are refused."""

from __future__ import annotations

import dataclasses
import re

import pytest

from chaku.chat.templates import get_template
from chaku.engines.chat_template import choose
from chaku.errors import ChakuError, ConfigError, ModelError
from chaku.models import vicunas
from chaku.models.files.gguf import GgufMetadata, read_metadata
from chaku.models.reference import parse
from chaku.models.vicunas import RELEASES, find, recognise
from chaku.settings import ModelConfig
from gguf_files import write_gguf

V0_JINJA = (
    "{% for m in messages %}### {{ 'Human' if m.role == 'user' else 'Assistant' }}: {{ m.content }}\n{% endfor %}"
)
V1_JINJA = "{% for m in messages %}{{ 'USER: ' if m.role == 'user' else 'ASSISTANT: ' }}{{ m.content }}{% endfor %}"


def test_every_release_has_a_template_that_exists_and_a_successor_that_is_the_newest() -> None:
    assert len(RELEASES) == 13
    for release in RELEASES.values():
        assert get_template(release.template).name
        if release.successor:
            newest = RELEASES[release.successor]
            assert newest.successor is None and newest.name in (release.notice or "")
        else:
            assert release.notice is None


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("vicuna-7b-v1.5", 6_738_415_616),  # as transformers counts Llama 2 7B and 13B
        ("vicuna-13b-v1.5", 13_015_864_320),
        ("vicuna-33b-v1.3", 32_528_943_616),  # LLaMA 33B
    ],
)
def test_sizes_are_those_of_the_published_models(name: str, num_parameters: int) -> None:
    assert RELEASES[name].shape.num_parameters == num_parameters


def test_v0_is_a_delta_with_a_padded_vocabulary_and_v15_16k_holds_16384_tokens() -> None:
    v0 = RELEASES["vicuna-13b-delta-v0"]
    assert (v0.form, v0.shape.vocab_size, v0.template, v0.separator) == ("delta", 32_001, "vicuna_v0", "###")
    assert RELEASES["vicuna-7b-v1.5-16k"].shape.context == 16_384


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lmsys/vicuna-13b-v1.1", "vicuna-13b-v1.1"),
        ("Vicuna_7B_v1.5_16k", "vicuna-7b-v1.5-16k"),
        ("vicuna-13b-v0", "vicuna-13b-delta-v0"),
        ("lmsys/vicuna-7b-delta-v1.1", "vicuna-7b-delta-v1.1"),
        ("vicuna-33b-v1.5", None),  # was never published
        ("wizard-vicuna-13b-v1.1", None),  # another model
        ("vicuna-13b", None),
    ],
)
def test_a_name_means_one_release_or_none(text: str, found: str | None) -> None:
    release = find(text)
    assert (release.name if release else None) == found


def test_an_unversioned_name_with_the_padded_vocabulary_is_v0() -> None:
    release = recognise(["vicuna-7b"], vocab_size=32_001, width=4096)
    assert release is not None and release.version == "v0"
    assert recognise(["vicuna-7b"], vocab_size=32_000, width=4096) is None
    assert recognise(["vicuna-7b-v1.5"], vocab_size=32_000, width=5120) is None, "not the width of a 7B"


@pytest.fixture
def metadata(tmp_path) -> GgufMetadata:
    """Of a GGUF, with the numbers of a 7B put in: no test needs its weights."""
    real = read_metadata(write_gguf(tmp_path / "vicuna-7b-v1.1.gguf"))
    return dataclasses.replace(real, name="vicuna-7b-v1.1", vocab_size=32_000, embedding_length=4096)


def _choose(metadata: GgufMetadata, **settings: object):
    return choose("mine", ModelConfig(source=str(metadata.path), **settings), metadata)


def test_a_vicuna_without_a_template_gets_its_own_and_an_outdated_one_the_notice(metadata, caplog) -> None:
    caplog.set_level("INFO")
    chosen = _choose(dataclasses.replace(metadata, chat_template=None))
    assert "USER" in (chosen.jinja or "")
    assert "vicuna-7b-v1.1 is outdated" in caplog.text and "vicuna-7b-v1.5" in caplog.text


def test_the_files_own_template_stays_where_it_is_right(metadata) -> None:
    assert _choose(dataclasses.replace(metadata, chat_template=V1_JINJA)).jinja is None


def test_v0_weights_end_their_answers_at_the_separator(metadata) -> None:
    v0 = dataclasses.replace(metadata, name="vicuna-7b-v0", vocab_size=32_001, chat_template=None)
    v0 = dataclasses.replace(v0, path=v0.path.with_name("v0.gguf"))
    chosen = _choose(v0)
    assert "Human" in (chosen.jinja or "") and any("###" in stop for stop in chosen.stops)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab_size": 32_001, "chat_template": V1_JINJA}, "whose vocabulary is 32,000, and has 32,001"),
        ({"chat_template": V0_JINJA}, "its template writes"),
        ({"name": "vicuna-7b-v0", "vocab_size": 32_001, "chat_template": V1_JINJA}, "its template writes"),
        ({"name": "vicuna-7b-v0", "chat_template": V0_JINJA}, "as Vicuna v0, whose vocabulary is 32,001"),
        ({"name": "vicuna-7b-delta-v1.1"}, "a delta: without its base"),
    ],
)
def test_weights_of_one_version_with_vocabulary_or_template_of_another_are_refused(metadata, changes, said) -> None:
    path = metadata.path.with_name("model.gguf")
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        _choose(dataclasses.replace(metadata, path=path, **changes))
    assert caught.value.fix


def test_a_chosen_template_wins_and_an_unknown_one_is_refused(metadata) -> None:
    assert "USER" in (_choose(metadata, template="vicuna_v1.1").jinja or "")
    with pytest.raises(ChakuError, match=r"vicuna_v1\.2"):
        _choose(metadata, template="vicuna_v1.2")


def test_a_release_that_is_asked_for_by_name_says_where_it_is() -> None:
    with pytest.raises(ModelError, match=re.escape("hf.co/lmsys/vicuna-7b-v1.5")):
        parse("vicuna-7b-v1.5")


def test_families_are_told_by_the_marks_that_a_template_writes() -> None:
    assert [vicunas.family_of(text) for text in ("vicuna_v0", V0_JINJA, V1_JINJA, "<|im_start|>")] == [
        "v0", "v0", "v1", None,
    ]  # fmt: skip
