"""LlamaIndex's OpenAILike."""

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from questions import BASE_URL, FIRST, MODEL, OPTIONS, RESULT, SECOND, SKY, THIRD, City, report, weather

able = {"is_chat_model": True, "is_function_calling_model": True, "should_use_structured_outputs": True}
model = OpenAILike(api_base=BASE_URL, api_key="any", model=MODEL, max_retries=0, **able, **OPTIONS)
messages = [ChatMessage(role="user", content=FIRST)]
first = model.chat(messages).message
messages += [first, ChatMessage(role="user", content=SECOND)]
second = model.chat(messages).message
*_, last = model.stream_chat(messages)
messages += [last.message, ChatMessage(role="user", content=THIRD)]
parsed = model.as_structured_llm(City).chat(messages).raw
tools = [FunctionTool.from_defaults(weather)]
question = ChatMessage(role="user", content=SKY)
called = model.chat_with_tools(tools, user_msg=question, chat_history=messages, tool_required=True)
(call,) = model.get_tool_calls_from_response(called)
result = ChatMessage(role="tool", content=RESULT, additional_kwargs={"tool_call_id": call.tool_id})
told = model.chat_with_tools(tools, chat_history=[*messages, question, called.message, result]).message
report(
    first=first.content,
    second=second.content,
    streamed=last.message.content,
    parsed=parsed.model_dump(),
    called=call.tool_kwargs,
    told=told.content,
)
