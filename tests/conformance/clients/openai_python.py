"""The official openai package, in the version that is installed."""

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel
from questions import BASE_URL, FIRST, MODEL, OPTIONS, RESULT, SECOND, SKY, THIRD, City, report


class Weather(BaseModel):
    city: str


asking = {"model": MODEL, **OPTIONS}
chat = OpenAI(base_url=BASE_URL, api_key="any", max_retries=0).chat.completions
messages = [{"role": "user", "content": FIRST}]
first = chat.create(messages=messages, **asking).choices[0].message
messages += [first, {"role": "user", "content": SECOND}]
second = chat.create(messages=messages, **asking).choices[0].message
with chat.stream(messages=messages, **asking) as stream:
    streamed = stream.get_final_completion().choices[0].message
messages += [streamed, {"role": "user", "content": THIRD}]
parsed = chat.parse(messages=messages, response_format=City, **asking).choices[0].message
messages += [parsed, {"role": "user", "content": SKY}]
tools = [pydantic_function_tool(Weather, name="weather")]
with chat.stream(messages=messages, tools=tools, tool_choice="required", **asking) as stream:
    called = stream.get_final_completion().choices[0].message
call = called.tool_calls[0]
messages += [called, {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
told = chat.create(messages=messages, tools=tools, **asking).choices[0].message
report(
    first=first.content,
    second=second.content,
    streamed=streamed.content,
    parsed=parsed.parsed.model_dump(),
    called=call.function.parsed_arguments.model_dump(),
    told=told.content,
)
