"""OpenAI's Agents SDK, on chat completions and on its default, the Responses API."""

import asyncio
import json
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from questions import BASE_URL, FIRST, MODEL, OPTIONS, SECOND, SKY, THIRD, City, report, weather


async def talk(model: OpenAIChatCompletionsModel | OpenAIResponsesModel) -> None:
    agent = Agent("helper", model=model, model_settings=ModelSettings(**OPTIONS))
    first = await Runner.run(agent, FIRST)
    history = [*first.to_input_list(), {"role": "user", "content": SECOND}]
    second = await Runner.run(agent, history)
    streamed = Runner.run_streamed(agent, history)
    async for _ in streamed.stream_events():
        pass
    history = [*streamed.to_input_list(), {"role": "user", "content": THIRD}]
    parsed = await Runner.run(agent.clone(output_type=City), history)
    forced = ModelSettings(tool_choice="required", **OPTIONS)
    told = await Runner.run(agent.clone(tools=[function_tool(weather)], model_settings=forced), SKY)
    (call,) = [item.raw_item for item in told.new_items if item.type == "tool_call_item"]
    report(
        first=first.final_output,
        second=second.final_output,
        streamed=streamed.final_output,
        parsed=parsed.final_output.model_dump(),
        called=json.loads(call.arguments),
        told=told.final_output,
    )


set_tracing_disabled(True)
kind = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}[sys.argv[1]]
asyncio.run(talk(kind(MODEL, AsyncOpenAI(base_url=BASE_URL, api_key="any", max_retries=0))))
