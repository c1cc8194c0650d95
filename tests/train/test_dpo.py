"""Preference training: DPO against its published formula, exact under packing, processes and kills."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import Tensor

from chaku.cli.main import root
from chaku.data.rows.packed import Row
from chaku.errors import ConfigError, UsageError
from chaku.train.base import find_base
from chaku.train.batches import Batches, PairRow, Step
from chaku.train.config import DpoConfig, TrainConfig
from chaku.train.log import read_log
from chaku.train.model import Trainee
from chaku.train.objective import dpo, num_pairs
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee
from chaku.train.plan import make_plan
from chaku.train.reference import asked, log_probs_of
from chaku.train.rows import Rows
from data.made import built, sentence
from train import small
from train.small import Heard
from train.test_equal import assert_equal, gradients

CPU = World.alone(torch.device("cpu"))
DPO: dict[str, Any] = {"objective": "dpo", "lr": 3e-3, "batch_rows": 4, "epochs": 2}


def write_pairs(folder: Path, tokenizer: Path, number: int = 40, *, shuffled: bool = False) -> Path:
    """Pairs whose chosen answer ends in one odd word, two of each prompt; shuffled, it is rejected in one of the two.

    Pairs of one prompt come into the same split, so the labels of either split are as often right as wrong.
    """
    chooser, labels = random.Random(0), random.Random(1)
    source = folder.with_suffix(".jsonl")
    records = []
    for index in range(number // 2):
        prompt, reversed_one = f"{index} {sentence(chooser, 3)}", labels.randrange(2)
        for at in range(2):
            answer = sentence(chooser, 3)
            both = [f"{answer} zebra", f"{answer} {sentence(chooser, 1)}"]
            if shuffled and at == reversed_one:
                both.reverse()
            records.append({"prompt": prompt, "chosen": both[0], "rejected": both[1]})
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    return built(folder, tokenizer, source, context=256, pack_length=400, test_fraction=0.2).folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "set", base)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reference"


def trainee(base: Path, **changes: Any) -> Trainee:
    config = TrainConfig(**{**small.SETTINGS, **DPO, **changes})
    return open_trainee(find_base(str(base)), config, 256, CPU)


def referenced(base: Path, rows: list[Row], *, noise: float = 3.0) -> list[Row]:
    """Rows with the base's own log probabilities, moved a little: gradients then differ from pair to pair."""
    model = trainee(base)
    chance = np.random.default_rng(0)
    with asked(model, without_adapters=True):
        each = [log_probs_of([row], 1, model, CPU, None) for row in rows]
    return [
        PairRow(**vars(row), reference=values + noise * chance.normal(size=len(values)))
        for row, values in zip(rows, each, strict=True)
    ]


def unpacked(rows: list[Row]) -> list[Row]:
    """Each pair as a row of its own."""
    found: list[Row] = []
    for row in rows:
        documents = list(row.documents())
        assert isinstance(row, PairRow)
        for at in range(0, len(documents), 2):
            ids, masks = zip(*documents[at : at + 2], strict=True)
            numbers = np.repeat(np.arange(2, dtype=np.uint16), [len(one) for one in ids])
            found.append(
                PairRow(
                    row.file,
                    row.number,
                    np.concatenate(ids),
                    np.concatenate(masks),
                    numbers,
                    row.reference[at : at + 2],
                )
            )
    return found


@pytest.fixture(scope="module")
def rows(pairs: Path, base: Path) -> list[Row]:
    every = Rows(pairs, "pairs-train")
    return referenced(base, [every[number] for number in range(len(every))])


def step_of(rows: list[Row], micro_rows: int = 99, **changes: Any) -> Step:
    return Batches(rows, len(rows), micro_rows, 0, weigh=num_pairs, **changes).step(0)


# The loss itself


def by_hand(model: Trainee, rows: list[Row], settings: DpoConfig) -> tuple[float, list[float]]:
    """Mean loss and margins from the whole softmax, one document at a time, in numbers alone."""
    losses, margins = [], []
    for row in rows:
        assert isinstance(row, PairRow)
        ratios = []
        for (ids, mask), reference in zip(row.documents(), row.reference, strict=True):
            with torch.no_grad():
                logits = model.causal(input_ids=torch.tensor(ids.astype(np.int64))[None]).logits[0].double()
            logs = torch.log_softmax(logits, -1)
            answer = [at for at in range(1, len(ids)) if mask[at]]
            ratio = sum(float(logs[at - 1, int(ids[at])]) for at in answer) - float(np.float32(reference))
            ratios.append(ratio / len(answer) if settings.length_normalised else ratio)
        for chosen, rejected in zip(ratios[::2], ratios[1::2], strict=True):
            margin = settings.beta * (chosen - rejected)
            right = 1 / (1 + math.exp(-margin))
            smoothing = settings.label_smoothing
            losses.append(-(1 - smoothing) * math.log(right) - smoothing * math.log(1 - right))
            margins.append(margin)
    return sum(losses) / len(losses), margins


