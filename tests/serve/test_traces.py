"""Traces by OpenTelemetry: what a span tells, how a trace goes on at other servers, and that no text is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chaku import packages
from chaku.engines.scripted import Reply
from chaku.errors import UsageError
from chaku.serve.traces import OpenTelemetry, open_traces
from gateways import chat, gateway, scripted
from waiting import soon
from workers import worker_here

PROMPT, ANSWER = "canary-of-a-prompt", "canary-of-an-answer"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def traces_to(spans: InMemorySpanExporter) -> OpenTelemetry:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return OpenTelemetry(provider)


def facts(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def words_of(spans: Sequence[ReadableSpan]) -> str:
    return "".join(span.to_json() for span in spans)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_and_its_tries_are_spans_of_the_callers_trace(
    spans: InMemorySpanExporter, stream: bool
) -> None:
    engine = scripted(Reply(text=ANSWER))
    async with gateway(engine, traces=traces_to(spans)) as g:
        body = chat(PROMPT, stream=stream) | {"model": "scripted"}
        async with g.http.post(g.url + "/v1/chat/completions", json=body, headers={"traceparent": CALLER}) as response:
            assert response.status == 200 and ANSWER in await response.text()
        await soon(lambda: len(spans.get_finished_spans()) == 2)
    attempt, request = spans.get_finished_spans()
    assert (request.name, attempt.name) == ("chat scripted", "ask scripted")
    assert request.context and attempt.parent and request.parent
    assert f"{request.context.trace_id:032x}" == CALLER[3:35] and f"{request.parent.span_id:016x}" == CALLER[36:52]
    assert attempt.parent.span_id == request.context.span_id
    told = facts(request)
    assert told["gen_ai.request.model"] == "scripted" and told["http.response.status_code"] == 200
    assert told["gen_ai.usage.output_tokens"] == g.exchanges[0].completion_tokens > 0
    assert ("chaku.first_token_s" in told) == stream
    assert PROMPT not in words_of(spans.get_finished_spans()) and ANSWER not in words_of(spans.get_finished_spans())


async def test_a_trace_goes_on_at_a_worker(spans: InMemorySpanExporter) -> None:
    """The worker's own span is a child of the gateway's try."""
    async with (
        gateway(bare=True, traces=traces_to(spans)) as g,
        worker_here(g.url, replies=(Reply(text=ANSWER),), traces=traces_to(spans)),
    ):
        fleet = g.serving.fleet
        assert fleet is not None
        await soon(lambda: [row["state"] for row in fleet.rows()] == ["ready"])
        status, _, _ = await g.post("/v1/chat/completions", chat(PROMPT) | {"model": "m"})
        assert status == 200
        await soon(lambda: len(spans.get_finished_spans()) == 4)
    deepest, there, here, request = spans.get_finished_spans()
    assert [span.name for span in (deepest, there, here, request)] == ["ask m", "chat m", "ask m", "chat m"]
    for child, parent in ((deepest, there), (there, here), (here, request)):
        assert child.parent and parent.context and child.parent.span_id == parent.context.span_id


async def test_a_failed_try_is_marked_and_no_error_is_quoted(spans: InMemorySpanExporter) -> None:
    async with gateway(scripted(Reply(text=PROMPT, fault="refuse")), traces=traces_to(spans)) as g:
        status, _, _ = await g.post("/v1/chat/completions", chat(PROMPT) | {"model": "scripted"})
        assert status >= 500
        await soon(lambda: any(span.name.startswith("chat") for span in spans.get_finished_spans()))
    *tries, request = spans.get_finished_spans()
    assert tries and all(facts(one)["error.type"] and not one.status.is_ok for one in tries)
    assert facts(request)["http.response.status_code"] == status and not request.status.is_ok
    assert PROMPT not in words_of(spans.get_finished_spans()) and not any(span.events for span in tries)


async def test_a_model_that_is_not_served_is_not_named(spans: InMemorySpanExporter) -> None:
    async with gateway(traces=traces_to(spans)) as g:
        status, _, _ = await g.post("/v1/chat/completions", chat() | {"model": PROMPT})
        assert status == 404
    (request,) = spans.get_finished_spans()
    assert request.name == "chat" and facts(request)["http.response.status_code"] == 404
    assert PROMPT not in words_of([request])


async def test_a_collector_gets_them_as_opentelemetrys_own_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[ExportTraceServiceRequest] = []

    async def take(request: web.Request) -> web.Response:
        got.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    collector = web.Application()
    collector.add_routes([web.post("/v1/traces", take)])
    runner = web.AppRunner(collector)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{host}:{port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "our-gateway")
    try:
        async with gateway(traces=await asyncio.to_thread(open_traces)) as g:
            await g.post("/v1/chat/completions", chat(PROMPT) | {"model": "scripted"})
    finally:
        await runner.cleanup()
    (export,) = got
    (resource,) = export.resource_spans
    assert {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"] == "our-gateway"
    assert sorted(span.name for span in resource.scope_spans[0].spans) == ["ask scripted", "chat scripted"]
    assert PROMPT.encode() not in export.SerializeToString()


def test_without_its_packages_the_way_to_get_them_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "version", lambda package: None)
    with pytest.raises(UsageError, match=r"opentelemetry-sdk .*not installed") as caught:
        open_traces()
    assert caught.value.fix and "otel" in caught.value.fix
