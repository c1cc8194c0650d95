"""Chooses the chat template for a model's file: the setting's, the file's, or the one of its Vicuna release."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from chaku.chat.export import to_jinja
from chaku.chat.segments import EOS
from chaku.chat.templates import Template, get_template
from chaku.models import vicunas
from chaku.models.files.gguf import GgufMetadata
from chaku.settings import ModelConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The replacement for the file's own template; empty if that one is right."""

    jinja: str | None = None
    stops: tuple[str, ...] = ()
    """Texts that end an answer, where the template ends it with text and not with a special token."""


def choose(name: str, config: ModelConfig, metadata: GgufMetadata) -> Choice:
    """The template to serve a file with.

    Raises ConfigError for an unknown `template`, and for a known Vicuna with vocabulary or template of another version.
    """
    chosen = get_template(config.template) if config.template else None
    names = (config.source, metadata.name, metadata.path.stem)
    vicunas.require_merged(name, names)
    release = vicunas.recognise(names, vocab_size=metadata.vocab_size, width=metadata.embedding_length)
    if release is not None:
        if release.notice:
            log.warning("outdated model=%s %s", name, release.notice)
        template = config.template or metadata.chat_template
        note = vicunas.check_template(name, release, vocab_size=metadata.vocab_size, template=template)
        if note:
            log.warning("template model=%s %s", name, note)
        if template is None:
            chosen = get_template(release.template)
            log.info("template model=%s %s, of Vicuna %s: the file has none", name, chosen.name, release.version)
    if chosen is None:
        return Choice()
    return Choice(to_jinja(chosen, bos=metadata.add_bos is not False), stops_of(chosen))


def given_stops(body: dict[str, Any]) -> list[str]:
    """The `stop` of a request as a list."""
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else list(stop)


def stops_of(template: Template) -> tuple[str, ...]:
    """Texts that end an answer. Its own end comes first: with the line break that belongs to it."""
    if not template.stop:
        return ()
    return tuple(dict.fromkeys((template.end, *template.stop))) if template.end != EOS else template.stop
