"""Pydantic AI's agents."""

from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from questions import BASE_URL, FIRST, MODEL, OPTIONS, SECOND, SKY, THIRD, City, report, weather

model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE_URL, api_key="any"))
agent = Agent(model, model_settings=OPTIONS)
first = agent.run_sync(FIRST)
by_call = agent.run_sync(FIRST, output_type=City)
second = agent.run_sync(SECOND, message_history=first.all_messages())
stream = agent.run_stream_sync(SECOND, message_history=first.all_messages())
streamed = "".join(stream.stream_text(delta=True))
parsed = agent.run_sync(THIRD, output_type=NativeOutput(City), message_history=stream.all_messages())
calls = []


def once(context):
    """A call in the first step, then whatever the model likes."""
    return {**OPTIONS, "tool_choice": "required" if context.run_step == 1 else "auto"}


def noted(city: str) -> str:
    """Say what the weather in a city is."""
    calls.append({"city": city})
    return weather(city)


told = Agent(model, tools=[noted], model_settings=once).run_sync(SKY)
report(
    first=first.output,
    second=second.output,
    streamed=streamed,
    parsed=parsed.output.model_dump(),
    parsed_by_call=by_call.output.model_dump(),
    called=calls[0],
    told=told.output,
)
