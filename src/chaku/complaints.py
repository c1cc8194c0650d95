"""What is wrong with a value, in plain words: what was found, and what is needed instead."""

from __future__ import annotations

import reprlib
from typing import Any

MAX_EXACT_INT = 2**53 - 1
"""Every reader of JSON tells whole numbers apart up to here (JavaScript's Number.MAX_SAFE_INTEGER)."""
MODEL_NAME = r"^[^\p{C}\p{Z}][^\p{C}\p{Zl}\p{Zp}]*$"
"""A model's name is printable. (An expression of Rust's, as pydantic takes it.)"""
FUNCTION_NAME = r"^[a-zA-Z0-9_.-]{1,64}$"
TOKEN_ID = r"^\d+$"  # noqa: S105
_PATTERNS = {
    MODEL_NAME: "printable characters are needed, none of them a line break, and no space first",
    FUNCTION_NAME: "1 to 64 letters, digits, underscores, dots and dashes are needed",
    TOKEN_ID: "a token id, written in digits, is needed",
}
MAX_SHOWN_CHARS = 80
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxtuple = 2, 3, 3, 3
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = MAX_SHOWN_CHARS - 3


def shown(value: Any) -> str:
    """The beginning of a value; costs the same for a value of any size."""
    text = _SHORT.repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."


def not_utf8(name: str, error: UnicodeDecodeError) -> str:
    """Bytes that are no text; `name` says which. The byte is counted from 0."""
    return f"{name} is not UTF-8 text: byte {error.start} is invalid"


def in_words(complaint: Any) -> str:
    """What a value must be, from one item of `ValidationError.errors()`."""
    context = complaint.get("ctx", {})
    match complaint["type"]:
        case "greater_than_equal":
            return f"at least {_limit(context['ge'])} is needed"
        case "greater_than":
            return f"more than {_limit(context['gt'])} is needed"
        case "less_than_equal":
            return f"at most {_limit(context['le'])} is allowed"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return "a whole number is needed"
        case "float_type" | "float_parsing":
            return "a number is needed"
        case "finite_number":
            return "a finite number is needed"
        case "bool_type" | "bool_parsing":
            return "true or false is needed"
        case "string_type" | "path_type":
            return "a text is needed"
        case "string_unicode":
            return "half of a surrogate pair is not a character"
        case "tuple_type" | "list_type":
            return "a list is needed"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "a mapping of keys to values is needed"
        case "none_required":
            return "only null is allowed"
        case "literal_error":
            expected = context["expected"]
            return f"one of {expected} is needed" if " or " in expected else f"{expected} is needed"
        case "union_tag_invalid":
            return f"{_field(context)} must be one of {context['expected_tags']}"
        case "union_tag_not_found":
            return f"{_field(context)} is missing"
        case "string_pattern_mismatch" if context["pattern"] in _PATTERNS:
            return _PATTERNS[context["pattern"]]
        case "string_too_long":
            return f"at most {context['max_length']:,} characters are allowed"
        case "string_too_short":
            return "a text that is not empty is needed"
        case "too_short":
            return f"at least {context['min_length']:,} is needed"
        case "too_long":
            return f"at most {context['max_length']:,} are allowed"
        case "value_error":
            return str(context["error"])
    return str(complaint["msg"])


def _limit(number: float) -> str:
    return str(number).removesuffix(".0")


def _field(context: Any) -> str:
    return str(context.get("discriminator", "type")).strip("'")
