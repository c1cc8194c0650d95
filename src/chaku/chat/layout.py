"""A conversation laid out in a built-in template, piece by piece; what has no place is refused with the reason.

`chaku.chat.export` writes the same rules as Jinja; tests hold the two equal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from chaku.chat.format import Format, Tools, Wrap
from chaku.chat.messages import Conversation, Message, Role, ToolCall
from chaku.chat.segments import BOS, EOS, Segment
from chaku.errors import InvalidRequest


def lay_out(
    template: Format, conversation: Conversation, *, bos: str, eos: str, generation_prompt: bool = False
) -> list[Segment]:
    """The whole conversation in order. Raises InvalidRequest naming what the template has no place for."""
    return _Layout(template, bos, eos).run(conversation, generation_prompt)


def spec_json(spec: Any, tools: Tools) -> str:
    """A function spec as templates print it."""
    return json.dumps(spec, ensure_ascii=False, indent=tools.spec_indent)


def parsed_arguments(call: ToolCall) -> Any:
    """The arguments of a call as an object. Raises InvalidRequest if they are not JSON."""
    try:
        return json.loads(call.arguments)
    except ValueError as error:
        raise InvalidRequest(
            f"the arguments of the call of {call.name!r} are not JSON: {error}", param="tool_calls"
        ) from None


class _Layout:
    def __init__(self, template: Format, bos: str, eos: str) -> None:
        self.template = template
        self.bos = bos
        self.eos = eos
        self.segments: list[Segment] = []

    def mark(self, text: str, turn: int | None = None) -> None:
        if text:
            self.segments.append(Segment(text.replace(BOS, self.bos).replace(EOS, self.eos), False, turn))

    def content(self, text: str, turn: int | None = None) -> None:
        if self.template.trims:
            text = text.strip()
        if text:
            self.segments.append(Segment(text, True, turn))

    def wrapped(self, wrap: Wrap, text: str, turn: int | None = None) -> None:
        self.mark(wrap.before, turn)
        self.content(text, turn)
        self.mark(wrap.after, turn)

    def refusal(self, what: str, param: str = "messages") -> InvalidRequest:
        return InvalidRequest(f"template {self.template.name} has no place for {what}", param=param)

    def run(self, conversation: Conversation, generation_prompt: bool) -> list[Segment]:
        template = self.template
        messages: Sequence[Message] = conversation.messages
        system = template.default_system
        first = 0
        if messages and messages[0].role is Role.SYSTEM:
            system, first = messages[0].content, 1
            self.check_parts(messages[0])
        self.mark(template.start)
        self.system(system, conversation, messages[first] if first < len(messages) else None)
        for index in range(first, len(messages)):
            message = messages[index]
            self.check_order(message, index - first)
            match message.role:
                case Role.SYSTEM:
                    self.later_system(message)
                case Role.USER:
                    self.user(message, system, conversation, is_first=index == first)
                case Role.ASSISTANT:
                    self.assistant(message, index)
                case Role.TOOL:
                    is_tool = [
                        0 <= at < len(messages) and messages[at].role is Role.TOOL for at in (index - 1, index + 1)
                    ]
                    self.tool(message, opens=not is_tool[0], closes=not is_tool[1])
        if generation_prompt:
            self.check_prompt(messages)
            self.mark(template.assistant)
        return self.segments

    def check_parts(self, message: Message) -> None:
        if message.parts:
            kinds = sorted({str(part.get("type")) for part in message.parts} - {"text"})
            raise self.refusal(f"content parts of type {', '.join(kinds)}")

    def check_order(self, message: Message, position: int) -> None:
        self.check_parts(message)
        if self.template.alternates and (message.role is Role.USER) != (position % 2 == 0):
            what = "answer" if message.role is Role.ASSISTANT else f"{message.role} message"
            raise self.refusal(f"this {what}: user and assistant take turns, the user first")

    def check_prompt(self, messages: Sequence[Message]) -> None:
        if self.template.alternates and messages and messages[-1].role is not Role.USER:
            raise self.refusal("a prompt that does not end with the user")

    def system(self, system: str | None, conversation: Conversation, first: Message | None) -> None:
        tools = self.template.tools
        if conversation.tools:
            if tools is None:
                raise self.refusal("functions", "tools")
            if tools.specs is None:
                raise self.refusal(f"functions: {tools.no_specs}", "tools")
        specs_in = tools.specs_in if tools is not None and conversation.tools else None
        wrap = self.template.system
        needs_user = specs_in == "user" or (system is not None and wrap is None)
        if needs_user and (first is None or first.role is not Role.USER):
            raise self.refusal("a system prompt or functions without a user message behind them")
        if wrap is None or (system is None and specs_in != "system"):
            return
        self.mark(wrap.before)
        if system is not None:
            self.content(system)
        if specs_in == "system":
            self.mark("\n\n" if system is not None else "")
            self.specs(conversation)
        self.mark(wrap.after)

    def specs(self, conversation: Conversation) -> None:
        tools = self.template.tools
        assert tools is not None and tools.specs is not None
        self.mark(tools.specs.before)
        for spec in conversation.tools:
            self.wrapped(tools.spec, spec_json(spec, tools))
        self.mark(tools.specs.after)

    def later_system(self, message: Message) -> None:
        if not self.template.system_anywhere or self.template.system is None:
            raise self.refusal("a system message after the first message")
        self.wrapped(self.template.system, message.content)

    def user(self, message: Message, system: str | None, conversation: Conversation, *, is_first: bool) -> None:
        template = self.template
        self.mark(template.user.before)
        if is_first and system is not None and template.system_in_user is not None:
            self.wrapped(template.system_in_user, system)
        if is_first and conversation.tools and template.tools is not None and template.tools.specs_in == "user":
            self.specs(conversation)
        self.content(message.content)
        self.mark(template.user.after)

    def assistant(self, message: Message, turn: int) -> None:
        template = self.template
        self.mark(template.assistant)
        self.mark(template.lead, turn)
        if message.reasoning:
            if template.reasoning is None:
                raise self.refusal("reasoning")
            self.wrapped(template.reasoning, message.reasoning, turn)
        text = message.content.rstrip(" ") if template.strips_answer_end else message.content
        self.content(text, turn)
        if message.tool_calls:
            self.calls(message, turn)
        self.mark(template.end, turn)
        self.mark(template.after)

    def calls(self, message: Message, turn: int) -> None:
        tools = self.template.tools
        if tools is None:
            raise self.refusal("tool calls")
        if tools.single_call and len(message.tool_calls) > 1:
            raise self.refusal("more than one tool call in a message")
        if tools.calls_alone and message.content:
            raise self.refusal("text beside a tool call")
        if message.content:
            self.mark(tools.call_separator, turn)
        self.mark(tools.calls.before, turn)
        for number, call in enumerate(message.tool_calls):
            self.mark(tools.call_separator if number else "", turn)
            self.wrapped(tools.call, _call_json(call, tools), turn)
        self.mark(tools.calls.after, turn)

    def tool(self, message: Message, *, opens: bool, closes: bool) -> None:
        tools = self.template.tools
        if tools is None:
            raise self.refusal("tool results")
        text = message.content.strip() if self.template.trims else message.content
        if tools.result_form == "json":
            text = json.dumps(text, ensure_ascii=False)
        elif tools.result_form == "object":
            text = json.dumps({"content": text, "call_id": message.tool_call_id or ""}, ensure_ascii=False)
        self.mark(tools.results.before if opens else "")
        self.wrapped(tools.result, text)
        self.mark(tools.results.after if closes else "")


def _call_json(call: ToolCall, tools: Tools) -> str:
    fields = {"name": call.name, tools.arguments_key: parsed_arguments(call)}
    if tools.call_has_id:
        fields["id"] = call.id
    return json.dumps(fields, ensure_ascii=False)
