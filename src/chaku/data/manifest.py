"""manifest.json: what a built set is made of and holds. It names no machine and no time, so equal builds are equal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from chaku.data.ledger import StageCounts
from chaku.errors import UsageError

FORMAT = 1


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a built set. Raises UsageError for a folder that is none."""
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        fix = "run the same `chaku data build` again, it goes on where it stopped"
        if not (folder / ".work").is_dir():
            fix = "give the folder that `chaku data build -o` wrote"
        raise UsageError(f"{folder} holds no finished set: no manifest.json", fix=fix) from None
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{path} is not JSON: {error}", fix="build the set again") from None
    if manifest.get("format") != FORMAT:
        raise UsageError(f"{path} has format {manifest.get('format')}, known is {FORMAT}", fix="build the set again")
    return manifest


def counts_of(manifest: dict[str, Any]) -> dict[str, StageCounts]:
    """The funnel, in the order of the stages."""
    return {stage: StageCounts.from_json(counts) for stage, counts in manifest["counts"].items()}


def describe_inputs(paths: list[Path], digests: list[str], containers: list[str], formats: Counter[str]) -> Any:
    """One entry a file: name, sha256, size, how it holds records, and how many of which format."""
    inputs = []
    for number, (path, digest, container) in enumerate(zip(paths, digests, containers, strict=True)):
        own = {key.partition(":")[2]: count for key, count in sorted(formats.items()) if key.startswith(f"{number}:")}
        inputs.append(
            {
                "name": path.name, "sha256": digest, "bytes": path.stat().st_size, "container": container,
                "formats": own,
            }
        )  # fmt: skip
    return inputs


def write_json(path: Path, value: Any) -> None:
    """Indented JSON that ends with a newline."""
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
