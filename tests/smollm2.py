"""Where the real 135M model is."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

from chaku.config import cache_dir

_CACHE = cache_dir()  # before a test points it elsewhere


@functools.cache
def gguf() -> Path:
    """CHAKU_TEST_MODEL, or the built-in model, pulled once into the user's cache."""
    if given := os.environ.get("CHAKU_TEST_MODEL"):
        return Path(given)
    from chaku.models.fetch.pull import pull
    from chaku.models.reference import parse

    return pull(parse("smollm2-135m").reference).path


@functools.cache
def folder() -> Path:
    """The 135M model as a Hugging Face folder in f16; made once (half a minute) and kept. Don't write into it."""
    from chaku.models.tokenizers import tokenizer_files
    from chaku.weights import dequantise

    makers = [Path(str(module.__file__)).read_bytes() for module in (dequantise, tokenizer_files)]
    made_by = b"".join(makers) + importlib.metadata.version("transformers").encode()
    target = _CACHE / "tests" / f"smollm2-folder-{hashlib.sha256(made_by).hexdigest()[:12]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=".smollm2-"))
        try:
            dequantise.save_dequantised(gguf(), part)
            part.rename(target)
        except OSError:
            if not target.exists():  # else another process was faster
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return target
