"""Standard benchmarks by lm-eval against an OpenAI-compatible API: its command line, and the accuracies it found."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaku.errors import UsageError
from chaku.evals.foreign_logs import read_foreign_log
from chaku.statistics.means import Estimate, mean


@dataclass(frozen=True)
class Benchmark:
    """What lm-eval is asked to run."""

    model: str
    tasks: Sequence[str]
    base_url: str
    folder: Path
    """Where its results and samples go."""
    tokenizer: Path | None = None
    """A folder with the model's tokenizer, for tasks that compare likelihoods."""
    task_folder: Path | None = None
    """Further tasks, as YAML files."""
    limit: int | None = None
    """Items per task."""
    parallel: int = 8

    def command(self, python: str = sys.executable) -> list[str]:
        """Arguments that start lm-eval in this interpreter's environment. The key is in OPENAI_API_KEY."""
        by = f"tokenizer_backend=huggingface,tokenizer={self.tokenizer}" if self.tokenizer else "tokenizer_backend=none"
        arguments = [
            f"model={self.model}",
            f"base_url={self.base_url.rstrip('/')}/completions",
            f"num_concurrent={self.parallel}",
            f"tokenized_requests={self.tokenizer is not None}",
            by,
        ]
        further = ["--include_path", str(self.task_folder)] if self.task_folder else []
        further += ["--limit", str(self.limit)] if self.limit else []
        return [
            *(python, "-m", "lm_eval", "--model", "local-completions", "--model_args", ",".join(arguments)),
            *("--tasks", ",".join(self.tasks), "--output_path", str(self.folder), "--log_samples", *further),
        ]


@dataclass(frozen=True)
class Result:
    """The mean of one metric of one task."""

    task: str
    metric: str
    value: float
    num: int
    """Items."""
    estimate: Estimate | None
    """With its 95 % interval; None for one item, which has none."""


def results_in(folder: Path) -> list[Result]:
    """The mean of every metric in lm-eval's samples. Raises UsageError where there are none."""
    files = sorted(folder.rglob("samples_*.jsonl"))
    if not files:
        raise UsageError(f"lm-eval left no samples in {folder}", fix="its own message is above")
    results = []
    for file in files:
        log = read_foreign_log(file)
        task = file.stem.removeprefix("samples_").rsplit("_20", 1)[0]
        for metric in dict.fromkeys(score.judge for score in log.scores):
            values = [value for score in log.scores if score.judge == metric for value in score.scores]
            estimate = mean(values) if len(values) > 1 else None
            results.append(Result(task, metric, sum(values) / len(values), len(values), estimate))
    return results
