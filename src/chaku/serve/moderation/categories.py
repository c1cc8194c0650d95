"""The categories that the judges of a policy name, as far as they are known before a judge has answered."""

from __future__ import annotations

import re

from chaku.data.rules.content import CONTENT_RULES
from chaku.errors import ConfigError
from chaku.nearest import nearest
from chaku.policies import ModerationPolicy
from chaku.serve.moderation.judges import FLAGGED, UNSAFE

_GUARDS = (
    (re.compile(r"llama-?guard-?[34]", re.I), tuple(f"S{number}" for number in range(1, 15))),
    (re.compile(r"llama-?guard-?2", re.I), tuple(f"S{number}" for number in range(1, 12))),
    (re.compile(r"llama-?guard", re.I), tuple(f"O{number}" for number in range(1, 7))),
)
"""Guard models by their names, and the categories of their model cards. The first that fits counts."""
_OPENAI_MODELS = ("omni-moderation", "text-moderation")
_OPENAI = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors"),
    *("violence", "violence/graphic"),
)
"""As OpenAI's reference of /v1/moderations lists them."""


def word_categories(policy: ModerationPolicy) -> tuple[str, ...]:
    """The categories of the word rules and patterns."""
    return (*(CONTENT_RULES if policy.rules else ()), *policy.patterns)


def unknown_categories(policy: ModerationPolicy, guard_source: str = "") -> str | None:
    """A warning about categories in `actions` that no judge is known to name; None where there is none.

    A guard model is recognised by its name or by `guard_source`. Raises ConfigError if the categories of every judge
    are known: then the setting has no effect.
    """
    known, strangers = [*word_categories(policy)], []
    if policy.url is not None:
        strangers.append("the moderation API")
        known += [*_OPENAI, FLAGGED] if policy.url_model.startswith(_OPENAI_MODELS) else [FLAGGED]
    if policy.guard is not None:
        of_guard = _categories_of_guard(f"{policy.guard} {guard_source}")
        strangers += [] if of_guard else [policy.guard]
        known += [*of_guard, UNSAFE]
    unknown = [category for category in policy.actions if category not in known]
    if not unknown:
        return None
    near = nearest(unknown[0], known)
    fix = f"{f'did you mean {near}? ' if near else ''}known categories: {', '.join(known)}"
    what = f"moderation.actions has {', '.join(map(repr, unknown))}"
    if not strangers:
        raise ConfigError(f"{what}, and no judge of the policy names that", fix=fix, param="moderation.actions")
    return f"{what}. Whether {' or '.join(strangers)} names that is not known here; {fix}"


def _categories_of_guard(names: str) -> tuple[str, ...]:
    return next((categories for pattern, categories in _GUARDS if pattern.search(names)), ())
