from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from chaku.errors import ModelError
from chaku.models.fetch.hub import choose
from chaku.models.reference import HubFile
from chaku.packages import install_command
from fake_hub import publish
from file_server import FileServer, Page
from gguf_files import gguf_bytes, llama_values, tensor, write_shards
from pull_process import SOURCES, start_pull

MODEL = gguf_bytes(llama_values(), [tensor(shape=(64, 2000))])

Pull = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pull(server: FileServer, tmp_path: Path, models_dir: Path) -> Pull:
    """Pull in a process whose hub is the loopback server."""

    def run(source: str, **environment: str) -> tuple[int, str, str]:
        hub = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        child = start_pull(source, hub | environment)
        out, error = child.communicate(timeout=60)
        return child.returncode, out.strip(), error.strip()

    return run


def test_the_only_gguf_of_a_repository_is_pulled_into_the_hubs_cache(
    server: FileServer, pull: Pull, tmp_path: Path, models_dir: Path
) -> None:
    publish(server, {"README.md": b"#", "tiny.Q4_K_M.gguf": MODEL, "mmproj-tiny.gguf": b""})
    code, path, error = pull("hf:org/tiny-GGUF")
    assert (code, error) == (0, "")
    assert Path(path).is_relative_to(tmp_path / "hub")
    assert Path(path).read_bytes() == MODEL
    (record,) = models_dir.rglob("chaku.json")
    assert json.loads(record.read_bytes())["source"] == "hf:org/tiny-GGUF"


def test_what_was_pulled_is_found_without_the_network(server: FileServer, pull: Pull) -> None:
    publish(server, {"tiny.gguf": MODEL})
    first = pull("hf:org/tiny-GGUF")
    num_requests = len(server.requests)
    assert pull("hf:org/tiny-GGUF", HF_HUB_OFFLINE="1") == first
    assert len(server.requests) == num_requests


def test_a_named_file_and_revision_are_taken(server: FileServer, pull: Pull) -> None:
    publish(server, {"sub/a.gguf": MODEL, "sub/b.gguf": b"other"}, revision="v2")
    code, path, _ = pull("hf:org/tiny-GGUF:sub/a.gguf@v2")
    assert (code, Path(path).name) == (0, "a.gguf")


def test_all_shards_are_fetched_and_counted(server: FileServer, pull: Pull, tmp_path: Path, models_dir: Path) -> None:
    (tmp_path / "shards").mkdir()
    shards = write_shards(tmp_path / "shards", "big-Q8_0", 3)
    publish(server, {shard.name: shard.read_bytes() for shard in shards})
    code, path, error = pull("hf:org/tiny-GGUF")
    assert (code, error) == (0, "")
    assert len(list(Path(path).parent.glob("*.gguf"))) == 3
    (record,) = models_dir.rglob("chaku.json")
    assert json.loads(record.read_bytes())["num_bytes"] == sum(shard.stat().st_size for shard in shards)


def test_the_token_is_sent_and_a_gated_model_is_said(server: FileServer, pull: Pull) -> None:
    publish(server, {"tiny.gguf": MODEL})
    server.pages["/org/tiny-GGUF/resolve/main/tiny.gguf"].status = 401
    server.pages["/org/tiny-GGUF/resolve/main/tiny.gguf"].headers["X-Error-Code"] = "GatedRepo"
    code, _, error = pull("hf:org/tiny-GGUF", HF_TOKEN="hf_secret")
    assert code == 3
    assert error.startswith("hf:org/tiny-GGUF is gated: accept its terms")
    assert "hf_secret" not in error
    assert server.authorizations == {"Bearer hf_secret"}


def test_an_unknown_repository_revision_or_file_is_said_in_one_line(server: FileServer, pull: Pull) -> None:
    server.pages["/api/models/org/none"] = Page(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
    assert pull("hf:org/none")[2].startswith("hf:org/none does not exist or is private")
    server.pages["/api/models/org/x/revision/v9"] = Page(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
    assert pull("hf:org/x@v9")[2].startswith("hf:org/x has no revision 'v9'")
    publish(server, {}, repo="org/x")
    server.pages["/org/x/resolve/main/f.gguf"] = Page(b"", 404, {"X-Error-Code": "EntryNotFound"})
    assert pull("hf:org/x:f.gguf")[2].startswith("hf:org/x has no file 'f.gguf'")


@pytest.mark.parametrize("source", ["hf:org/x", "hf:org/x:f.gguf"])
def test_no_hub_at_all_is_said_in_one_line(pull: Pull, source: str) -> None:
    code, _, error = pull(source, HF_ENDPOINT="http://127.0.0.1:9")
    assert code == 3
    assert error.count("\n") == 0
    assert "bring the .gguf here by hand" in error
    code, _, error = pull(source, HF_HUB_OFFLINE="1")
    assert (code, "HF_HUB_OFFLINE" in error, error.count("\n")) == (3, True, 0)
    assert "bring the .gguf here by hand" in error


def test_the_missing_extra_is_named(pull: Pull, tmp_path: Path) -> None:
    (tmp_path / "hidden" / "huggingface_hub").mkdir(parents=True)
    (tmp_path / "hidden" / "huggingface_hub" / "__init__.py").write_text("raise ImportError('not here')")
    code, _, error = pull("hf:org/x", PYTHONPATH=f"{tmp_path / 'hidden'}:{SOURCES}")
    assert (code, error) == (
        3,
        f"hf:org/x needs the package huggingface_hub: {install_command('hub')}",
    )


FILES = ["README.md", "m-F16.gguf", "m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m-f16.gguf"]


def test_of_several_the_preferred_quantisation_is_taken() -> None:
    assert choose(HubFile("o/m"), FILES) == "m-Q4_K_M.gguf"
    assert choose(HubFile("o/m"), [file for file in FILES if "Q4" not in file]) == "m-Q8_0.gguf"
    assert choose(HubFile("o/m", "f16"), FILES) == "m-F16.gguf"
    assert choose(HubFile("o/m"), ["q/m-q8_0-00001-of-00002.gguf", "q/m-q8_0-00002-of-00002.gguf"]).startswith(
        "q/m-q8_0-00001"
    )


def test_q4_k_does_not_stand_for_q4_k_m() -> None:
    with pytest.raises(ModelError, match="no single Q4_K:"):
        choose(HubFile("o/m", "Q4_K"), FILES)


def test_an_unclear_choice_lists_the_files() -> None:
    with pytest.raises(ModelError, match=r"2 models: a-Q8_0.gguf, b-Q8_0.gguf: name one: hf:o/m:a-Q8_0.gguf@v1"):
        choose(HubFile("o/m", None, "v1"), ["a-Q8_0.gguf", "b-Q8_0.gguf"])
    with pytest.raises(ModelError, match=r"holds no \.gguf file"):
        choose(HubFile("o/m"), ["model.safetensors"])
