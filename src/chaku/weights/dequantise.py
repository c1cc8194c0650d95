"""A GGUF as transformers sees it: the model in memory in float32, or as a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chaku.errors import ModelError
from chaku.models.files.gguf import read_metadata
from chaku.models.files.gguf_header import read_header
from chaku.models.tokenizers.tokenizer_files import write_tokenizer

_FOLDER = "take the Hugging Face folder that it was made from"


def load_dequantised(path: Path) -> Any:
    """The model in a GGUF, dequantised to float32, as transformers' causal language model.

    Raises ModelError for a model of which transformers would leave something out.
    """
    import torch
    import transformers

    models: Any = transformers.AutoModelForCausalLM
    metadata = read_metadata(path)
    header, _ = read_header(path)
    if header.values.get(f"{metadata.architecture}.rope.scaling.type", b"none") != b"none":
        raise ModelError(f"{path.name} has rope scaling, which transformers leaves out of a GGUF", fix=_FOLDER)
    with quiet():
        model = models.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
    num_read = sum(parameter.numel() for parameter in model.parameters())
    if num_read != metadata.num_parameters:  # biases, for one, are dropped in silence
        raise ModelError(
            f"transformers reads {num_read:,} of the {metadata.num_parameters:,} numbers in {path.name}", fix=_FOLDER
        )
    # What is in memory is no longer quantised; transformers refuses to save it as long as these say otherwise.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    return model


def save_dequantised(path: Path, folder: Path) -> None:
    """Write a GGUF as a Hugging Face folder in f16: model, tokenizer and chat template."""
    import torch
    import transformers

    generation: Any = transformers.GenerationConfig
    model = load_dequantised(path)
    config = model.config
    model.generation_config = generation(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    with quiet():
        model.to(torch.float16).save_pretrained(folder)
    write_tokenizer(folder, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers draws bars of its own and warns of what is meant; ours is the one progress that is shown."""
    import transformers.utils.logging

    logging: Any = transformers.utils.logging
    had_bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
