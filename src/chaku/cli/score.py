"""chaku score: the sample record of an Azure ML endpoint, written from an answer of a gateway, or sent again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from chaku import config, records
from chaku.cli.help_page import group
from chaku.errors import ChakuError, UsageError
from chaku.http_out import Transport
from chaku.protocol.azure_ml import SampleRecord, records_of_json

PORT_HERE = "http://127.0.0.1:8000"


@group()
def score() -> None:
    """Speak to `/score`, the address of Azure ML's text endpoints."""


@score.command()
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option(
    "--read",
    "source",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Send the requests of these records again, and compare the answers.",
)
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write the records to this file.")
@click.option("-m", "--model", metavar="MODEL", show_default="the gateway's", help="The deployment that answers.")
@click.option("--max-new-tokens", metavar="N", type=int, default=25, show_default=True, help="Limit of each answer.")
@click.option("--temperature", metavar="T", type=float, show_default="the likeliest token", help="Sample with it.")
@click.option("--top-p", metavar="P", type=float, show_default="all tokens", help="Sample from this share of tokens.")
@click.option("--sku", metavar="NAME", default="local", show_default=True, help="Name of the machine in the records.")
@click.option("--url", metavar="URL", default=PORT_HERE, show_default=True, help="The gateway, or an endpoint.")
@click.option("--api-key", metavar="KEY", show_default="OPENAI_API_KEY if it is one of chaku's", help="Its key.")
def sample(
    texts: tuple[str, ...],
    source: Path | None,
    output: Path | None,
    model: str | None,
    max_new_tokens: int,
    temperature: float | None,
    top_p: float | None,
    sku: str,
    url: str,
    api_key: str | None,
) -> None:
    """Write a sample record, or send recorded requests.

    A record has the request, the answer as JSON text, the machine and the status. Model cards show such records.
    """
    if bool(texts) is (source is not None):
        raise UsageError("give texts, or records with --read", fix='try: chaku score sample "Once upon a time,"')
    if api_key is None and (key := config.environment("OPENAI_API_KEY") or "").startswith(config.TOKEN_PREFIX):
        api_key = key
    if source is not None:
        old = read_records(source)
    else:
        given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        parameters = {name: value for name, value in given.items() if value is not None}
        payload = {"input_data": {"input_string": list(texts), "parameters": parameters}}
        old = [record_of(payload, model or "default", sku, url)]
    new = asyncio.run(send_all(old, url.rstrip("/").removesuffix("/score"), api_key, model, sku))
    text = json.dumps([record.model_dump() for record in new], indent=2, ensure_ascii=False) + "\n"
    if output is not None:
        with records.atomic_write(output) as file:
            file.write(text.encode())
    else:
        click.echo(text, nl=False)
    if source is not None:
        num_same = sum(before.response == after.response for before, after in zip(old, new, strict=True))
        click.echo(f"{num_same} of {len(new)} answers are the recorded ones", err=True)
    if failed := [record for record in new if record.status != "Completed"]:
        raise ChakuError(f"{len(failed)} of {len(new)} requests failed: {failed[0].response}")


def read_records(path: Path) -> list[SampleRecord]:
    """The records of a file. Raises UsageError for a file that has none."""
    try:
        return records_of_json.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UsageError(f"{path} holds no sample records: {place}: {first['msg']}") from None


def record_of(payload: dict[str, Any], deployment: str, sku: str, url: str) -> SampleRecord:
    """A record that waits for its answer."""
    return SampleRecord(
        endpoint_name=url,
        deployment_name=deployment,
        inference_payload=payload,
        response="",
        sku=sku,
        status="NotStarted",
    )


async def send_all(
    old: list[SampleRecord], url: str, api_key: str | None, model: str | None, sku: str
) -> list[SampleRecord]:
    """The records with the answers of the gateway at `url`."""
    headers = ({"Authorization": f"Bearer {api_key}"} if api_key else {}) | (
        {"azureml-model-deployment": model} if model else {}
    )
    transport = Transport(url, who=url, headers=headers)
    try:
        return [await _send(transport, record, model, sku) for record in old]
    finally:
        await transport.close()


async def _send(transport: Transport, record: SampleRecord, model: str | None, sku: str) -> SampleRecord:
    status, answer = await transport.json("POST", "/score", record.inference_payload)
    return record.model_copy(
        update={
            "endpoint_name": transport.base_url,
            "deployment_name": model or record.deployment_name,
            "response": json.dumps(answer, ensure_ascii=False),
            "sku": sku,
            "status": "Completed" if status == 200 else "Failed",
        }
    )
