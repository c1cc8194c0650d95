"""The commands, end to end on small generated files, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaku.cli.data import data
from chaku.data.identity import identity_conversations
from chaku.errors import ChakuError
from data.made import sharegpt, write_json, write_lines

SHARED = Path(__file__).parents[3] / "shared/data"


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def made(tmp_path_factory, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    hostile = {
        "id": "<b>&",
        "conversations": [
            {"from": "human", "value": "<script>alert(1)</script> \x1b[31m what is it?"},
            {"from": "gpt", "value": "I'm sorry, but I can't help with <script>that</script> \x1b]0;x\x07 at all."},
        ],
    }
    source = write_json(folder / "in.json", [*sharegpt(30), hostile, {"odd": "<img src=x>"}])
    out = run("build", source, "-o", folder / "set", "--tokenizer", tokenizer, "--context", 512, "--processes", 1)
    assert "32 records in" in out and "audit: passed" in out
    return folder / "set"


def test_report_adds_up_with_examples_and_writes_one_page_without_outside_requests(made):
    out = run("report", made)
    assert "= kept" in out and "unknown_shape" in out and "in:32" in out
    page = (made / "report.html").read_text()
    assert "<script" not in page and "<img" not in page and "&lt;img src=x&gt;" in page
    assert "http" not in page.replace("http-equiv", "") and "<svg" in page


def test_report_shows_ten_drops_of_a_rule_drawn_at_random(tmp_path, tokenizer):
    claims = [
        [{"from": "human", "value": f"What is {n}, please?"}, {"from": "gpt", "value": f"I am ChatGPT, so I know {n}."}]
        for n in range(60)
    ]
    records = [*sharegpt(3), *({"id": f"claim{n}", "conversations": turns} for n, turns in enumerate(claims))]
    source = write_json(tmp_path / "in.json", records)
    run("build", source, "-o", tmp_path / "set", "--tokenizer", tokenizer, "--context", 512, "--processes", 1)
    out = run("report", tmp_path / "set")
    shown = [int(number) for number in re.findall(r"\bin:(\d+)\b", out.partition("identity_claim")[2])]
    assert len(shown) == len(set(shown)) == 10 and shown != list(range(4, 14)), out
    assert run("report", tmp_path / "set") == out


def test_why_tells_one_conversations_story(made):
    out = run("why", made, "chat0-3")
    assert [line.split()[0] for line in out.splitlines() if " kept" in line][:3] == ["import", "clean", "personal"]
    with pytest.raises(ChakuError, match="nobody"):
        run("why", made, "nobody")


def test_preview_brackets_what_is_trained_and_lets_no_escape_sequence_through(made, tmp_path):
    out = run("preview", made, "-n", 40)
    assert "⟦" in out and "<|im_end|>⟧" in out and "\x1b]0" not in out and "\x07" not in out
    run("preview", made, "-n", 40, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<mark>⟦" in page and "<script" not in page


def test_audit_exits_with_one_when_training_must_not_start(made, tmp_path):
    assert "audit: passed" in run("audit", made, "--processes", 1)
    question = json.loads((made / "messages/train-00000.jsonl").read_text().splitlines()[0])["messages"][0]["content"]
    questions = write_lines(tmp_path / "q.jsonl", [{"question_id": 1, "turns": [question]}])
    out = run("audit", made, "--questions", questions, "--json", "--processes", 1, code=1)
    assert json.loads(out)["passed"] is False


def test_identity_conversations_are_varied_and_name_the_model_and_its_makers(tmp_path, tokenizer):
    run("identity", "--name", "Kusi", "--org", "Our Lab", "-n", 300, "-o", tmp_path / "id.jsonl")
    everything = [json.loads(line) for line in (tmp_path / "id.jsonl").read_text().splitlines()]
    assert len(everything) == 400
    lines = [line for line in everything if line["source"]["origin"] == "identity"]
    assert len(lines) == 300 and len({json.dumps(line["messages"]) for line in lines}) == 300
    assert all("Kusi" in json.dumps(line) or "Our Lab" in json.dumps(line) for line in lines)
    ordinary = [line for line in everything if line["source"]["origin"] == "everyday"]
    assert len(ordinary) == 100 and "Kusi" not in json.dumps(ordinary) and "France" not in json.dumps(ordinary)
    assert len({message["content"] for line in lines for message in line["messages"][::2]}) > 80
    out = run("build", tmp_path / "id.jsonl", "-o", tmp_path / "set", "--tokenizer", tokenizer, "--processes", 1)
    assert "audit: passed" in out


def test_identity_never_denies_its_own_name():
    assert not any(
        "not Vicuna" in message.content for one in identity_conversations("Vicuna", "LMSYS") for message in one.messages
    )


def test_a_recipe_and_flags_make_one_configuration(tmp_path, tokenizer):
    recipe = tmp_path / "recipe.yaml"
    source = write_json(tmp_path / "in.json", sharegpt(6))
    recipe.write_text(f"name: first\ndata:\n  inputs: [{source}]\n  tokenizer: {tokenizer}\n  context: 256\n")
    run("build", "--recipe", recipe, "-o", tmp_path / "set", "--seed", 5, "--rule", "refusal=drop", "--processes", 1)
    manifest = json.loads((tmp_path / "set/manifest.json").read_text())
    assert (manifest["name"], manifest["context"], manifest["config"]["seed"]) == ("first", 256, 5)
    assert manifest["config"]["rules"] == {"refusal": "drop"}


def test_importing_chaku_data_loads_neither_torch_nor_the_heavy_packages():
    code = (
        "import sys, chaku.data, chaku.data.build, chaku.data.recipe, chaku.cli.data\n"
        "heavy = ('torch', 'transformers', 'pyarrow', 'tokenizers', 'rensa')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment).strip() == "[]"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"# Title\n\nSome prose.\n", "2 of 2 records not read: not JSON"),
        (b"%PDF-1.7\n%abc", "1 of 1 records not read: PDF is not read"),
        (b'{"judge": 1}\n{"judge": 2}\n', "2 of 2 records not read: an object with the keys judge"),
    ],
)
def test_a_file_of_which_nothing_is_read_is_named_and_the_build_fails(tmp_path, tokenizer, content, reason):
    source = tmp_path / "in.txt"
    source.write_bytes(content)
    out = run("build", source, "-o", tmp_path / "set", "--tokenizer", tokenizer, "--processes", 1, code=1)
    assert reason in out and "NOT fit" in out


@pytest.mark.parametrize("content", [b"", b"[]", b" \n"])
def test_a_file_without_records_is_an_error_in_two_lines(tmp_path, tokenizer, content):
    (tmp_path / "in.json").write_bytes(content)
    with pytest.raises(ChakuError, match="no records"):
        run("build", tmp_path / "in.json", "-o", tmp_path / "set", "--tokenizer", tokenizer, "--processes", 1)


def test_text_that_is_not_used_is_named_and_an_identity_file_is_not_overwritten(tmp_path, tokenizer):
    records = [{**record, "notes": "look here"} for record in sharegpt(6)]
    source = write_lines(tmp_path / "in.jsonl", records)
    out = run(
        "build", source, "-o", tmp_path / "set", "--tokenizer", tokenizer, "--context", 512, "--processes", 1,
        "--test-fraction", 0,
    )  # fmt: skip
    assert "in.jsonl: text that is not used: notes (6)" in out
    with pytest.raises(ChakuError, match="exists"):
        run("identity", "--name", "Kusi", "--org", "us", "-o", source)


@pytest.mark.model
def test_the_real_files_become_rows_at_97_percent(tmp_path, smollm2_path):
    folder = SHARED / "conversations"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    inputs = sorted(folder.glob("*.json*"))
    out = run("build", *inputs, "-o", tmp_path / "set", "--tokenizer", smollm2_path)
    manifest = json.loads((tmp_path / "set/manifest.json").read_text())
    assert "4,660 records in" in out and manifest["audit"]["passed"]
    assert manifest["audit"]["facts"]["fill"] >= 0.97
    assert manifest["counts"]["normalise"]["drops"] == {"no_assistant": 60}
    formats = [kind for entry in manifest["inputs"] for kind in entry["formats"]]
    assert sorted(formats) == ["bare prompt", "message tree", "openai messages", "sharegpt"]


def test_a_built_in_template_is_written_as_jinja_with_our_masks_or_plain(tmp_path):
    from chaku.chat.export import to_jinja
    from chaku.chat.templates import get_template

    assert "vicuna_v1.1" in run("template").splitlines()
    marked, plain = tmp_path / "marked.jinja", tmp_path / "plain.jinja"
    run("template", "vicuna_v1.1", "-o", marked)
    run("template", "vicuna_v1.1", "--plain", "--no-bos", "-o", plain)
    assert marked.read_text() == to_jinja(get_template("vicuna_v1.1"), generation=True)
    assert plain.read_text() == to_jinja(get_template("vicuna_v1.1"), bos=False) != marked.read_text()
    with pytest.raises(ChakuError, match="exists"):
        run("template", "vicuna_v1.1", "-o", plain)
    with pytest.raises(ChakuError, match="no template is called 'vicuna'"):
        run("template", "vicuna")
