"""What a run leaves behind: a plain Hugging Face folder with weights (or adapters), tokenizer and chat template."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, cast

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from chaku.chat.export import to_jinja
from chaku.chat.jinja import JinjaTemplate
from chaku.chat.templates import Template
from chaku.chat.tokenizer import Before, Tokenizer
from chaku.data.rendering import Rendering
from chaku.errors import ModelError
from chaku.models.encoders import TokenizersEncoder, sentencepiece_model
from chaku.models.tokenizers import load_tokenizer
from chaku.models.vocabulary import read_vocabulary
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.train.samples import stop_ids
from chaku.weights.gguf_tokenizer import TRAINED_TEMPLATE

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
_PROBE = "Who are you? I'm 2,048 years old;\n\n\tdéjà vu  中文 👍 <|im_end|> </s>"
_PREFIX = "causal."


def write_final(folder: Path, trainee: Trainee, rendering: Rendering, tokenizer_path: Path, world: World) -> None:
    """Write the folder under another name and rename it. All processes call this, one writes."""
    state = get_model_state_dict(trainee, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if world.leads:
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        weights = {name.removeprefix(_PREFIX): value for name, value in state.items()}
        _write_weights(part, trainee, weights)
        write_tokenizer(part, tokenizer_path, rendering)
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    world.wait()


def _write_weights(folder: Path, trainee: Trainee, state: dict[str, Any]) -> None:
    if trainee.adapters is not None:
        wrapped = {f"base_model.model.{name}": value for name, value in state.items()}
        trainee.adapters.save_pretrained(folder, state_dict=wrapped)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        return
    trainee.causal.save_pretrained(folder, state_dict=state)


def write_tokenizer(folder: Path, source: Path, rendering: Rendering) -> None:
    """Tokenizer files and chat template into a folder. Raises ModelError unless they say the same as the set's."""
    if source.suffix == ".gguf":
        _write_gguf_tokenizer(folder, source, rendering.tokenizer)
    else:
        beside = source if source.is_dir() else source.parent
        for name in _TOKENIZER_FILES:
            if (beside / name).is_file():
                shutil.copy(beside / name, folder / name)
    template, tokenizer = rendering.template, rendering.tokenizer
    text = template.source if isinstance(template, JinjaTemplate) else None
    text = text or to_jinja(cast(Template, template), bos=tokenizer.adds_bos)
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    config = _read(folder / "tokenizer_config.json")
    config.pop("chat_template", None)
    written = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    config[TRAINED_TEMPLATE] = hashlib.sha256(written.encode()).hexdigest()
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")
    settings = _read(folder / "generation_config.json")
    settings["eos_token_id"] = stop_ids(rendering)
    (folder / "generation_config.json").write_text(json.dumps(settings, indent=2))
    if reason := difference(tokenizer, load_tokenizer(folder)):
        raise ModelError(f"the tokenizer of {source} does not survive being written: {reason}")


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _write_gguf_tokenizer(folder: Path, source: Path, tokenizer: Tokenizer) -> None:
    encoder = getattr(tokenizer, "_encoder", None)
    if isinstance(encoder, TokenizersEncoder):
        (folder / "tokenizer.json").write_text(_tokenizer_json(encoder, tokenizer), encoding="utf-8")
        kind = "PreTrainedTokenizerFast"
    else:
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(read_vocabulary(source)))
        kind = "LlamaTokenizer"
    config = {
        "tokenizer_class": kind, "bos_token": tokenizer.bos, "eos_token": tokenizer.eos,
        "add_bos_token": tokenizer.adds_bos, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _tokenizer_json(encoder: TokenizersEncoder, tokenizer: Tokenizer) -> str:
    """The encoder with its special tokens recognised, as others expect of a tokenizer.json."""
    from tokenizers import AddedToken, decoders, processors
    from tokenizers import Tokenizer as FastTokenizer

    content = json.loads(encoder.to_json())
    model = content["model"]
    if model.get("unk_token") is not None:  # our own sign for bytes without a token; no model has a row for it
        model["vocab"].pop(model["unk_token"])
        model["unk_token"] = None
    fast = FastTokenizer.from_str(json.dumps(content))
    by_id = sorted(tokenizer.special_ids.items(), key=lambda item: item[1])
    fast.add_special_tokens([AddedToken(text, special=True, normalized=False) for text, _ in by_id])
    fast.decoder = decoders.ByteLevel()
    if tokenizer.adds_bos and tokenizer.bos:
        marker = (tokenizer.bos, tokenizer.special_ids[tokenizer.bos])
        fast.post_processor = processors.TemplateProcessing(
            single=f"{tokenizer.bos} $A", pair=f"{tokenizer.bos} $A {tokenizer.bos} $B", special_tokens=[marker]
        )
    return str(fast.to_str())


def difference(one: Tokenizer, other: Tokenizer) -> str | None:
    """In which way two tokenizers give other ids; None where they are the same."""
    if one.hash == other.hash:
        return None
    if dict(one.special_ids) != dict(other.special_ids):
        apart = {key for key, _ in one.special_ids.items() ^ other.special_ids.items()}
        return f"special tokens differ: {', '.join(sorted(apart)[:5])}"
    if one.vocab_size != other.vocab_size:
        return f"{one.vocab_size:,} tokens against {other.vocab_size:,}"
    for number in range(one.vocab_size):
        if one.token_bytes(number) != other.token_bytes(number):
            return f"token {number} is {one.token_bytes(number)!r} against {other.token_bytes(number)!r}"
    if one.encode_text(_PROBE, Before.SPECIAL) != other.encode_text(_PROBE, Before.SPECIAL):
        return f"{_PROBE!r} becomes other ids"
    return None
