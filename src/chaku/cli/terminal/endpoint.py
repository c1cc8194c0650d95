"""Which server `chaku chat` talks to: the one that was named, a gateway that runs here, or one of its own.

Its own is a child: `chaku serve MODEL --port 0 --ready-fd N --exit-with-parent`, which writes one line of JSON,
{"url": …, "models": […]} and perhaps "api_key", to that file descriptor once its API answers; /health then says when
the model is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import aiohttp
import orjson

from chaku.cli.terminal.markdown import clean
from chaku.client import Client
from chaku.config import DEFAULT_PORT, TOKEN_PREFIX, environment
from chaku.errors import ChakuError, EngineError, ModelError, NotFound, StoreError, UsageError, error_of_child
from chaku.models.registry import DEFAULT_MODEL
from chaku.nearest import nearest

PROBE_S = 0.4
STOP_S = 5.0
_ERROR_BY_EXIT_CODE: dict[int, type[ChakuError]] = {
    kind.exit_code: kind for kind in (UsageError, ModelError, StoreError)
}


@dataclass(frozen=True)
class ChatEndpoint:
    """Where to send requests. `model` is what to ask for, None where the server's first one will do."""

    base_url: str
    api_key: str | None
    model: str | None
    names: tuple[str, ...] = ()
    """What a server that was started here calls its models, in the order in which they were asked for."""


@contextlib.asynccontextmanager
async def choose(
    base_url: str | None, api_key: str | None, model: str | None, *, beside: Sequence[str] = ()
) -> AsyncIterator[ChatEndpoint]:
    """The endpoint to use; a server started for it ends with the block. Raises ChakuError.

    `beside`: further models that it has to serve.

    OPENAI_API_KEY goes to the address that its owner configured, `base_url` or OPENAI_BASE_URL. The
    gateway on this machine gets it only where it is one of chaku's own keys.
    """
    if configured := base_url or environment("OPENAI_BASE_URL"):
        yield ChatEndpoint(configured, api_key or environment("OPENAI_API_KEY"), model)
        return
    here = f"http://127.0.0.1:{DEFAULT_PORT}"
    if api_key is None and (key := environment("OPENAI_API_KEY") or "").startswith(TOKEN_PREFIX):
        api_key = key
    wanted = [name for name in (model, *beside) if name is not None]
    if await _answers(here) and all([await _serves(here, api_key, name) for name in wanted]):
        yield ChatEndpoint(f"{here}/v1", api_key, model)
        return
    async with _child(*(wanted or [DEFAULT_MODEL])) as endpoint:
        yield endpoint


async def _answers(url: str, *, ready: bool = False) -> bool:
    """Whether a gateway says how it is; with `ready`, whether a model of it is."""
    timeout = aiohttp.ClientTimeout(total=PROBE_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{url}/health") as response:
            return response.status in ((200,) if ready else (200, 503)) and isinstance(
                orjson.loads(await response.read()), dict
            )
    except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError):
        return False


async def _serves(url: str, api_key: str | None, model: str) -> bool:
    """Whether the gateway here has this model. Raises NotFound when it looks like a slip of one that it has."""
    async with Client(f"{url}/v1", api_key) as client:
        models = await client.models()
    if model in models:
        return True
    if near := nearest(model, models, likeness=0.8):
        raise NotFound(f"the gateway at {url} has no model {model!r}", fix=f"did you mean {near}?")
    return False


def serve_command(ready_fd: int, *models: str) -> list[str]:
    """The command line of the child."""
    # One person asks one thing at a time: one slot with all the context starts sooner than many short ones.
    flags = ["--port", "0", "--ready-fd", str(ready_fd), "--slots", "1", "--no-ui", "--exit-with-parent"]
    return [sys.executable, "-m", "chaku", "serve", *models, *flags]


@contextlib.asynccontextmanager
async def _child(*models: str) -> AsyncIterator[ChatEndpoint]:
    model = " ".join(models)
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as ready, tempfile.TemporaryFile() as log:
        try:
            process = await asyncio.create_subprocess_exec(
                *serve_command(write_end, *models),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                start_new_session=True,  # Ctrl-C is for us; the child goes when we say so, or when we are gone
            )
        finally:
            os.close(write_end)
        try:
            async with _progress(log, model):
                line = await _first_line(ready)
                if line is None:
                    raise _why(await process.wait(), log, model)
                told: dict[str, Any] = orjson.loads(line)
                while not await _answers(told["url"], ready=True):
                    if process.returncode is not None:
                        raise _why(process.returncode, log, model)
                    await asyncio.sleep(0.1)
            names = tuple(told["models"])
            yield ChatEndpoint(f"{told['url']}/v1", told.get("api_key"), next(iter(names), None), names)
        finally:
            await _stop(process)


async def _first_line(ready: IO[bytes]) -> bytes | None:
    """The line on the pipe; None when it closes without one."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), ready)
    try:
        line = await reader.readline()
        return line if line.endswith(b"\n") else None
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def _progress(log: IO[bytes], model: str) -> AsyncIterator[None]:
    """Says on a terminal what goes on meanwhile."""
    telling = asyncio.create_task(_tell_progress(log, model)) if sys.stderr.isatty() else None
    try:
        yield
    finally:
        if telling:
            telling.cancel()
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


async def _tell_progress(log: IO[bytes], model: str) -> None:
    start = time.monotonic()
    while True:
        last = _tail(log).replace("\r", "\n").strip().rpartition("\n")[2]
        line = f"starting {model} … {time.monotonic() - start:.0f} s  {last}"
        sys.stderr.write(f"\r\x1b[K\x1b[2m{line[: os.get_terminal_size(sys.stderr.fileno()).columns - 1]}\x1b[0m")
        sys.stderr.flush()
        await asyncio.sleep(0.25)


def _tail(log: IO[bytes], size: int = 4096) -> str:
    """The end of what the child wrote. Read by position: the child shares the file's offset."""
    end = os.fstat(log.fileno()).st_size
    return clean(os.pread(log.fileno(), size, max(0, end - size)).decode("utf-8", "replace"))


def _why(exit_code: int, log: IO[bytes], model: str) -> ChakuError:
    """What the child said before it ended, in the form every chaku command says it."""
    kind = _ERROR_BY_EXIT_CODE.get(exit_code, EngineError)
    return error_of_child(kind, _tail(log), exit_code, f"chaku serve {model}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
