"""A model in PaddleNLP's layout, and the files around the weights on the way there and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaku.errors import ModelError, UsageError
from chaku.models.files.modelconfig import read_config, read_object, write_config
from chaku.weights.cast import DTYPES, cast_metadata, load_as, write_dtype
from chaku.weights.delta_check import DERIVED, check_is_model
from chaku.weights.folder import TOKENIZER_FILES, copy_side_files, new_folder
from chaku.weights.paddle_names import HEAD, PREFIXES, is_linear, to_paddle_name, turned
from chaku.weights.pdparams import write_pdparams
from chaku.weights.shards import Watch
from chaku.weights.tensors import open_tensors

if TYPE_CHECKING:
    import torch

STATE_NAME = "model_state.pdparams"
_PIECES, _THEIR_PIECES = "tokenizer.model", "sentencepiece.bpe.model"
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_PROCESSOR, _PURPOSES = "preprocessor_config.json", ("train", "eval")
_ONLY_THEIRS = ("rope_scaling_type", "rope_scaling_factor", "seq_length", "paddlenlp_version")


def is_paddle(folder: Path) -> bool:
    """Whether a folder is in PaddleNLP's layout."""
    return folder.is_dir() and any(folder.glob("model_state*.pdparams")) and not any(folder.glob("*.safetensors"))


def to_paddle(
    source: Path,
    output: Path,
    *,
    dtype: str | None = None,
    processor: Path | None = None,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> list[str]:
    """Write `source` in PaddleNLP's layout into the new folder `output`; returns the names of its files.

    `processor` is a `preprocessor_config.json` for training and evaluation both, or a folder with `train/` and `eval/`;
    None takes the source's own, if any. Raises ModelError for an architecture whose names are not known.
    """
    check_is_model(source)
    config = read_config(source)
    model_type = (config or {}).get("model_type")
    if config is None or model_type not in PREFIXES:
        raise ModelError(
            f"{source} has {'no config.json' if config is None else f'model_type {model_type!r}'};"
            f" PaddleNLP's names are known for {', '.join(PREFIXES)}",
            fix="give the folder of such a model",
        )
    tensors = open_tensors(source)
    left_out = (DERIVED, HEAD) if config.get("tie_word_embeddings") else (DERIVED,)
    ours = {to_paddle_name(name, model_type): name for name in tensors.names if not name.endswith(left_out)}
    wanted = DTYPES[dtype] if dtype else None
    planned = {}
    for theirs, name in ours.items():
        metadata = cast_metadata(tensors.metadata(name), wanted)
        planned[theirs] = turned(metadata) if is_linear(name) else metadata

    def load(theirs: str) -> torch.Tensor:
        tensor = load_as(tensors, ours[theirs], wanted)
        return tensor.t() if is_linear(theirs) else tensor

    with new_folder(output, overwrite=overwrite) as folder:
        copy_side_files(source, folder, names=("generation_config.json", *TOKENIZER_FILES))
        _write_processors(folder, processor or source, is_wanted=processor is not None)
        write_config(folder, _their_config(config))
        write_dtype(folder, wanted or next(iter(planned.values())).dtype)
        _complete_side_files(folder, config)
        write_pdparams(folder / STATE_NAME, planned, load, watch=watch)
        return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def side_files_from_paddle(source: Path, folder: Path) -> None:
    """Copy what stands around the weights in PaddleNLP's layout, under transformers' names."""
    copy_side_files(source, folder)
    if (folder / _THEIR_PIECES).exists():
        (folder / _THEIR_PIECES).rename(folder / _PIECES)
    if (source / "processor").is_dir():
        shutil.copytree(source / "processor", folder / "processor")
    if (config := read_config(folder)) is not None:
        scaling_type, factor = config.get("rope_scaling_type"), config.get("rope_scaling_factor", 1.0)
        if scaling_type and "rope_scaling" not in config and "rope_parameters" not in config:
            config["rope_scaling"] = {"type": scaling_type, "factor": factor}
        write_config(folder, {key: value for key, value in config.items() if key not in _ONLY_THEIRS})


def _their_config(config: dict[str, Any]) -> dict[str, Any]:
    """The same config with what PaddleNLP reads under other keys, which transformers moved over time."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    values = {key: value for key, value in config.items() if key != "torch_dtype"}
    if "max_position_embeddings" in config:
        values["seq_length"] = config["max_position_embeddings"]
    if "rope_theta" in rope:
        values["rope_theta"] = rope["rope_theta"]
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        values |= {"rope_scaling_type": kind, "rope_scaling_factor": rope.get("factor", 1.0)}
    return values


def _complete_side_files(folder: Path, config: dict[str, Any]) -> None:
    """Add the files that PaddleNLP expects and newer transformers leave out."""
    if (folder / _PIECES).exists():
        (folder / _PIECES).rename(folder / _THEIR_PIECES)
    if not (folder / "generation_config.json").exists():
        ids = {key: config[key] for key in _SPECIAL_IDS if config.get(key) is not None}
        _write(folder / "generation_config.json", {"_from_model_config": True, **ids})
    tokenizer_config = folder / "tokenizer_config.json"
    if tokenizer_config.exists() and not (folder / "special_tokens_map.json").exists():
        values = read_object(tokenizer_config)
        _write(folder / "special_tokens_map.json", {key: values[key] for key in _SPECIAL_TOKENS if values.get(key)})


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _write_processors(folder: Path, given: Path, *, is_wanted: bool) -> None:
    """Write both `processor/*/preprocessor_config.json`: from one file, or from a folder with one or two of them."""
    if given.is_file():
        found = dict.fromkeys(_PURPOSES, given)
    else:
        root = given / "processor" if (given / "processor").is_dir() else given
        found = {purpose: root / purpose / _PROCESSOR for purpose in _PURPOSES}
        if not any(file.exists() for file in found.values()):
            found = dict.fromkeys(_PURPOSES, given / _PROCESSOR)
        if not is_wanted and not any(file.exists() for file in found.values()):
            return
    for purpose, file in found.items():
        if not file.exists():
            raise UsageError(f"there is no {file}", fix=f"give {_PROCESSOR} for {' and '.join(_PURPOSES)}, or one file")
        (folder / "processor" / purpose).mkdir(parents=True)
        shutil.copyfile(file, folder / "processor" / purpose / _PROCESSOR)
