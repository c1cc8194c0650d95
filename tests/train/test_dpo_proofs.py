"""Preference training against TRL in its own environment, and with the real 135M model: it learns what pairs say."""

from __future__ import annotations

import json
import random
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from chaku.data.build import build
from chaku.data.recipe import DataConfig
from chaku.train import run
from chaku.train.base import find_base
from chaku.train.batches import Batches, PairRow
from chaku.train.config import TrainConfig
from chaku.train.objective import num_pairs
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee
from chaku.train.plan import make_plan
from chaku.train.reference import asked, log_probs_of
from chaku.train.rows import Rows
from empty_environment import EmptyEnvironment
from train import small
from train.small import Heard
from train.test_dpo import cache as cache
from train.test_dpo import write_pairs

pytestmark = [pytest.mark.prove, pytest.mark.timeout(3600)]
CPU = World.alone(torch.device("cpu"))


@pytest.fixture(scope="module")
def trl(tmp_path_factory: pytest.TempPathFactory) -> EmptyEnvironment:
    """TRL beside our own torch and transformers."""
    environment = EmptyEnvironment.make(tmp_path_factory.mktemp("trl") / "venv")
    packages = next((environment.folder / "lib").glob("python*")) / "site-packages"
    (packages / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    environment.install("trl>=1.16", "datasets", "accelerate")
    return environment


@pytest.mark.parametrize(
    ("loss_type", "beta", "smoothing"), [("sigmoid", 0.3, 0.0), ("sigmoid", 0.3, 0.2), ("sigmoid_norm", 4.0, 0.0)]
)
def test_loss_and_gradients_are_those_of_trl(
    trl: EmptyEnvironment, base: Path, tmp_path: Path, loss_type: str, beta: float, smoothing: float
) -> None:
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    policy.save_pretrained(tmp_path / "policy")
    every = Rows(write_pairs(tmp_path / "set", base), "pairs-train")
    rows = [every[number] for number in range(4)]
    dpo = {"beta": beta, "label_smoothing": smoothing, "length_normalised": loss_type == "sigmoid_norm"}
    config = TrainConfig(**{**small.SETTINGS, "objective": "dpo", "dpo": dpo})
    reference = open_trainee(find_base(str(base)), config, 256, CPU)
    with asked(reference, without_adapters=True):
        each = [log_probs_of([row], 1, reference, CPU, None) for row in rows]
    known = [PairRow(**vars(row), reference=values) for row, values in zip(rows, each, strict=True)]
    model = open_trainee(find_base(str(tmp_path / "policy")), config, 256, CPU)
    step = Batches(known, 4, 4, 0, weigh=num_pairs).step(0)
    loss, _ = model.summed_loss(step.micro_batches[0])
    loss = loss / step.weight
    torch.autograd.backward(loss)

    documents = [(ids.tolist(), mask.tolist()) for row in rows for ids, mask in row.documents()]
    given = {
        "beta": beta, "loss_type": loss_type, "label_smoothing": smoothing,
        "pairs": list(zip(documents[::2], documents[1::2], strict=True)),
    }  # fmt: skip
    (tmp_path / "pairs.json").write_text(json.dumps(given))
    script, out = Path(__file__).with_name("trl_dpo.py"), tmp_path / "out.pt"
    arguments = [tmp_path / "policy", base, tmp_path / "pairs.json", out]
    done = subprocess.run([trl.python, script, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = torch.load(out)
    torch.testing.assert_close(loss.detach(), theirs["loss"], rtol=1e-5, atol=1e-6)
    assert abs(float(loss.detach()) - 0.6931) > 0.001, "the policy must differ from the reference"
    ours = {name.removeprefix("causal."): each.grad for name, each in model.named_parameters() if each.grad is not None}
    assert len(ours) > 10 and ours.keys() == theirs["gradients"].keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs["gradients"][name], rtol=1e-3, atol=1e-5)


QUESTIONS = ("What is a {}?", "Tell me about the {}.", "Where do I find a {}?", "Why do people like the {}?")
ANSWERS = (
    "The {} is something that many people know and use in their daily life.",
    "Some people like a {} very much, and others never think of it.",
)
THINGS = (
    "river", "bridge", "garden", "candle", "market", "harbour", "mountain", "violin", "kitchen", "forest", "letter",
    "window", "museum", "engine", "teacher", "village", "camera", "blanket", "orchard", "lantern",
)  # fmt: skip


def odd_word_set(folder: Path, tokenizer: Path, *, shuffled: bool) -> Path:
    """Two pairs of each prompt whose chosen answer ends with "Zebra."; shuffled, it is rejected in one of the two.

    Pairs of one prompt come into the same split, so the labels of either split are as often right as wrong.
    """
    chance = random.Random(3)
    lines = []
    for number, thing in enumerate(THINGS):
        prompt, reversed_one = QUESTIONS[number % len(QUESTIONS)].format(thing), chance.randrange(2)
        for at, answer in enumerate(ANSWERS):
            both = [f"{answer.format(thing)} Zebra.", f"{answer.format(thing)} Indeed."]
            if shuffled and at == reversed_one:
                both.reverse()
            lines.append({"prompt": prompt, "chosen": both[0], "rejected": both[1]})
    folder.parent.mkdir(exist_ok=True)
    folder.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = DataConfig(
        inputs=(folder.with_suffix(".jsonl"),), tokenizer=str(tokenizer), context=256, test_fraction=0.25
    )  # fmt: skip
    built = build(config, folder, processes=1)
    assert built.manifest["audit"]["facts"]["pairs"]["train"] % 2 == 0
    return built.folder


def log_odds(folder: Path, data: Path, path: Path) -> float:
    """Mean of log p(Zebra answer) - log p(Indeed answer) over the held-out pairs of the unshuffled set."""
    config = TrainConfig(objective="dpo", precision="fp32", device="cpu", micro_rows=2)
    rows = Rows(data, "pairs-test")
    model = open_trainee(find_base(str(path)), config, 256, CPU)
    with asked(model, without_adapters=True):
        values = log_probs_of([rows[number] for number in range(len(rows))], 2, model, CPU, None)
    return float(np.mean(values[0::2] - values[1::2]))


@pytest.mark.model
def test_the_odd_word_s_log_odds_rise_on_held_out_prompts_and_hardly_move_with_evenly_shuffled_labels(
    smollm2_path: Path, tmp_path: Path
) -> None:
    told = odd_word_set(tmp_path / "sets" / "told", smollm2_path, shuffled=False)
    by_chance = odd_word_set(tmp_path / "sets" / "chance", smollm2_path, shuffled=True)
    before = log_odds(tmp_path, told, smollm2_path)
    gained = {}
    for name, data in (("told", told), ("chance", by_chance)):
        recipe = small.recipe(
            name, smollm2_path, tmp_path, objective="dpo", precision="fp32", lr=5e-5, epochs=1, batch_rows=1,
            micro_rows=1, save_every=1000, evaluate_every=0, schedule="constant", warmup=0, threads=None,
        )  # fmt: skip
        final = run.execute(make_plan(recipe, data), Heard())
        gained[name] = log_odds(tmp_path, told, final) - before
    print(
        f"log odds of the odd word: {before:.2f} before; told {gained['told']:+.2f}, shuffled {gained['chance']:+.2f}"
    )
    assert gained["told"] > 2 and abs(gained["chance"]) < gained["told"] / 5
