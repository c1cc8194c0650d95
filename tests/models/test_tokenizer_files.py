"""A GGUF's tokenizer as files says what the GGUF says, to us and to transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaku.errors import ModelError
from chaku.models.tokenizers import tokenizer_files
from chaku.models.tokenizers.tokenizer import load_tokenizer
from gguf_llama import write_llama
from real_tokenizers import file_of

TEXTS = ("I'LL pay 12,345.67 dollars", " two  spaces\t\n\nand lines ", "déjà vu 中文 👩🏽‍🚀")


@pytest.fixture(params=["sentencepiece", pytest.param("byte-level", marks=pytest.mark.model)])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "byte-level":
        return file_of("smollm2")
    return write_llama(tmp_path / "llama.gguf", file_of("llama_spm"))


def test_the_files_give_the_same_ids_here_and_in_the_libraries_they_are_for(source: Path, tmp_path: Path) -> None:
    transformers, sentencepiece = pytest.importorskip("transformers"), pytest.importorskip("sentencepiece")
    ours = load_tokenizer(source)
    tokenizer_files.write_tokenizer(tmp_path, source)
    written = load_tokenizer(tmp_path)
    assert tokenizer_files.difference(ours, written) is None
    assert (written.chat_template, written.adds_bos) == (ours.chat_template, ours.adds_bos)
    if (tmp_path / "tokenizer.json").exists():
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert (theirs.bos_token, theirs.eos_token) == (ours.bos, ours.eos)
        assert (theirs.pad_token, theirs.unk_token) == ("<|im_end|>", "<|endoftext|>")
        assert theirs.encode("<|im_end|>") == [ours.special_ids["<|im_end|>"]]
    else:  # transformers would need protobuf to read it
        theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in TEXTS:
        assert theirs.encode(text) == ours.encode_text(text), text


def test_files_that_say_something_else_are_refused(source: Path, tmp_path: Path) -> None:
    other = file_of("mistral_v7")
    (tmp_path / "tokenizer.model").write_bytes(other.read_bytes())
    with pytest.raises(ModelError, match="does not survive being written: special tokens differ"):
        tokenizer_files.check_same(load_tokenizer(source), tmp_path)
