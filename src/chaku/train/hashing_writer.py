"""DCP's writer of checkpoint files, which hashes every file while it is written: each process its own shard.

Nobody reads a checkpoint again to describe it, and the time to save does not grow with the number of processes.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future


class HashingWriter(FileSystemWriter):
    """After `finish`, rank zero has size and sha256 of every file in `described`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.described: dict[str, dict[str, Any]] = {}
        self.fs = _HashingFileSystem(self.described)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this process's shard. Its description travels to rank zero as the first of the results."""
        results: Future[list[WriteResult]] = Future()
        written = super().write_data(plan, planner).wait()
        results.set_result([dict(self.described), *written])  # type: ignore[list-item]
        return results

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the metadata on rank zero and collect all descriptions."""
        for described, *_ in results:
            self.described.update(described)  # type: ignore[call-overload]
        super().finish(metadata, [written for _, *written in results])

    def storage_meta(self) -> None:
        """Nothing: DCP would put the folder's path on this machine into the checkpoint."""


class _HashingFileSystem(FileSystem):
    def __init__(self, described: dict[str, dict[str, Any]]) -> None:
        super().__init__()
        self._described = described

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[io.IOBase, None, None]:
        with super().create_stream(path, mode) as stream:
            if mode != "wb":
                yield stream
                return
            hashing = _HashingStream(stream)  # type: ignore[arg-type]
            with hashing:  # closed before the file is: from Python 3.13 on, one that is not says so when it is deleted
                yield hashing
            self._described[Path(path).name] = {"bytes": hashing.num_bytes, "sha256": hashing.digest.hexdigest()}

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        super().rename(path, new_path)
        if (described := self._described.pop(Path(path).name, None)) is not None:
            self._described[Path(new_path).name] = described


class _HashingStream(io.RawIOBase):
    """Hashes what goes through. It can't seek, so that no byte is changed after it was hashed."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.num_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        view = memoryview(piece).cast("B")
        self.digest.update(view)
        self._stream.write(view)
        self.num_bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        self._stream.flush()
        return self._stream.fileno()
