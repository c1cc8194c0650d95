"""LangChain's ChatOpenAI."""

import functools
import operator

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from questions import BASE_URL, FIRST, MODEL, OPTIONS, SECOND, SKY, THIRD, City, report, weather

model = ChatOpenAI(base_url=BASE_URL, api_key="any", model=MODEL, max_retries=0, **OPTIONS)
messages = [HumanMessage(FIRST)]
first = model.invoke(messages)
by_call = model.with_structured_output(City, method="function_calling").invoke(messages)
messages += [first, HumanMessage(SECOND)]
second = model.invoke(messages)
streamed = functools.reduce(operator.add, model.stream(messages))
messages += [streamed, HumanMessage(THIRD)]
parsed = model.with_structured_output(City).invoke(messages)
messages += [HumanMessage(SKY)]
called = functools.reduce(operator.add, model.bind_tools([weather], tool_choice="any").stream(messages))
messages += [called, tool(weather).invoke(called.tool_calls[0])]
told = model.bind_tools([weather]).invoke(messages)
report(
    first=first.content,
    second=second.content,
    streamed=streamed.content,
    parsed=parsed.model_dump(),
    parsed_by_call=by_call.model_dump(),
    called=called.tool_calls[0]["args"],
    told=told.content,
)
