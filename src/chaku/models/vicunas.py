"""Every published Vicuna as a row: what it was made of, with which template it speaks, and what came after it.

From a name, or from a vocabulary of 32,001, a checkpoint is recognised; then its template can be chosen or questioned.
Sources: the weights' version table and model cards of LMSYS, and the configs of the checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from chaku.errors import ConfigError
from chaku.models.files.shape import ModelShape, llama_shape
from chaku.models.registry import Licence

PADDED_VOCABULARY = 32_001
"""Vicuna v0's: LLaMA's 32,000 tokens and an added [PAD]."""
Family = Literal["v0", "v1"]

_LLAMA = Licence(
    "LLaMA licence: research, not commercial", "https://github.com/facebookresearch/llama/blob/llama_v1/MODEL_CARD.md"
)
_LLAMA_2 = Licence("Llama 2 Community License Agreement", "https://ai.meta.com/llama/license/")


@dataclass(frozen=True)
class Release:
    """One published checkpoint."""

    name: str
    version: str
    hub_id: str
    form: Literal["delta", "merged"]
    """A delta is added to its base before it is a model: `chaku weights apply-delta`."""
    base: str
    template: str
    """Of `chaku.chat.templates`."""
    separator: str
    """Ends an answer."""
    released: str
    num_conversations: int
    """User-shared conversations it was trained on, about."""
    licence: Licence
    successor: str | None
    shape: ModelShape
    notes: str = ""

    @property
    def notice(self) -> str | None:
        """What to tell whoever uses it; None for one that is not outdated."""
        if self.successor is None:
            return None
        return f"{self.name} is outdated: a newer version is {self.successor} (hf.co/{RELEASES[self.successor].hub_id})"


@dataclass(frozen=True)
class _Version:
    """What all sizes of a version share."""

    base: str
    template: str
    separator: str
    released: str
    num_conversations: int
    licence: Licence
    context: int
    vocab_size: int = 32_000
    notes: str = ""


_SIZES = {"7b": (32, 4096, 32, 11_008), "13b": (40, 5120, 40, 13_824), "33b": (60, 6656, 52, 17_920)}
"""Layers, width, heads, width of the feed-forward part."""

_V0 = _Version(
    "LLaMA", "vicuna_v0", "###", "2023-03-30", 70_000, _LLAMA, 2048, PADDED_VOCABULARY,
    "the [PAD] token was added for training; the base's vocabulary grows by one row before the delta is added",
)  # fmt: skip
_V1_1 = _Version("LLaMA", "vicuna_v1.1", "</s>", "2023-04-12", 70_000, _LLAMA, 2048)
_V1_3 = _Version("LLaMA", "vicuna_v1.3", "</s>", "2023-06-22", 125_000, _LLAMA, 2048)
_V1_5 = _Version("Llama 2", "vicuna_v1.5", "</s>", "2023-08-01", 125_000, _LLAMA_2, 4096)
_LONG = _Version(
    "Llama 2", "vicuna_v1.5", "</s>", "2023-08-01", 125_000, _LLAMA_2, 16_384,
    notes="positions scaled linearly by 4",
)  # fmt: skip

# Version, size, form, successor
_PUBLISHED: tuple[tuple[str, _Version, str, Literal["delta", "merged"], str | None], ...] = (
    ("v0", _V0, "7b", "delta", "vicuna-7b-v1.5"),
    ("v0", _V0, "13b", "delta", "vicuna-13b-v1.5"),
    ("v1.1", _V1_1, "7b", "delta", "vicuna-7b-v1.5"),
    ("v1.1", _V1_1, "7b", "merged", "vicuna-7b-v1.5"),
    ("v1.1", _V1_1, "13b", "delta", "vicuna-13b-v1.5"),
    ("v1.1", _V1_1, "13b", "merged", "vicuna-13b-v1.5"),
    ("v1.3", _V1_3, "7b", "merged", "vicuna-7b-v1.5"),
    ("v1.3", _V1_3, "13b", "merged", "vicuna-13b-v1.5"),
    ("v1.3", _V1_3, "33b", "merged", None),
    ("v1.5", _V1_5, "7b", "merged", None),
    ("v1.5", _V1_5, "13b", "merged", None),
    ("v1.5-16k", _LONG, "7b", "merged", None),
    ("v1.5-16k", _LONG, "13b", "merged", None),
)


def _release(
    version: str, shared: _Version, size: str, form: Literal["delta", "merged"], successor: str | None
) -> Release:
    name = f"vicuna-{size}-{'delta-' * (form == 'delta')}{version}"
    num_layers, width, heads, feed_forward = _SIZES[size]
    shape = llama_shape(
        name,
        num_layers=num_layers,
        width=width,
        heads=heads,
        feed_forward=feed_forward,
        vocab_size=shared.vocab_size,
        context=shared.context,
        dtype="f16",
    )
    return Release(
        name=name,
        version=version,
        hub_id=f"lmsys/{name}",
        form=form,
        base=f"{shared.base} {size.upper()}",
        template=shared.template,
        separator=shared.separator,
        released=shared.released,
        num_conversations=shared.num_conversations,
        licence=shared.licence,
        successor=successor,
        shape=shape,
        notes=shared.notes,
    )


RELEASES: dict[str, Release] = {release.name: release for release in (_release(*row) for row in _PUBLISHED)}

# In front: nothing, a folder, or the organisation; "wizard-vicuna-13b" is another model.
_NAME = re.compile(
    r"(?:^|/|(?:^|/)lmsys[-_])vicuna[-_](7|13|33)b[-_](delta[-_])?v(0|1\.1|1\.3|1\.5)([-_]16k)?(?![\w]|\.\d)",
    re.IGNORECASE,
)
_UNVERSIONED = re.compile(r"(?:^|/|(?:^|/)lmsys[-_])vicuna[-_](7|13)b(?![\w])", re.IGNORECASE)


def find(name: str) -> Release | None:
    """The release that a name means, with or without organisation; v0, which was never merged, also without "delta"."""
    match = _NAME.search(name)
    if match is None:
        return None
    size, delta, version, long = match.groups()
    tail = f"v{version}{'-16k' if long else ''}"
    merged, as_delta = f"vicuna-{size}b-{tail}", f"vicuna-{size}b-delta-{tail}"
    return RELEASES.get(as_delta) if delta else RELEASES.get(merged) or RELEASES.get(as_delta)


def recognise(names: Iterable[str | None], *, vocab_size: int, width: int) -> Release | None:
    """Which Vicuna a checkpoint is, by the first of its names that says so. None: it is none, or does not say which.

    A name without version and the vocabulary of v0 is v0. A width that the named size has not is another model.
    """
    given = [name for name in names if name]
    for name in given:
        if (release := find(name)) and release.shape.width == width:
            return release
    for name in given:
        match = _UNVERSIONED.search(name)
        if match and vocab_size == PADDED_VOCABULARY and _NAME.search(name) is None:
            release = RELEASES[f"vicuna-{match[1]}b-delta-v0"]
            return release if release.shape.width == width else None
    return None


def require_merged(model: str, names: Iterable[str | None]) -> None:
    """Raise ConfigError for a checkpoint that is called a delta: its weights are differences, not a model."""
    for name in names:
        if name and (match := _NAME.search(name)) and match[2] and (release := find(name)):
            raise ConfigError(
                f"{model} is {release.name}, a delta: without its base, {release.base}, it is not a model",
                fix="add it to its base first: chaku weights apply-delta BASE DELTA -o MODEL",
            )


def check_template(model: str, release: Release, *, vocab_size: int, template: str | None) -> str | None:
    """Raise ConfigError where a checkpoint's vocabulary or template (Jinja, or a built-in's name) is another version's.

    `model` is what to call the checkpoint. `template` None: there is none yet, so none is wrong. Returns a note where
    the template is not Vicuna's at all, as that of a further fine-tune may be.
    """
    wants = release.shape.vocab_size
    if vocab_size > wants and vocab_size == PADDED_VOCABULARY:
        raise ConfigError(
            f"{model} is named as Vicuna {release.version}, whose vocabulary is {wants:,}, and has {vocab_size:,} "
            "tokens, as only v0 has (an added [PAD])",
            fix="if these are v0 weights, name them vicuna-...-v0; otherwise apply the delta to its base again",
            param="template",
        )
    if vocab_size < wants:
        raise ConfigError(
            f"{model} is named as Vicuna v0, whose vocabulary is {wants:,} ([PAD] was added), and has {vocab_size:,} "
            "tokens",
            fix="if it is v1.1 or later, give it its version's name; otherwise apply the v0 delta to its base again",
            param="template",
        )
    right: Family = "v0" if release.version == "v0" else "v1"
    if template is None or (family := family_of(template)) == right:
        return None
    if family is None:
        return f"{model} is named as Vicuna {release.version}, its template is not Vicuna's (--template sets another)"
    raise ConfigError(
        f"{model} is Vicuna {release.version}, trained with {_EXPLAINED[right]}; its template writes "
        f"{_EXPLAINED[family]}",
        fix=f"--template {release.template}, in YAML template: {release.template}",
        param="template",
    )


_EXPLAINED: dict[Family, str] = {
    "v0": '"### Human: ... ### Assistant: ..." where ### ends an answer (vocabulary 32,001)',
    "v1": '"USER: ... ASSISTANT: ..." where </s> ends an answer (vocabulary 32,000)',
}


def family_of(template: str) -> Family | None:
    """Which Vicunas a template is for: a built-in's name, or Jinja, told by the marks it writes. None: for neither."""
    if template in ("vicuna_v0", "vicuna_v1.1", "vicuna_v1.3", "vicuna_v1.5"):
        return "v0" if template == "vicuna_v0" else "v1"
    if "###" in template and "Human" in template:
        return "v0"
    return "v1" if "USER" in template and "ASSISTANT" in template else None