@pytest.mark.parametrize(
    "settings",
    [{}, {"beta": 0.5}, {"label_smoothing": 0.2}, {"length_normalised": True, "beta": 5.0, "label_smoothing": 0.1}],
)
def test_the_loss_is_that_of_the_paper(base: Path, rows: list[Row], settings: dict[str, Any]) -> None:
    config = DpoConfig(**settings)
    model = trainee(base, dpo=config.model_dump())
    step = step_of(rows)
    (batch,) = step.micro_batches
    with torch.no_grad():
        loss, metrics = model.summed_loss(batch)
    wanted, margins = by_hand(model, rows_in_order(rows), config)
    assert step.weight == len(margins) == sum(map(num_pairs, rows))
    assert float(loss) / step.weight == pytest.approx(wanted, rel=1e-4)
    assert float(metrics["margin"]) == pytest.approx(sum(margins), rel=1e-3, abs=1e-3)
    assert float(metrics["accuracy"]) == sum(margin > 0 for margin in margins)


def rows_in_order(rows: list[Row]) -> list[Row]:
    return [rows[number] for number in Batches(rows, len(rows), 99, 0).step(0).rows]


@pytest.mark.parametrize(("smoothing", "beta"), [(0.0, 0.1), (0.3, 2.0)])
def test_a_model_that_is_its_own_reference_has_loss_log_2(
    base: Path, rows: list[Row], smoothing: float, beta: float
) -> None:
    """Both sides of the sigmoid are 0.5 then, whatever beta and smoothing are: -log(0.5)."""
    exact = referenced(base, [Row(*(getattr(row, name) for name in Row.__dataclass_fields__)) for row in rows], noise=0)
    model = trainee(base, dpo={"beta": beta, "label_smoothing": smoothing})
    step = step_of(exact)
    with torch.no_grad():
        loss = sum(float(model.summed_loss(batch)[0]) for batch in step.micro_batches) / step.weight
    assert loss == pytest.approx(math.log(2), rel=1e-4)


def test_the_loss_of_log_probabilities_given_as_numbers() -> None:
    """Chosen -4 against a reference of -5, rejected -6 against -4: margin 0.1 * (1 - -2) = 0.3; -log sigmoid(0.3)."""
    batch: Any = dataclasses.make_dataclass("Batch", ["target_documents", "reference"])(
        torch.tensor([0, 0, 1, 1, 1]), torch.tensor([-5.0, -4.0])
    )
    loss, metrics = dpo(DpoConfig())(torch.tensor([-1.0, -3.0, -2.0, -2.0, -2.0]), batch)
    assert float(loss) == pytest.approx(0.554355, abs=1e-6) and float(metrics["margin"]) == pytest.approx(0.3)
    loss, _ = dpo(DpoConfig(length_normalised=True, beta=1.0))(torch.tensor([-1.0, -3.0, -2.0, -2.0, -2.0]), batch)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-(1 / 2 + 2 / 3))), rel=1e-6)


# Exact


@pytest.fixture(scope="module")
def whole(base: Path, rows: list[Row]) -> dict[str, Tensor]:
    return gradients(trainee(base), step_of(rows))


@pytest.mark.parametrize("micro_rows", [1, 3])
@pytest.mark.parametrize("packs", [True, False])
def test_gradients_are_equal_packed_and_not_whole_and_accumulated(
    base: Path, rows: list[Row], whole: dict[str, Tensor], packs: bool, micro_rows: int
) -> None:
    cut = rows if packs else unpacked(rows)
    assert any(num_pairs(row) > 1 for row in rows)
    assert_equal(whole, gradients(trainee(base), step_of(cut, micro_rows)))


