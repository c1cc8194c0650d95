"""Folders and other quantisations: converted once, by a child, whole or not at all."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chaku.errors import ModelError, UsageError
from chaku.models.fetch import converted
from chaku.models.fetch.pull import pull
from chaku.models.files.gguf import read_metadata
from chaku.models.reference import LocalFolder, UrlFile, parse
from chaku.models.tokenizers.vocabulary import read_vocabulary
from chaku.packages import install_command
from chaku.records import sha256_file
from chaku_server import SMALL, serving
from file_server import FileServer, Page
from llamacpp_ids import running
from miniatures import save_llama
from processes import environment

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

PARIS = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


class Phases(list[str]):
    """A progress that remembers its phases."""

    def __call__(self, phase: str, _done: int, _total: int | None) -> None:
        self.append(phase)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("models") / "mini"
    return folder, save_llama(folder)


def test_a_folder_is_converted_once_for_its_content(llama: tuple[Path, Any], models_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama[0], tmp_path / "mini")
    phases = Phases()
    first = pull(LocalFolder(folder), progress=phases)
    assert "convert" in phases and read_metadata(first.path).quantisation == "Q8_0"
    assert first.path.parent == models_dir.parent / "converted" and first.path.name.startswith("mini.Q8_0.")
    (folder / "trainer_state.json").write_text("{}")
    phases = Phases()
    assert pull(LocalFolder(folder), progress=phases).path == first.path
    assert "convert" not in phases
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 128}))
    other = pull(LocalFolder(folder))
    assert other.path != first.path and read_metadata(other.path).context_length == 128
    assert {(one.source, one.quantisation, one.path) for one in converted.conversions()} == {
        ("mini", "Q8_0", first.path),
        ("mini", "Q8_0", other.path),
    }


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own call
async def test_an_adapter_in_a_run_answers_as_in_peft(
    llama: tuple[Path, Any], models_dir: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(llama[0])
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=16, target_modules=["q_proj", "down_proj"])
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(tmp_path / "runs" / "first" / "final")
    argument = parse(str(tmp_path / "runs" / "first"))
    assert argument.name == "first"
    path = pull(argument.reference, quant="f16").path
    prompt = list(range(100, 140))
    with torch.inference_mode():
        expected = torch.log_softmax(adapted.eval()(torch.tensor([prompt])).logits[0, -1], -1)
    async with running(path) as llamacpp:
        found = await llamacpp.log_probabilities(prompt, 5)
    assert found == pytest.approx({token: float(expected[token]) for token in found}, abs=0.05)


def test_what_can_not_be_converted_says_why_and_leaves_nothing(
    llama: tuple[Path, Any], models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(llama[0], tmp_path / "mini")
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt_neox"}))
    with pytest.raises(ModelError, match="'gpt_neox' can't be written as GGUF") as caught:
        pull(LocalFolder(folder))
    assert caught.value.fix == "use llama.cpp's own converter for this model"
    assert not list((models_dir.parent / "converted").glob("*.gguf"))
    (tmp_path / "runs" / "unfinished" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ModelError, match="has not finished"):
        pull(LocalFolder(tmp_path / "runs" / "unfinished"))
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "no/where"}')
    with pytest.raises(ModelError, match="builds on 'no/where', which is not on this machine"):
        pull(LocalFolder(lora))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    with pytest.raises(UsageError, match="needs torch") as missing:
        pull(LocalFolder(llama[0]))
    assert missing.value.fix == install_command("train")


def test_a_pulled_file_is_requantised_once_and_kept_beside_it(
    llama: tuple[Path, Any], models_dir: Path, tmp_path: Path, server: FileServer
) -> None:
    source = pull(LocalFolder(llama[0]), quant="f16").path
    server.pages["/mini.gguf"] = Page(source.read_bytes())
    reference = UrlFile(f"{server.url}/mini.gguf", sha256_file(source))
    plain = pull(reference)
    small = pull(reference, quant="q4_0")
    assert small.path.parent == plain.path.parent and small.path != plain.path
    ours, theirs = read_vocabulary(small.path), read_vocabulary(plain.path)
    assert ours.metadata.quantisation == "Q4_0" and ours.metadata.chat_template == theirs.metadata.chat_template
    assert ours.hash == theirs.hash
    assert small.path in [one.path for one in converted.conversions()]
    phases = Phases()
    assert pull(reference, quant="q4_0", progress=phases).path == small.path
    assert "convert" not in phases
    assert pull(reference, quant="f16").path == plain.path, "it has those numbers"
    assert pull(reference) == plain


def test_two_processes_convert_once(llama: tuple[Path, Any], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chaku", "pull", str(llama[0]), "--json"]
    both = [
        subprocess.Popen(
            command,
            env=environment(CHAKU_CACHE=str(tmp_path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    paths = {json.loads(out)[0]["path"] for out, _ in told}
    assert len(paths) == 1 and len(list((tmp_path / "converted").glob("*.gguf"))) == 1
    assert sum("converting" in errors for _, errors in told) == 1, told


@pytest.mark.model
def test_a_hugging_face_folder_is_served_and_answers(smollm2_folder: Path, tmp_path: Path) -> None:
    import openai

    source = f"smol={smollm2_folder}"
    for start in ("first", "second"):
        with serving(tmp_path / start, source, *SMALL, CHAKU_CACHE=str(tmp_path / "cache")) as server:
            assert ("converting" in server.log) == (start == "first"), server.log
            with openai.OpenAI(base_url=server.base_url, api_key="none") as client:
                answer = client.chat.completions.create(
                    model="smol",
                    messages=PARIS,
                    temperature=0,
                    max_tokens=16,  # type: ignore[arg-type]
                )
            assert "Paris" in (answer.choices[0].message.content or "")
            mapped = Path(f"/proc/{server.process.pid}/maps")
            assert not mapped.exists() or "libtorch" not in mapped.read_text()


def test_a_conversion_that_is_killed_names_its_last_line_its_code_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\necho Killed\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(ModelError, match="ended with code -9: Killed") as caught:
        converted._run(tmp_path, tmp_path / "m.gguf", "q8_0", lambda *_: None)
    assert "chaku weights convert" in str(caught.value.fix)
