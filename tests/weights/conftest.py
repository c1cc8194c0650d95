"""SmolLM2-135M as a Hugging Face folder: what transformers makes of the pulled GGUF, dequantised."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

import smollm2

CACHE = Path(os.environ.get("CHAKU_CACHE") or Path.home() / ".cache" / "chaku")  # before a test points it elsewhere


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The 135M model in f16; made once (half a minute) and kept in the cache. Don't write into it."""
    pytest.importorskip("transformers")
    versions = "-".join(importlib.metadata.version(name) for name in ("transformers", "gguf"))
    folder = CACHE / "tests" / f"smollm2-folder-{versions}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".smollm2-"))
        try:
            _save_dequantised(smollm2.gguf(), part)
            part.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _save_dequantised(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    # What is in memory is dequantised; transformers refuses to save it as long as these say otherwise.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.to(torch.float16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(folder)
    # transformers leaves out that SmolLM's tokenizer takes digits one by one.
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_bytes())
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