def test_two_processes_have_the_gradients_and_numbers_of_one(
    base: Path, rows: list[Row], whole: dict[str, Tensor], tmp_path: Path
) -> None:
    odd = rows[:3]  # the second process has no rows left in the last turn
    alone = gradients(trainee(base), step_of(odd, 1))

    def work(world: World) -> None:
        config = TrainConfig(**{**small.SETTINGS, **DPO})
        model = open_trainee(find_base(str(base)), config, 256, world)
        step = step_of(odd, 1, rank=world.rank, num_processes=world.size)
        found = gradients(model, step)
        full = {name: each.full_tensor() for name, each in found.items()}  # type: ignore[operator]
        if world.is_rank_zero:
            torch.save(full, tmp_path / "gradients.pt")

    assert small.together(work, 2) == [0, 0]
    assert_equal(alone, torch.load(tmp_path / "gradients.pt"))


def test_a_killed_run_ends_in_the_same_bits_and_asks_the_reference_once(
    base: Path, pairs: Path, tmp_path: Path, cache: Path
) -> None:
    straight = small.trained(small.recipe("straight", base, tmp_path, **DPO), pairs)
    parts = sorted(cache.glob("*/whole.npy"))
    stamps = [path.stat().st_mtime_ns for path in parts]
    assert len(parts) == 2

    def killed() -> None:
        heard = Heard(lambda record: small.kill_self() if record.step == 3 else None)
        small.trained(small.recipe("killed", base, tmp_path, **DPO), pairs, heard=heard)

    assert small.in_fork(killed) == -9
    heard = Heard()
    resumed = small.trained(small.recipe("killed", base, tmp_path, **DPO), pairs, resume=True, heard=heard)
    assert small.weights(straight) == small.weights(resumed) and small.numbers(straight) == small.numbers(resumed)
    assert [path.stat().st_mtime_ns for path in parts] == stamps
    assert not any("reference" in line for line in heard.lines)


