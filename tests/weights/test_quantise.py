"""Other numbers for a GGUF: everything else it says stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from chaku.errors import ModelError, UsageError
from chaku.models.files.gguf import read_metadata
from chaku.models.tokenizers.vocabulary import read_vocabulary
from miniatures import save_llama

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from chaku.cli.main import root  # noqa: E402
from chaku.weights.quantise import QUANTS, requantise, type_of  # noqa: E402
from chaku.weights.to_gguf import to_gguf  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mini"
    save_llama(folder)
    return folder


@pytest.fixture(scope="module")
def exact(folder: Path) -> Path:
    to_gguf(folder, folder.parent / "exact.gguf", "f32")
    return folder.parent / "exact.gguf"


def tensors_of(path: Path) -> dict[str, tuple[str, Any]]:
    return {tensor.name: (tensor.tensor_type.name, tensor.data) for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("quant", QUANTS)
def test_a_requantised_file_is_what_an_export_would_be(folder: Path, exact: Path, tmp_path: Path, quant: str) -> None:
    requantise(exact, tmp_path / "re.gguf", quant)
    to_gguf(folder, tmp_path / "direct.gguf", quant)
    ours, direct = tensors_of(tmp_path / "re.gguf"), tensors_of(tmp_path / "direct.gguf")
    assert ours.keys() == direct.keys()
    for name, (kind, data) in ours.items():
        assert kind == direct[name][0] and np.array_equal(data, direct[name][1]), name
    fields, expected = (gguf.GGUFReader(tmp_path / name).fields for name in ("re.gguf", "direct.gguf"))
    assert {key: field.contents() for key, field in fields.items()} == {
        key: field.contents() for key, field in expected.items()
    }
    metadata = read_metadata(tmp_path / "re.gguf")
    assert metadata.quantisation == quant.upper() and metadata.name == "mini"
    assert read_vocabulary(tmp_path / "re.gguf").hash == read_vocabulary(exact).hash


@pytest.mark.parametrize(
    ("name", "shape", "quant", "expected"),
    [
        ("blk.0.attn_q.weight", (64, 64), "q4_0", "Q4_0"),
        ("token_embd.weight", (100, 64), "q4_0", "Q8_0"),
        ("output.weight", (100, 64), "q4_0", "Q8_0"),
        ("blk.0.attn_q.weight", (64, 40), "q4_0", "F16"),
        ("blk.0.attn_norm.weight", (64,), "q4_0", "F32"),
        ("blk.0.attn_q.weight", (64, 40), "bf16", "BF16"),
    ],
)
def test_the_type_of_a_tensor(name: str, shape: tuple[int, ...], quant: str, expected: str) -> None:
    assert type_of(name, shape, quant) == expected


def test_what_is_no_model_or_would_be_overwritten_is_refused(exact: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ModelError, match="not a usable GGUF"):
        requantise(tmp_path / "text.gguf", tmp_path / "out.gguf", "q8_0")
    before = exact.read_bytes()
    with pytest.raises(UsageError, match="is the file that is read"):
        requantise(exact, exact, "q8_0")
    assert exact.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["text.gguf"]


def test_convert_takes_folders_and_files_and_says_what_came_out(folder: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        return CliRunner().invoke(root, ["weights", "convert", *map(str, arguments)], standalone_mode=False)

    first, second = tmp_path / "m.gguf", tmp_path / "q4.gguf"
    done = run(folder, "--to", "gguf", "-o", first)
    assert f"{first}: llama, Q8_0, " in done.stdout
    done = run(first, "--to", "gguf", "--quant", "q4_0", "-o", second)
    assert f"{second}: llama, Q4_0, " in done.stdout
    for arguments, said in (
        ((folder, "--to", "gguf", "-o", first), "exists"),
        ((folder, "--to", "gguf", "-o", tmp_path, "--overwrite"), "is a folder"),
        ((folder, "--quant", "q4_0", "-o", tmp_path / "x"), "--quant is for GGUF"),
        ((folder, "--to", "gguf", "--dtype", "f16", "-o", tmp_path / "x"), "--dtype is for safetensors"),
    ):
        error = run(*arguments).exception
        assert isinstance(error, UsageError) and said in error.message
    assert run(folder, "--to", "gguf", "--quant", "f16", "-o", first, "--overwrite").exception is None
    assert read_metadata(first).quantisation == "F16"


def test_convert_takes_the_name_of_a_pulled_model_and_names_one_that_is_not_here(
    exact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model stands in the cache under a built-in name, and another as it is pulled from the hub."""
    from chaku.models.fetch import cache
    from chaku.models.reference import parse_reference
    from chaku.models.registry import BUILT_IN

    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))

    def convert(name: str, *arguments: str) -> Any:
        words = ["weights", "convert", name, *arguments, "-o", str(tmp_path / f"{len(arguments)}-{name[-4:]}")]
        return CliRunner().invoke(root, words, standalone_mode=False)

    refused = convert("smollm2-135m", "--to", "gguf").exception
    assert isinstance(refused, ModelError) and refused.fix == "chaku pull smollm2-135m"
    for name, sha256 in (("smollm2-135m", BUILT_IN["smollm2-135m"].sha256), ("hf:org/tiny-GGUF:f32", None)):
        cache.save(parse_reference(name), exact, sha256)
        done = convert(name, "--to", "gguf", "--quant", "f16")
        assert done.exception is None
        assert read_metadata(tmp_path / f"4-{name[-4:]}").quantisation == "F16"
        assert convert(name).exception is None
        assert (tmp_path / f"0-{name[-4:]}" / "model.safetensors").stat().st_size
