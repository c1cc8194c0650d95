"""LiteLLM through its OpenAI-compatible provider."""

import json

from litellm import completion, stream_chunk_builder
from questions import BASE_URL, FIRST, MODEL, OPTIONS, RESULT, SECOND, SKY, THIRD, WEATHER, City, report

asking = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": "any", "num_retries": 0, **OPTIONS}
messages = [{"role": "user", "content": FIRST}]
first = completion(messages=messages, **asking).choices[0].message
messages += [first, {"role": "user", "content": SECOND}]
second = completion(messages=messages, **asking).choices[0].message
chunks = list(completion(messages=messages, stream=True, **asking))
streamed = stream_chunk_builder(chunks, messages=messages).choices[0].message
messages += [streamed, {"role": "user", "content": THIRD}]
parsed = completion(messages=messages, response_format=City, **asking).choices[0].message
messages += [parsed, {"role": "user", "content": SKY}]
called = completion(messages=messages, tools=[WEATHER], tool_choice="required", **asking).choices[0].message
call = called.tool_calls[0]
messages += [called, {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
told = completion(messages=messages, tools=[WEATHER], **asking).choices[0].message
report(
    first=first.content,
    second=second.content,
    streamed=streamed.content,
    parsed=City.model_validate_json(parsed.content).model_dump(),
    called=json.loads(call.function.arguments),
    told=told.content,
)
