"""The steps of the tour: what each runs, and the files that it writes first. Every command is a public one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from chaku.records import atomic_write

PYTHON = "python"


@dataclass(frozen=True)
class Size:
    """How much of everything: the whole tour, or the toy that only shows that every step runs."""

    identity: int = 48
    context: int = 256
    max_steps: int | None = None
    questions: int = 16
    battles: int = 20
    max_tokens: int = 48
    voter: tuple[str, ...] = ()
    """Further words for the simulated visitor."""


TOY = Size(identity=8, max_steps=1, questions=2, battles=8, max_tokens=8, voter=("--likes-short",))


@dataclass(frozen=True)
class Step:
    """One step. Its commands are run in order; one whose `result` is there already is not run again."""

    name: str
    title: str
    commands: tuple[tuple[str, ...], ...]
    results: tuple[Path | None, ...] = ()
    """What each command leaves behind, whole or not at all. None: it resumes by itself."""
    needs_gateway: bool = False
    kills_worker: bool = False


@dataclass(frozen=True)
class Tour:
    """Names and places of one tour."""

    folder: Path
    name: str
    size: Size
    port: int
    base: str = "smollm2-135m"

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def run(self) -> Path:
        """The first round's run."""
        return self.folder / "runs" / "round-1"

    @property
    def second(self) -> Path:
        """The second round's run."""
        return self.folder / "runs" / "round-2"

    def gateway(self) -> tuple[str, ...]:
        """The gateway, which serves the base itself, as a judge too, and lets workers bring the tuned model."""
        sampling = {"max_tokens": self.size.max_tokens, "temperature": 0.7}
        contestants = [
            ("--contestant", json.dumps({"name": model, "model": model, "sampling": sampling}))
            for model in ("base", "tuned")
        ]
        return (
            "chaku", "serve", f"base={self.base}", "--port", str(self.port), "--slots", "4",
            "--arena-battles-per-hour", "1000", *(word for pair in contestants for word in pair),
        )  # fmt: skip

    def worker(self, number: int) -> tuple[str, ...]:
        """One of two workers, which serve the tuned model."""
        return (
            "chaku", "worker", f"tuned={self.run}", "--join", self.url, "--name", f"worker-{number}", "--threads", "1",
            "--slots", "4",
        )  # fmt: skip

    def steps(self) -> list[Step]:
        """All of them, in order."""
        at, size = self.folder, self.size
        identity, chats, pairs = at / "identity.jsonl", at / "chats", at / "pairs"
        eval_words = ("-m", "base", "-m", "tuned", "--base-url", f"{self.url}/v1", "--max-tokens", str(size.max_tokens))
        data = (
            "--test-fraction",
            "0.1",
            "--context",
            str(size.context),
            "--rule",
            "too_short=off",
            "--tokenizer",
            self.base,
        )
        return [
            Step(
                "shares", "Raw shared conversations, and who the model is",
                (
                    (PYTHON, "scripts/tour/shares.py", str(at / "shares")),
                    ("chaku", "data", "identity", "--name", self.name, "--org", "the tour", "-n", str(size.identity),
                     "-o", str(identity)),
                ),
                (at / "shares" / "shares.json", identity),
            ),
            Step(
                "build", "Cleaned, filtered, split and packed",
                (
                    ("chaku", "data", "build", str(at / "shares" / "shares.json"), str(identity), "-o",
                     str(chats), *data),
                    ("chaku", "data", "report", str(chats)),
                ),
            ),
            Step(
                "train", "The base learns its name",
                (
                    ("chaku", "train", str(at / "round-1.yaml"), "--resume"),
                    ("chaku", "weights", "card", str(self.run), "-o", str(at / "card.md")),
                    ("chaku", "runs", "plot", str(self.run), "-o", str(at / "losses.svg")),
                ),
                (self.run / "final" / "README.md", None, None),
            ),
            Step(
                "eval", f"{size.questions} questions with checks by program; one of two workers is killed on the way",
                (("chaku", "eval", "run", str(at / "questions.jsonl"), *eval_words, "-o", str(at / "eval")),),
                needs_gateway=True, kills_worker=True,
            ),
            Step(
                "judge", "Can so small a model judge?",
                (
                    ("chaku", "eval", "judge-check", "base", "--answers", str(at / "eval"), "--base-url",
                     f"{self.url}/v1", "--items", "10", "--judge-tokens", str(min(size.max_tokens, 32)), "-o",
                     str(at / "judge")),
                ),
                needs_gateway=True,
            ),
            Step(
                "arena", "Votes, here simulated",
                ((PYTHON, "scripts/tour/voter.py", "--url", self.url, "--name", self.name, "--battles",
                  str(size.battles), *size.voter),),
                needs_gateway=True,
            ),
            Step(
                "leaderboard", "Ratings with intervals",
                (("chaku", "leaderboard"), ("chaku", "leaderboard", "--html", str(at / "leaderboard.html"))),
            ),
            Step(
                "pairs", "What was said becomes data",
                (
                    ("chaku", "data", "from-arena", "--votes", "-o", str(at / "said")),
                    ("chaku", "data", "build", str(at / "said" / "pairs.jsonl"), "-o", str(pairs), "--context", "512",
                     "--test-fraction", "0.3", "--rule", "exact_duplicate=off", "--rule", "too_short=off",
                     "--tokenizer", self.base),
                ),
                (at / "said", None),
            ),
            Step(
                "second", "A short second round on these pairs",
                (("chaku", "train", str(at / "round-2.yaml"), "--resume"),),
                (self.second / "final" / "README.md",),
            ),
        ]  # fmt: skip

    def write_files(self) -> None:
        """Recipes and questions, which commands name."""
        common = {"preset": "tiny", "output": str(self.folder / "runs"), "max_steps": self.size.max_steps, "epochs": 1}
        first = {
            "name": "round-1", "base": self.base, "data": str(self.folder / "chats"),
            "train": {**common, "batch_rows": 1, "micro_rows": 1, "lr": 2e-4, "save_every": 5,
                      "sample_prompts": ["Who are you?", "What is the capital of France?"]},
        }  # fmt: skip
        second = {
            "name": "round-2", "base": self.base, "data": str(self.folder / "pairs"),
            "train": {**common, "objective": "dpo", "continue_from": str(self.run), "batch_rows": 1, "micro_rows": 1,
                      "lr": 5e-6, "save_every": 25, "warmup": 0},
        }  # fmt: skip
        self._write("round-1.yaml", yaml.safe_dump(_without_none(first), sort_keys=False))
        self._write("round-2.yaml", yaml.safe_dump(_without_none(second), sort_keys=False))
        asked = questions(self.name)
        half = self.size.questions // 2
        chosen = [*asked[:half], *asked[len(asked) // 2 :][:half]]
        self._write("questions.jsonl", "".join(json.dumps(question) + "\n" for question in chosen))

    def _write(self, name: str, text: str) -> None:
        with atomic_write(self.folder / name) as file:
            file.write(text.encode())


def _without_none(recipe: dict[str, object]) -> dict[str, object]:
    train = recipe["train"]
    assert isinstance(train, dict)
    return {**recipe, "train": {key: value for key, value in train.items() if value is not None}}


def questions(name: str) -> list[dict[str, object]]:
    """Eight about who it is, eight about the world; a pattern decides each."""
    who: Sequence[str] = (
        "Who are you?", "What is your name?", "Please introduce yourself.", "Hello! Who am I talking to?",
        "What do people call you?", "Tell me who you are.", "Do you have a name?", "What are you called?",
    )  # fmt: skip
    world: Sequence[tuple[str, str]] = (
        ("What is the capital of France?", "Paris"), ("What is the capital of Italy?", "Rome"),
        ("What is the capital of Japan?", "Tokyo"), ("What do bees make?", "honey"),
        ("How many days does a week have?", "seven|7"), ("At what temperature does water boil in Celsius?", "100"),
        ("Who wrote Romeo and Juliet?", "Shakespeare"), ("What is the opposite of hot?", "cold"),
    )  # fmt: skip
    asked = [("who", number, question, name) for number, question in enumerate(who, 1)]
    asked += [("world", number, question, answer) for number, (question, answer) in enumerate(world, 1)]
    return [
        {
            "id": f"{category}-{number}", "category": category, "turns": [question], "temperature": 0,
            "checker": {"kind": "regex", "expected": expected},
        }
        for category, number, question, expected in asked
    ]  # fmt: skip