def test_a_run_that_is_killed_in_a_half_written_reference_cache_ends_in_the_same_bits(
    base: Path, pairs: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {**DPO, "max_steps": 3, "evaluate_every": 0}
    monkeypatch.setattr("chaku.train.reference._ROWS_PER_PART", 3)
    straight = small.trained(small.recipe("straight", base, tmp_path, **few), pairs)
    wanted = {path.parent.name: path.read_bytes() for path in cache.glob("*/whole.npy")}
    assert len(list(cache.glob("*/part-*.npy"))) > len(wanted) == 2
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "another"))
    save, counted = np.save, itertools.count()

    def killed() -> None:
        def half_saved(file: Any, values: Any) -> None:
            if next(counted) == 1:
                whole = io.BytesIO()
                save(whole, values)
                file.write(whole.getvalue()[: whole.tell() // 2])
                file.flush()
                small.kill_self()
            save(file, values)

        monkeypatch.setattr(np, "save", half_saved)
        small.trained(small.recipe("killed", base, tmp_path, **few), pairs)

    assert small.in_fork(killed) == -9
    (done,) = (tmp_path / "another" / "reference").rglob("part-*.npy")
    assert list(done.parent.glob(".*.part"))
    stamp = done.stat().st_mtime_ns
    resumed = small.trained(small.recipe("killed", base, tmp_path, **few), pairs, resume=True)
    assert small.weights(straight) == small.weights(resumed) and small.numbers(straight) == small.numbers(resumed)
    assert done.stat().st_mtime_ns == stamp, "the part that was whole is not computed again"
    found = {path.parent.name: path.read_bytes() for path in (tmp_path / "another").glob("reference/*/whole.npy")}
    assert found == wanted and not list(done.parent.glob(".*"))


def test_a_lost_cache_is_filled_again_with_the_weights_from_before_the_first_step(
    base: Path, pairs: Path, tmp_path: Path, cache: Path
) -> None:
    first = small.trained(small.recipe("first", base, tmp_path, max_steps=3, **DPO), pairs)
    wanted = max((np.load(path) for path in cache.glob("*/whole.npy")), key=len)
    for path in cache.rglob("*.npy"):
        path.unlink()
    (first / "checkpoints" / "step-3").rename(tmp_path / "gone")
    small.trained(small.recipe("first", base, tmp_path, max_steps=3, **DPO), pairs, resume=True)
    found = max((np.load(path) for path in cache.glob("*/whole.npy")), key=len)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_margins_and_accuracies_are_logged_and_grow(base: Path, pairs: Path, tmp_path: Path, method: str) -> None:
    lora = {"method": "lora", "lr": 2e-2, "lora": {"rank": 4}} if method == "lora" else {}
    settings = {**DPO, "epochs": 4, **lora}
    folder = small.trained(small.recipe(method, base, tmp_path, **settings), pairs)
    steps = [line for line in read_log(folder / "log.jsonl") if "loss" in line]
    assert steps[0]["loss"] == pytest.approx(math.log(2), rel=1e-3)
    last = steps[-1]["metrics"]
    assert last["heldout_margin"] > 0.01 and last["heldout_accuracy"] >= 0.8
    assert last["margin"] == pytest.approx(last["chosen_reward"] - last["rejected_reward"], rel=1e-6)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["num_pairs"] > 20 and "num_conversations" not in manifest["data"]


def test_the_odd_word_s_log_odds_rise_on_held_out_prompts_and_hardly_move_with_evenly_shuffled_labels(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    held_out = Rows(pairs, "pairs-test")
    rows = [held_out[number] for number in range(len(held_out))]

    def log_odds(path: Path) -> float:
        model = open_trainee(find_base(str(path)), TrainConfig(**small.SETTINGS), 400, CPU)
        with asked(model, without_adapters=True):
            values = log_probs_of(rows, 2, model, CPU, None)
        return float(np.mean(values[0::2] - values[1::2]))

    by_chance = write_pairs(tmp_path / "chance-set", base, shuffled=True)
    before, settings = log_odds(base), {**DPO, "epochs": 4, "final_dtype": "fp32"}
    gained = {
        name: log_odds(small.trained(small.recipe(name, base, tmp_path, **settings), data) / "final") - before
        for name, data in (("told", pairs), ("chance", by_chance))
    }
    print(
        f"log odds of the odd word: {before:.2f} before; told {gained['told']:+.2f}, shuffled {gained['chance']:+.2f}"
    )
    assert gained["told"] > 1 and abs(gained["chance"]) < gained["told"] / 5, gained


def test_the_reference_of_lora_is_the_base_with_the_adapter_switched_off(base: Path, rows: list[Row]) -> None:
    plain, lora = trainee(base), trainee(base, method="lora", lora={"rank": 4})
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    few = rows[:2]
    with asked(plain, without_adapters=True):
        wanted = log_probs_of(few, 1, plain, CPU, None)
    with asked(lora, without_adapters=True):
        np.testing.assert_allclose(log_probs_of(few, 1, lora, CPU, None), wanted, rtol=1e-5)
    with asked(lora, without_adapters=False):
        assert np.abs(log_probs_of(few, 1, lora, CPU, None) - wanted).max() > 0.1


def test_the_dry_run_tells_the_pairs_and_plots_show_margins(
    base: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {**small.SETTINGS, "objective": "dpo", "dpo": {"beta": 0.3, "label_smoothing": 0.1}, "max_steps": 2}
    Path("recipe.yaml").write_text(
        yaml.safe_dump({"name": "shown", "base": str(base), "data": str(pairs), "train": settings})
    )
    planned = CliRunner().invoke(root, ["train", "recipe.yaml", "--dry-run"], catch_exceptions=False)
    facts = json.loads((pairs / "manifest.json").read_text())["audit"]["facts"]["pairs"]
    assert f"dpo on {facts['train']} preference pairs, {facts['test']} held out; beta 0.3" in planned.output
    assert "label smoothing 0.1; the reference is" in planned.output and not Path("runs").exists()
    assert CliRunner().invoke(root, ["train", "recipe.yaml"], catch_exceptions=False).exit_code == 0
    for quantity in ("margin", "heldout_accuracy"):
        done = CliRunner().invoke(root, ["runs", "plot", "shown", "--of", quantity], catch_exceptions=False)
        assert done.exit_code == 0 and Path(f"{quantity}.svg").read_text().startswith("<svg")
    assert "preference pairs" in CliRunner().invoke(root, ["runs", "show", "shown"], catch_exceptions=False).output
    assert "Preference pairs" in Path("runs/shown/final/README.md").read_text()


# Refusals


def test_a_recipe_and_a_set_that_do_not_fit_are_refused(
    base: Path, pairs: Path, small_set: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="holds only conversations, objective dpo"):
        make_plan(small.recipe("a", base, tmp_path, objective="dpo"), small_set)
    with pytest.raises(UsageError, match="holds only preference pairs, objective supervised"):
        make_plan(small.recipe("a", base, tmp_path), pairs)
    for wrong in (
        {"dpo": {"beta": 0.5}},
        {"objective": "dpo", "dpo": {"beta": 0}},
        {"objective": "dpo", "dpo": {"label_smoothing": 0.5}},
    ):
        with pytest.raises(ConfigError):
            make_plan(small.recipe("a", base, tmp_path, **wrong), pairs)
