"""manifest.json: what a built set is made of and holds. It names no machine and no time, so equal builds are equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from chaku.data.inputs.counts import Inputs
from chaku.data.ledger import StageCounts
from chaku.errors import UsageError
from chaku.records import change_of, describe_file

FORMAT = 1
_FILES = ("messages/*.jsonl", "rows/*.arrow", "ledger/*.parquet")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a built set. Raises UsageError for a folder that is none."""
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        fix = "run the same `chaku data build` again, it resumes where it stopped"
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


def describe_inputs(paths: list[Path], digests: list[str], containers: list[str], counts: Inputs) -> Any:
    """One entry a file: name, sha256, size, how it holds records, and what became of them."""
    inputs = []
    for number, (path, digest, container) in enumerate(zip(paths, digests, containers, strict=True)):
        inputs.append(
            {
                "name": path.name, "sha256": digest, "bytes": path.stat().st_size, "container": container,
                **counts.by_number[number].to_json(),
            }
        )  # fmt: skip
    return inputs


def describe_files(folder: Path) -> dict[str, Any]:
    """Size and sha256 of every file that a built set consists of, by its path in the folder."""
    return {str(path.relative_to(folder)): describe_file(path) for path in _files(folder)}


def file_errors(folder: Path, manifest: dict[str, Any], *, hashes: bool) -> list[str]:
    """In which ways the files are not those that were built; sizes alone without `hashes`.

    None are known of a set that was built before manifests held them.
    """
    described: dict[str, Any] | None = manifest.get("files")
    if described is None:
        return []
    changes = {name: change_of(folder / name, described[name], hashes=hashes) for name in sorted(described)}
    errors = [f"{name} can't be read as it was built: it {change}" for name, change in changes.items() if change]
    found = (str(path.relative_to(folder)) for path in _files(folder))
    return errors + [f"{name} is not a file of this set" for name in found if name not in described]


def _files(folder: Path) -> list[Path]:
    return sorted(path for pattern in _FILES for path in folder.glob(pattern))


def write_json(path: Path, value: Any) -> None:
    """Indented JSON that ends with a newline."""
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
