"""Whether an answer gives away which model wrote it. Such a vote is kept, marked, and not counted."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FAMILIES = (
    *(
        "openai",
        "chatgpt",
        "gpt",
        "anthropic",
        "claude",
        "google",
        "gemini",
        "gemma",
        "bard",
        "deepmind",
        "meta",
        "llama",
    ),
    *("mistral", "mixtral", "alibaba", "qwen", "deepseek", "microsoft", "phi", "hugging face", "huggingface", "smollm"),
    *("vicuna", "alpaca", "lmsys", "cohere", "command r", "grok", "xai", "yi", "01.ai", "zhipu", "glm", "chatglm"),
    *("falcon", "stablelm", "stability ai", "nvidia", "nemotron", "olmo", "allen institute", "kimi", "moonshot"),
)
_CLAIM = (
    r"(?:\bI am\b|\bI['’]m\b|\bmy name is\b|\bcall(?:ed)? me\b|\bI was (?:created|developed|trained|made|built)\b"
    r"|\b(?:created|developed|trained|made|built) by\b|\bas an? (?:AI|language|large)\b|\bmy (?:makers?|creators?)\b)"
)
_REACH = 60
"""Characters between a claim and the name."""
_SPACES = re.compile(r"\s+")


def leaks_identity(answers: Iterable[str], models: Iterable[str], contestants: Iterable[str]) -> bool:
    """Whether an answer has a full name in it, or says of itself a family or a maker.

    A name that is a plain word (a contestant called pirate) says nothing to a visitor who does not know the names.
    """
    models = set(models)
    full = [name for name in models | set(contestants) if len(name) >= 6 and re.search(r"[\d._/-]", name)]
    full += [name.rsplit("/", 1)[-1] for name in full]
    claimed = {*_FAMILIES, *(word for name in models for word in _words(name))}
    names = "|".join(sorted(map(re.escape, full), key=len, reverse=True))
    claims = re.compile(
        rf"{_CLAIM}[^.!?\n]{{0,{_REACH}}}?(?<!\w)(?:{'|'.join(sorted(map(re.escape, claimed), key=len, reverse=True))})"
        r"(?![a-z])",
        re.IGNORECASE,
    )
    named = re.compile(rf"(?<!\w)(?:{names})(?!\w)", re.IGNORECASE) if names else None
    for answer in answers:
        text = _SPACES.sub(" ", answer)
        if (named is not None and named.search(text)) or claims.search(text):
            return True
    return False


_PLAIN_WORDS = frozenset(
    {"chat", "instruct", "model", "base", "mini", "small", "large", "demo", "plain", "test", "preview"}
)


def _words(name: str) -> list[str]:
    """The words of a model's name that say which it is."""
    return [word for word in re.findall(r"[A-Za-z]{4,}", name) if word.lower() not in _PLAIN_WORDS]
