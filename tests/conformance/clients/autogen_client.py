"""AutoGen's agents and its OpenAI client, which alone can force a call."""

import asyncio
import json

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    ModelFamily,
    UserMessage,
)
from autogen_core.tools import FunctionTool
from autogen_ext.models.openai import OpenAIChatCompletionClient
from questions import BASE_URL, FIRST, MODEL, OPTIONS, RESULT, SECOND, SKY, THIRD, City, report, weather

ABLE = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "structured_output": True,
    "family": ModelFamily.UNKNOWN,
}


async def talk() -> None:
    model = OpenAIChatCompletionClient(
        model=MODEL, base_url=BASE_URL, api_key="any", max_retries=0, model_info=ABLE, **OPTIONS
    )
    words = {"model_client": model, "system_message": None}
    whole, streaming = AssistantAgent("helper", **words), AssistantAgent("helper", model_client_stream=True, **words)
    first, second = [(await whole.run(task=task)).messages[-1] for task in (FIRST, SECOND)]
    for task in (FIRST, SECOND):
        *_, last = [message async for message in streaming.run_stream(task=task)]
    city = AssistantAgent("geographer", output_content_type=City, **words)
    await city.load_state(await streaming.save_state())
    parsed = (await city.run(task=THIRD)).messages[-1]
    tools = [FunctionTool(weather, description="Say what the weather in a city is.")]
    messages = [UserMessage(content=SKY, source="user")]
    called = await model.create(messages, tools=tools, tool_choice="required")
    (call,) = called.content
    result = FunctionExecutionResult(content=RESULT, name=call.name, call_id=call.id, is_error=False)
    messages += [AssistantMessage(content=called.content, source="helper")]
    messages += [FunctionExecutionResultMessage(content=[result])]
    told = await model.create(messages, tools=tools)
    report(
        first=first.content,
        second=second.content,
        streamed=last.messages[-1].content,
        parsed=parsed.content.model_dump(),
        called=json.loads(call.arguments),
        told=told.content,
    )


asyncio.run(talk())
