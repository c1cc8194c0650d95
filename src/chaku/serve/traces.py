"""Traces of requests by OpenTelemetry: a span for each request and one for each try at a replica.

They hold who was asked, how long it took and how many tokens it was; never what was said. Names of attributes are those
of OpenTelemetry's conventions for generative AI where there is one: https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from chaku import __version__, packages
from chaku.errors import ChakuError
from chaku.http_out import sent_along
from chaku.serve.exchange import Exchange

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_OPERATIONS = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}
_CARRIED = ("traceparent", "tracestate")
"""Headers of W3C's trace context: a caller's trace goes on here, and on at workers and upstreams."""


class Traces:
    """No traces: what a gateway has that was not asked for them."""

    def request(self, exchange: Exchange, headers: Mapping[bytes, bytes]) -> AbstractContextManager[None]:
        """The span of a request, described by its exchange at the end."""
        return contextlib.nullcontext()

    def attempt(self, model: str, replica: str, number: int) -> AbstractContextManager[None]:
        """The span of the try at a replica, counted from 1. Its context goes to the server that is asked."""
        return contextlib.nullcontext()

    async def start(self) -> None:
        """Nothing to start."""

    def end_streams(self) -> None:
        """No stream is theirs."""

    async def stop(self) -> None:
        """Hand over what was not sent yet."""


class OpenTelemetry(Traces):
    """Spans for a collector."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("chaku", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def request(self, exchange: Exchange, headers: Mapping[bytes, bytes]) -> Iterator[None]:
        """As in the base class; a caller's `traceparent` is its parent."""
        from opentelemetry.trace import SpanKind

        given = {name: headers.get(name.encode(), b"").decode("latin-1") for name in _CARRIED}
        context = self._propagator.extract({name: text for name, text in given.items() if text})
        with self._span(exchange.route, SpanKind.SERVER, context) as span:
            try:
                yield
            finally:
                _describe(span, exchange)

    @contextlib.contextmanager
    def attempt(self, model: str, replica: str, number: int) -> Iterator[None]:
        """As in the base class."""
        from opentelemetry.trace import SpanKind, StatusCode

        with self._span(f"ask {model}", SpanKind.CLIENT, None) as span:
            span.set_attributes({"gen_ai.request.model": model, "chaku.replica": replica, "chaku.attempt": number})
            carried: dict[str, str] = {}
            self._propagator.inject(carried)
            token = sent_along.set(carried)
            try:
                yield
            except ChakuError as error:
                span.set_attribute("error.type", type(error).code or error.type)
                span.set_status(StatusCode.ERROR)
                raise
            finally:
                sent_along.reset(token)

    async def stop(self) -> None:
        """As in the base class."""
        await asyncio.to_thread(self._provider.shutdown)

    def _span(self, name: str, kind: Any, context: Any) -> Any:
        # Exceptions are not recorded: their texts may quote a request.
        return self._tracer.start_as_current_span(
            name, context=context, kind=kind, record_exception=False, set_status_on_exception=False
        )


def open_traces() -> Traces:
    """Spans for where OTEL_EXPORTER_OTLP_ENDPOINT says, by OpenTelemetry's own variables. Raises UsageError."""
    packages.require("otel")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_NAME: "chaku"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetry(provider)


def _describe(span: Any, exchange: Exchange) -> None:
    """The facts of an exchange. A model that is not served is a caller's free text, so it is left out."""
    from opentelemetry.trace import StatusCode

    operation = _OPERATIONS.get(exchange.route, exchange.route)
    span.update_name(f"{operation} {exchange.model}" if exchange.is_known_model else operation)
    facts = {
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": exchange.model if exchange.is_known_model else None,
        "gen_ai.usage.input_tokens": exchange.prompt_tokens,
        "gen_ai.usage.output_tokens": exchange.completion_tokens,
        "http.response.status_code": exchange.status,
        "error.type": exchange.error_kind,
        "chaku.request_id": exchange.request_id,
        "chaku.is_stream": exchange.is_stream,
        "chaku.queue_s": exchange.queue_s,
        "chaku.first_token_s": exchange.first_token_s,
        "chaku.retries": exchange.num_retries,
        "chaku.continued": exchange.num_continued,
    }
    span.set_attributes({name: fact for name, fact in facts.items() if fact is not None})
    if exchange.status >= 500:
        span.set_status(StatusCode.ERROR)
