"""`chaku data build`: the whole way from files to a built set, resumable at any moment.

Map: prepare (import to decontaminate) -> barrier: duplicates -> map: tokenise (split, ids) -> barrier: packing plan ->
map: rows -> audit -> publish. Each shard is a folder that is whole or absent under DIR/.work/KEY, where KEY stands for
everything that determines the bytes; what is there is not done again. The manifest comes last.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

import chaku
from chaku.data.inputs import sources
from chaku.data.ledger import merge
from chaku.data.manifest import FORMAT, describe_files, describe_inputs, read_manifest, write_json
from chaku.data.parallel import Workers, num_cores
from chaku.data.phases import STAGES, Phases
from chaku.data.publish import join, publish
from chaku.data.recipe import DataConfig
from chaku.data.same_set import is_same_set, settings_of
from chaku.data.watcher import Silent, Watcher
from chaku.errors import ModelError, UsageError
from chaku.records import sha256_file


@dataclass(frozen=True)
class Built:
    """What a build gives back."""

    folder: Path
    manifest: dict[str, Any]
    was_there: bool
    """The same set had been built before; nothing was done."""


def build(
    config: DataConfig,
    folder: Path,
    *,
    name: str = "unnamed",
    processes: int | None = None,
    overwrite: bool = False,
    keep_older: bool = False,
    watcher: Watcher | None = None,
) -> Built:
    """Build a set, or go on with one that was interrupted. Same input, config and seed give the same bytes.

    With `keep_older`, a set of the same inputs and settings stays as it is though an older chaku built it.
    Raises UsageError for inputs that can't be read and for a folder that holds another set.
    """
    with Workers(processes or num_cores()) as workers:
        return _Build(config, folder, name, workers, watcher or Silent()).run(overwrite, keep_older)


class _Build:
    def __init__(self, config: DataConfig, folder: Path, name: str, workers: Workers, watcher: Watcher) -> None:
        if not config.inputs:
            raise UsageError("no input files", fix="name some: chaku data build FILE... -o DIR")
        self.config = config
        self.folder = folder
        self.name = name
        self.workers = workers
        self.watcher = watcher
        self.inputs = list(config.inputs)
        self.names = _unique_stems(self.inputs)
        self.rendering, self.missing = self._open_rendering()
        self.containers = [sources.detect(path) for path in self.inputs]
        self.digests = [sha256_file(path) for path in self.inputs]
        self.described = self._describe()
        self.key = hashlib.sha256(orjson.dumps(self.described, option=orjson.OPT_SORT_KEYS)).hexdigest()
        self.work = folder / ".work" / self.key[:16]
        has_tokenizer = self.rendering is not None
        self.phases = Phases(config, self.names, self.work, workers, watcher, has_tokenizer=has_tokenizer)

    def _open_rendering(self) -> tuple[Any, ModelError | None]:
        from chaku.data.rows.rendering import rendering_of

        try:
            return rendering_of(self.config), None
        except ModelError as error:
            if "tokenizer" in self.config.model_fields_set:
                raise
            return None, error

    def _describe(self) -> dict[str, Any]:
        rendering = self.rendering
        return {
            "format": FORMAT,
            "chaku": chaku.__version__,
            "name": self.name,
            "inputs": list(zip(self.names, self.digests, strict=True)),
            "config": settings_of(self.config),
            "decontaminate": [[path.name, sha256_file(path)] for path in self.config.decontaminate],
            "tokenizer": rendering and {"source": self.config.tokenizer, "hash": rendering.tokenizer.hash},
            "template": rendering and {"name": rendering.template.name, "hash": rendering.template.hash},
        }

    def run(self, overwrite: bool, keep_older: bool) -> Built:
        if self._is_built(keep_older):
            shutil.rmtree(self.folder / ".work", ignore_errors=True)
            return Built(self.folder, read_manifest(self.folder), was_there=True)
        if (self.folder / "manifest.json").exists() and not overwrite:
            raise UsageError(
                f"{self.folder} holds another set (other inputs, settings or chaku version)",
                fix="choose another folder, or say --overwrite",
            )
        with self._locked():
            for other in self.work.parent.iterdir():
                if other != self.work and other.is_dir():
                    shutil.rmtree(other)
            self.work.mkdir(exist_ok=True)
            self._tell()
            if not (self.work / "built" / "ready").exists():
                self._build()
            publish(self.work / "built", self.folder)
        return Built(self.folder, read_manifest(self.folder), was_there=False)

    def _is_built(self, keep_older: bool) -> bool:
        with contextlib.suppress(UsageError):
            manifest = read_manifest(self.folder)
            return bool(manifest.get("key") == self.key) or (
                keep_older and is_same_set(manifest, self.described, self.inputs, self.digests)
            )
        return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.work.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".work" / "lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another build is writing {self.folder}", fix="wait for it, or end it") from None
            yield

    def _tell(self) -> None:
        for path, container in zip(self.inputs, self.containers, strict=True):
            self.watcher.note(f"{path.name}: {container}, {path.stat().st_size:,} bytes")
        if self.missing is not None:
            self.watcher.note(f"{self.missing}. The build stops after messages.")
            return
        self.watcher.note(
            f"tokenizer {self.config.tokenizer}, template {self.rendering.template.name},"
            f" context {self.config.context:,}, rows of {self.config.row_length:,}"
        )

    def _build(self) -> None:
        phases = self.phases
        prepared = phases.prepare()
        tokenised = phases.tokenise(prepared, phases.find_duplicates(prepared))
        packed = phases.pack(tokenised) if self.rendering is not None else []
        phases.check_law()
        self._assemble(prepared, tokenised, packed)

    def _assemble(self, prepared: list[Path], tokenised: list[Path], packed: list[Path]) -> None:
        from chaku.data.inspect.audit import audit
        from chaku.data.inspect.report import write_page
        from chaku.data.rows.tokenise import PARTS

        self.watcher.began("audit", 1)
        built = self.work / "built"
        shutil.rmtree(built, ignore_errors=True)
        for name in ("messages", "ledger"):
            (built / name).mkdir(parents=True)
        for part in PARTS:
            join([folder / f"{part}.jsonl" for folder in tokenised], built / "messages", part)
        join([folder / "prompts.jsonl" for folder in prepared], built / "messages", "prompts")
        if self.rendering is not None:
            (built / "rows").mkdir()
            for folder in packed:
                for file in folder.glob("*.arrow"):
                    shutil.copy(file, built / "rows" / file.name)
        for number, stage in enumerate(STAGES):
            parts = [
                path for folder in (*prepared, *tokenised, *packed) if (path := folder / f"{stage}.parquet").exists()
            ]
            if stage in self.phases.counts:
                merge(parts, built / "ledger" / f"{number + 1:02}-{stage}.parquet")
        manifest = self._manifest() | {"files": describe_files(built)}
        write_json(built / "manifest.json", manifest)
        manifest["audit"] = audit(
            built,
            questions=self.config.decontaminate,
            workers=self.workers,
            least_share=self.config.contamination_overlap,
            check_files=False,  # their hashes were taken just now
        ).to_json()
        write_json(built / "manifest.json", manifest)
        write_page(built, built / "report.html")
        (built / "ready").touch()

    def _manifest(self) -> dict[str, Any]:
        described = {key: value for key, value in self.described.items() if key != "inputs"}
        return {
            **described,
            "key": self.key,
            "inputs": describe_inputs(self.inputs, self.digests, list(self.containers), self.phases.input_counts),
            "context": self.config.context if self.rendering is not None else None,
            "pack_length": self.config.row_length if self.rendering is not None else None,
            "counts": {stage: self.phases.counts[stage].to_json() for stage in STAGES if stage in self.phases.counts},
        }


def _unique_stems(paths: list[Path]) -> list[str]:
    """What ids begin with: the file's name up to its first dot; numbered where two are alike."""
    stems = [path.name.partition(".")[0] or path.name for path in paths]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{stems[: number + 1].count(stem)}"
        for number, stem in enumerate(stems)
    ]
