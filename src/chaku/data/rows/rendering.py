"""From the names in a recipe to something that renders: the tokenizer, the template, and both together."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from chaku.chat.messages import Conversation
from chaku.data.recipe import DataConfig
from chaku.errors import ModelError

if TYPE_CHECKING:
    from chaku.chat.render import Rendered, Renderer, Turns
    from chaku.chat.segments import Layout, Segment
    from chaku.chat.tokenizer import Tokenizer

_CACHED_TEXTS = 512


class _Cached:
    """A tokenizer that remembers its last texts: splitting renders the same turns several times."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.encode_text = functools.lru_cache(maxsize=_CACHED_TEXTS)(tokenizer.encode_text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@dataclass(frozen=True)
class Rendering:
    """Tokenizer and template of a built set."""

    tokenizer: Tokenizer
    template: Layout
    renderer: Renderer
    train_on: str

    @property
    def turns(self) -> Turns:
        """Which turns carry loss."""
        return "last" if self.train_on == "last" else "all"

    def lay_out(self, conversation: Conversation) -> Sequence[Segment]:
        """The pieces that are rendered, in order. Raises InvalidRequest as `render` does."""
        bos = (self.tokenizer.bos or "") if self.tokenizer.adds_bos else ""
        return self.template.lay_out(conversation, bos=bos, eos=self.tokenizer.eos)

    def render(self, conversation: Conversation) -> Rendered:
        """Ids and loss mask of a whole conversation. Raises InvalidRequest for what the template has no place for."""
        return self.renderer.render_for_training(conversation, turns=self.turns)


@functools.lru_cache(maxsize=4)
def open_rendering(tokenizer_source: str, template_name: str | None, train_on: str = "all") -> Rendering:
    """Load the tokenizer (no torch) and its template. Raises ModelError or ConfigError saying what is missing."""
    from chaku.chat.render import Renderer
    from chaku.models.tokenizers.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(find_tokenizer(tokenizer_source))
    template = _template(tokenizer, template_name)
    return Rendering(tokenizer, template, Renderer(template, cast("Tokenizer", _Cached(tokenizer))), train_on)


def rendering_of(config: DataConfig) -> Rendering:
    """The rendering that a configuration asks for; loaded once a process."""
    return open_rendering(config.tokenizer, config.template, config.train_on)


def find_tokenizer(source: str) -> Path:
    """The file or folder of a tokenizer: a path, a model that was pulled, or a repository in the hub's cache.

    Nothing is fetched. Raises ModelError.
    """
    from chaku.models.fetch import cache
    from chaku.models.fetch.folders import in_hub_cache
    from chaku.models.reference import LocalFile, parse_reference

    if (path := Path(source).expanduser()).exists():
        return path
    reference = parse_reference(source)
    if isinstance(reference, LocalFile):
        if (folder := in_hub_cache(*source.partition("@")[::2])) is not None:
            return folder
        raise ModelError(
            f"no tokenizer at {reference.path}",
            fix="check the path; one on the hub is fetched by `chaku train --dry-run` or `hf download`",
        )
    model = cache.find(reference)
    if model is None:
        raise ModelError(f"the tokenizer of {source} is not here", fix=f"chaku pull {source}, or give --tokenizer PATH")
    return model.path


def _template(tokenizer: Tokenizer, name: str | None) -> Layout:
    from chaku.chat.jinja import JinjaTemplate
    from chaku.chat.templates import get_template

    if name in (None, "own"):
        return JinjaTemplate.of(tokenizer)
    template = get_template(str(name))
    if missing := [mark for mark in template.tokens if tokenizer.special_id(mark) is None]:
        raise ModelError(
            f"template {template.name} needs the special tokens {', '.join(missing)}, which {tokenizer.name} lacks:"
            " answers would never end, and anybody's text could begin a turn",
            fix="choose the tokenizer's own template, or one whose marks are text, such as vicuna_v1.1",
        )
    return template
