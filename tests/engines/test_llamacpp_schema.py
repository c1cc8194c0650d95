from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.engines.llamacpp.schema import call_schema, check_schema
from chaku.errors import InvalidRequest

CITY = {
    "type": "object",
    "title": "City",
    "properties": {
        "name": {"$ref": "#/$defs/Name"},
        "near": {"anyOf": [{"$ref": "#"}, {"type": "null"}], "default": None},
        "born": {"type": ["string", "null"], "format": "date"},
        "zip": {"type": "string", "pattern": "^[0-9]{5}(-\\d{4})?$"},
        "size": {"type": "number", "minimum": 0, "exclusiveMaximum": 1.5},
        "tags": {"type": "array", "items": {"enum": ["a", 1, None]}, "maxItems": 3},
        "$ref": {"type": "boolean"},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"Name": {"type": "string", "maxLength": 9}},
}


def test_a_schema_of_enforced_keywords_is_taken() -> None:
    check_schema(CITY, "x")
    check_schema(True, "x")
    check_schema({}, "x")


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "banana"}, "type"),
        ({"type": []}, "type"),
        ({"$ref": "#/nope"}, "$ref"),
        ({"$ref": "http://x.y/z"}, "$ref"),
        ({"type": "string", "pattern": "([0-9]"}, "pattern"),
        ({"pattern": "^(?=a)b$"}, "pattern"),
        ({"pattern": "(a)\\1"}, "pattern"),
        ({"pattern": "a{9999}"}, "pattern"),
        ({"type": "integer", "multipleOf": 5}, "multipleOf"),
        ({"uniqueItems": True}, "uniqueItems"),
        ({"not": {}}, "not"),
        ({"if": {}}, "if"),
        ({"minProperties": 1}, "minProperties"),
        ({"patternProperties": {}}, "patternProperties"),
        ({"format": "zork"}, "format"),
        ({"maximum": 10**20}, "maximum"),
        ({"minimum": True}, "minimum"),
        ({"minLength": 100_000}, "minLength"),
        ({"enum": []}, "enum"),
        ({"anyOf": [{"type": "null"}, {"not": {}}]}, "anyOf.1.not"),
        ({"properties": {"a": {"items": {"contains": {}}}}}, "properties.a.items.contains"),
        ({"properties": []}, "properties"),
        ({"items": 3}, "items"),
        ({"$defs": {"A": {"zork": 1}}}, "$defs.A.zork"),
    ],
)
def test_what_llama_cpp_would_drop_is_refused_by_its_path(schema: Any, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_schema(schema, "response_format.json_schema.schema")
    assert caught.value.param == f"response_format.json_schema.schema.{path}"


@pytest.mark.parametrize("num_functions", [1, 2])
def test_a_call_s_arguments_keep_what_their_references_meant(num_functions: int) -> None:
    functions = [{"name": f"f{i}", "parameters": {**CITY, "$id": "http://x/y"}} for i in range(num_functions)]
    schema = call_schema(functions)
    check_schema(schema, "tools")  # every reference leads somewhere
    for i, call in enumerate(schema.get("anyOf", [schema])):
        assert call["properties"] == {"name": {"const": f"f{i}"}, "arguments": {"$ref": f"#/$defs/f{i}"}}
        moved = schema["$defs"][f"f{i}"]
        assert "$id" not in moved, "it would change what references are relative to"
        assert moved["properties"]["name"] == {"$ref": f"#/$defs/f{i}/$defs/Name"}
        assert moved["properties"]["near"]["anyOf"][0] == {"$ref": f"#/$defs/f{i}"}
        assert moved["properties"]["$ref"] == {"type": "boolean"}, "a property may have that name"


def test_a_function_without_parameters_takes_an_object() -> None:
    assert call_schema([{"name": "f"}])["$defs"] == {"f0": {"type": "object"}}


@pytest.mark.parametrize(
    ("schema", "limit"),
    [
        ({"type": "string", "pattern": "(" * 3000 + "a" + ")" * 3000}, "100 groups"),
        ({"type": "string", "pattern": "a" * 1001}, "1,000 characters"),
        ({"enum": [str(number) for number in range(501)]}, "500 values"),
        ({"type": "object", "properties": {str(number): {} for number in range(500)}}, "500 properties"),
        ({"anyOf": [{"anyOf": [{}] * 100}] * 10}, "500 properties"),
    ],
)
def test_a_schema_that_costs_too_much_is_refused_with_the_limit(schema: dict[str, Any], limit: str) -> None:
    with pytest.raises(InvalidRequest, match=limit) as caught:
        check_schema(schema, "response_format")
    assert caught.value.code == "invalid_json_schema"


@given(st.text(st.sampled_from("()[]{}*+?|\\a1,^$.:"), max_size=40), st.integers(0, 3000))
def test_any_pattern_is_taken_or_refused(pattern: str, depth: int) -> None:
    nested = "(" * depth + pattern + ")" * depth
    with contextlib.suppress(InvalidRequest):
        check_schema({"type": "string", "pattern": nested}, "response_format")
