"""`chaku eval bench`: standard benchmarks by lm-eval, with an interval for every accuracy."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click
import orjson

from chaku.cli.help_page import command
from chaku.cli.terminal.asking import endpoint_options, run_until_ended
from chaku.cli.terminal.endpoint import choose
from chaku.errors import ChakuError
from chaku.evals.benchmarks import Benchmark, results_in
from chaku.packages import needs

_FOLDER = click.Path(path_type=Path, file_okay=False)


@command("bench")
@click.option("-m", "--model", metavar="MODEL", required=True, help="Model to measure, by its name at the API.")
@click.option("--tasks", metavar="TASK", multiple=True, required=True, help="Task of lm-eval; repeatable.")
@click.option("-o", "--output", "folder", metavar="FOLDER", type=_FOLDER, required=True, help="Where samples are kept.")
@click.option("--tokenizer", metavar="FOLDER", type=_FOLDER, help="The model's tokenizer, for likelihood tasks.")
@click.option("--task-folder", metavar="FOLDER", type=_FOLDER, help="Tasks of your own, as YAML files.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Items per task.")
@click.option(
    "--parallel", metavar="N", type=click.IntRange(1), default=8, show_default=True, help="Requests at the same time."
)
@endpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print as one JSON object.")
@needs("evals")
def bench(
    model: str, tasks: tuple[str, ...], folder: Path, tokenizer: Path | None, task_folder: Path | None,
    limit: int | None, parallel: int, base_url: str | None, api_key: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Run standard benchmarks by lm-eval.

    Tasks that generate run against any model. Tasks that compare likelihoods need --tokenizer, and an engine that
    scores prompts, such as transformers. The samples stay in the folder; `chaku eval compare` reads them.
    """

    async def run() -> int:
        async with choose(base_url, api_key, model) as endpoint:
            wanted = Benchmark(
                model, tasks, endpoint.base_url, folder, tokenizer=tokenizer, task_folder=task_folder, limit=limit,
                parallel=parallel,
            )  # fmt: skip
            process = await asyncio.create_subprocess_exec(
                *wanted.command(), env={**os.environ, "OPENAI_API_KEY": endpoint.api_key or "none"}, stdout=2
            )
            try:
                return await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    if code := run_until_ended(run()):
        raise ChakuError(f"lm-eval exited with code {code}", fix="its own message is above")
    results = results_in(folder)
    if as_json:
        rows = [
            {"task": one.task, "metric": one.metric, "value": one.value, "num": one.num,
             "low": one.estimate and one.estimate.low, "high": one.estimate and one.estimate.high}
            for one in results
        ]  # fmt: skip
        click.echo(orjson.dumps({"model": model, "results": rows}))
        return
    for one in results:
        interval = f"[{one.estimate.low:.3f}, {one.estimate.high:.3f}]" if one.estimate else "(no interval)"
        click.echo(f"{one.task}  {one.metric}  {one.value:.3f} {interval}  n = {one.num}")
