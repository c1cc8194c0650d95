"""A miniature Llama with its tokenizer, a set built for it, and a recipe: what the training tests run on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaku.data.recipe import Recipe
from chaku.train import run
from chaku.train.log import StepRecord, read_log
from chaku.train.plan import make_plan
from data.made import built, sentence, write_json, write_tokenizer

SETTINGS: dict[str, Any] = {
    "precision": "fp32", "lr": 3e-3, "epochs": 4, "batch_rows": 5, "micro_rows": 2, "save_every": 1, "threads": 1,
    "evaluate_every": 4, "keep_last": 2, "device": "cpu", "save_in_background": False,
}  # fmt: skip


def write_base(folder: Path, **changes: Any) -> Path:
    """Two layers of width 32 over the 260 tokens of the tests' tokenizer, the same each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings = {
        "vocab_size": 260, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "tie_word_embeddings": True, "bos_token_id": 256, "eos_token_id": 259, **changes,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder)
    for path in write_tokenizer(folder.with_name(f"{folder.name}-tokenizer")).iterdir():
        shutil.copy(path, folder / path.name)
    return folder


def with_other_eos(base: Path, folder: Path) -> Path:
    """A copy of a base whose end of text (257) is not the template's end of turn (259), as of most bases."""
    shutil.copytree(base, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "</s>"}))
    for name in ("config.json", "generation_config.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | {"eos_token_id": 257}))
    return folder


def write_set(folder: Path, tokenizer: Path, number: int = 70) -> Path:
    """Short conversations, about three to a row of 256; 20 rows or so."""
    chooser = random.Random(0)
    turns = [
        [{"from": "human", "value": sentence(chooser, 3)}, {"from": "gpt", "value": sentence(chooser, 3)}]
        for _ in range(number)
    ]
    chats = [{"id": str(index), "conversations": two} for index, two in enumerate(turns)]
    source = write_json(folder.with_suffix(".json"), chats)
    return built(folder, tokenizer, source, context=256, pack_length=256, test_fraction=0.1).folder


class Heard:
    """A listener that keeps what it hears, and may do something behind each step."""

    def __init__(self, then: Callable[[StepRecord], None] = lambda record: None) -> None:
        self.lines: list[str] = []
        self.records: list[StepRecord] = []
        self.then = then

    def note(self, line: str) -> None:
        self.lines.append(line)

    def step_done(self, record: StepRecord, total: int) -> None:
        self.records.append(record)
        self.then(record)


def recipe(name: str, base: Path, output: Path, **changes: Any) -> Recipe:
    return Recipe(name=name, base=str(base), train={**SETTINGS, "output": str(output), **changes})


def trained(made: Recipe, data: Path, *, resume: bool = False, heard: Heard | None = None) -> Path:
    """Run a recipe here; the run's folder."""
    return run.execute(make_plan(made, data), heard or Heard(), resume=resume).parent


def numbers(folder: Path) -> list[tuple[Any, ...]]:
    """What a log says that must not depend on the clock."""
    keys = ("step", "epoch", "loss", "lr", "grad_norm", "tokens", "trained_tokens", "heldout_loss")
    return [tuple(one.get(key) for key in keys) for one in read_log(folder / "log.jsonl") if "loss" in one]


def weights(folder: Path) -> dict[str, bytes]:
    """The final weights, bit by bit."""
    from safetensors.torch import load_file

    return {name: value.numpy().tobytes() for name, value in load_file(folder / "final" / "model.safetensors").items()}


def in_fork(work: Callable[[], None]) -> int:
    """Run in a forked child, so that nothing is imported again; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            work()
            code = 0
        except BaseException as error:
            code = getattr(error, "exit_code", 71)
            if code == 71:
                import traceback

                traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def together(work: Callable[[Any], None], number: int) -> list[int]:
    """Run on `number` forked processes that gloo connects, each with its World; their exit codes."""
    import torch

    from chaku.train.parallel import World

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank: int) -> None:
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=number
        )
        work(World(rank, number, torch.device("cpu")))
        torch.distributed.destroy_process_group()

    children = []
    for rank in range(number):
        if (process := os.fork()) == 0:
            os._exit(in_fork(lambda: child(rank)))  # noqa: B023 (this child leaves the loop here)
        children.append(process)
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children]


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
