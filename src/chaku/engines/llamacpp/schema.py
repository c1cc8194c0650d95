"""Checks that llama.cpp enforces a JSON schema. The rest is refused: its server drops in silence what it can't compile.

Pure. The keywords were tried one by one against the grammar engine in `xllamacpp` (llguidance): docs/engines.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from chaku.complaints import MAX_EXACT_INT, shown
from chaku.errors import InvalidRequest

_ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly",
})  # fmt: skip
_ENFORCED = frozenset({
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems",
    "maxItems", "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions",
})  # fmt: skip
_TYPES = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
_FORMATS = frozenset({"date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_SINGLES = ("items", "additionalProperties")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_MOST_COUNTED = 2000
MAX_SCHEMAS = 500
MAX_CHOICES = 500
"""1,000 properties that may be left out took llama.cpp half a minute, 5,000 values of an enum over a minute; 500 take
seconds."""
MAX_PATTERN_CHARS = 1000
MAX_GROUPS = 100
"""Python's own compiler gives up near 1,000 groups inside each other."""
_REGEX = re.compile(
    r"(?:[^\\\[\](){}*+?]|\\[dDwWsSnrt.\-/\\^$|()\[\]{}*+?@]|\[\^?(?:[^\\\[\]&~]|\\.)+\]|\((?:\?:|(?!\?))|[)*+?]|\{\d{1,3}(?:,\d{0,3})?\})*"
)
"""The part of regular expressions that Python, ECMAScript and Rust read alike: no look-around, no back references."""


def check_schema(schema: Any, param: str) -> None:
    """Raises InvalidRequest with the path of the first keyword that llama.cpp does not enforce as its `param`."""
    _check(schema, param, schema, _Size(param))


class _Size:
    """Counts what a grammar grows with: every token of every stream waits while llama.cpp works on a large one."""

    def __init__(self, param: str) -> None:
        self._param = param
        self._num_schemas = self._num_choices = 0

    def add(self, schema: dict[str, Any]) -> None:
        """Raises InvalidRequest where the whole schema is over a limit."""
        self._num_schemas += 1
        choices = schema.get("enum")
        self._num_choices += len(choices) if isinstance(choices, list) else 0
        if self._num_schemas > MAX_SCHEMAS:
            raise _refuse(self._param, f"at most {MAX_SCHEMAS} properties and inner schemas can be enforced")
        if self._num_choices > MAX_CHOICES:
            raise _refuse(self._param, f"at most {MAX_CHOICES} values of enum can be enforced")


def _check(schema: Any, param: str, root: Any, size: _Size) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _refuse(param, f"{shown(schema)} is not a JSON schema")
    size.add(schema)
    for keyword, value in schema.items():
        here = f"{param}.{keyword}"
        if keyword in _ANNOTATIONS:
            continue
        if keyword not in _ENFORCED:
            raise _refuse(here, f"llama.cpp does not enforce {keyword}: leave it out, and check the answer yourself")
        _check_value(keyword, value, here, root)
    for path, inner in _inner_schemas(schema):
        _check(inner, f"{param}.{path}", root, size)


def _check_value(keyword: str, value: Any, here: str, root: Any) -> None:
    if keyword == "type":
        kinds = value if isinstance(value, list) else [value]
        if not kinds or not all(isinstance(kind, str) and kind in _TYPES for kind in kinds):
            raise _refuse(here, f"{shown(value)} is not a type of JSON: there are {', '.join(sorted(_TYPES))}")
    elif keyword == "$ref":
        if not isinstance(value, str) or not _resolves(value, root):
            raise _refuse(here, f"{shown(value)} leads nowhere: it must point into this schema, as #/$defs/name does")
    elif keyword == "pattern":
        if isinstance(value, str) and (len(value) > MAX_PATTERN_CHARS or value.count("(") > MAX_GROUPS):
            raise _refuse(here, f"at most {MAX_PATTERN_CHARS:,} characters and {MAX_GROUPS} groups can be enforced")
        if not isinstance(value, str) or not _is_simple_regex(value):
            raise _refuse(here, f"{shown(value)} can't be enforced: plain regular expressions can, without look-around")
    elif keyword == "format":
        if value not in _FORMATS:
            raise _refuse(here, f"{shown(value)} is not enforced: {', '.join(sorted(_FORMATS))} are")
    elif keyword in _COUNTS:
        if type(value) is not int or not 0 <= value <= _MOST_COUNTED:
            raise _refuse(here, f"{shown(value)} can't be enforced: 0 to {_MOST_COUNTED:,} can")
    elif keyword in _BOUNDS:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > MAX_EXACT_INT:
            raise _refuse(here, f"{shown(value)} can't be enforced: numbers up to {MAX_EXACT_INT:,} can")
    elif keyword == "required":
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise _refuse(here, "it must be a list of property names")
    elif keyword in ("enum", *_LISTS):
        if not isinstance(value, list) or not value:
            raise _refuse(here, "it must be a list with something in it")
    elif keyword in _MAPS and not isinstance(value, dict):
        raise _refuse(here, "it must be an object of schemas")


def _is_simple_regex(pattern: str) -> bool:
    if not _REGEX.fullmatch(pattern):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _inner_schemas(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for keyword in _MAPS:
        for name, inner in schema.get(keyword, {}).items():
            yield f"{keyword}.{name}", inner
    for keyword in _LISTS:
        for index, inner in enumerate(schema.get(keyword, ())):
            yield f"{keyword}.{index}", inner
    for keyword in _SINGLES:
        if keyword in schema:
            yield keyword, schema[keyword]


def _resolves(reference: str, root: Any) -> bool:
    if not reference.startswith("#"):
        return False
    here = root
    for part in unquote(reference[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, list) and name.isdigit() and int(name) < len(here):
            here = here[int(name)]
        elif isinstance(here, dict) and name in here:
            here = here[name]
        else:
            return False
    return isinstance(here, (dict, bool)) and (reference == "#" or reference.startswith("#/"))


def _refuse(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {why}", param=param, code="invalid_json_schema")


def call_schema(functions: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A JSON schema whose instances are {"name": ..., "arguments": {...}} for one of the functions.

    The functions' parameters lie under `$defs`, with what their references point to.
    """
    calls: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {}
    for index, function in enumerate(functions):
        place = f"f{index}"
        parameters[place] = _moved(function.get("parameters") or {}, f"#/$defs/{place}") | {"type": "object"}
        calls.append({
            "type": "object",
            "properties": {"name": {"const": function["name"]}, "arguments": {"$ref": f"#/$defs/{place}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        })  # fmt: skip
    return {**(calls[0] if len(calls) == 1 else {"anyOf": calls}), "$defs": parameters}


def _moved(schema: Any, place: str) -> Any:
    """The schema as it must read where it is no longer the root, but lies at `place`."""
    if not isinstance(schema, dict):
        return schema
    moved = {keyword: value for keyword, value in schema.items() if keyword not in ("$id", "$schema")}
    if "$ref" in moved:
        moved["$ref"] = place + str(moved["$ref"])[1:]
    for keyword in _MAPS:
        if keyword in moved:
            moved[keyword] = {name: _moved(inner, place) for name, inner in moved[keyword].items()}
    for keyword in _LISTS:
        if keyword in moved:
            moved[keyword] = [_moved(inner, place) for inner in moved[keyword]]
    for keyword in _SINGLES:
        if keyword in moved:
            moved[keyword] = _moved(moved[keyword], place)
    return moved
