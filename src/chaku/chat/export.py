"""A built-in template as a Jinja chat template, for engines and for Hugging Face folders.

It says the same as `chaku.chat.layout`; tests hold the two equal over many conversations. Messages come as
`template_message` shapes them, which is how transformers and engines hand them over.
"""

from __future__ import annotations

import json
import re
from typing import Any

from chaku.chat.format import Format, Tools
from chaku.chat.layout import parsed_arguments
from chaku.chat.messages import Conversation, Message
from chaku.chat.segments import BOS, EOS

_MARKS = re.compile(f"({BOS}|{EOS})")


def template_message(message: Message) -> dict[str, Any]:
    """A message as chat templates expect it: OpenAI's shape, with arguments as objects instead of JSON text."""
    shaped = message.to_json()
    for call, given in zip(message.tool_calls, shaped.get("tool_calls", ()), strict=True):
        given["function"]["arguments"] = parsed_arguments(call)
    return shaped


def template_variables(conversation: Conversation) -> dict[str, Any]:
    """`messages` and `tools` for a Jinja chat template."""
    return {
        "messages": [template_message(message) for message in conversation.messages],
        "tools": [dict(tool) for tool in conversation.tools] or None,
    }


def to_jinja(template: Format, *, bos: bool = True, generation: bool = False) -> str:
    """The template as Jinja source. Without `bos` it never writes bos_token, for tokenizers that add none.

    With `generation`, what carries loss stands inside `{% generation %}`, so that transformers, and trainers over it
    (TRL's `assistant_only_loss`), get our masks. Plain Jinja does not know that tag.
    """
    return _Writer(template, bos, generation).source()


class _Writer:
    def __init__(self, template: Format, bos: bool, generation: bool) -> None:
        self.template = template
        self.generation = generation
        self.bos = bos
        self.lines: list[str] = []
        self.depth = 0

    def source(self) -> str:
        template = self.template
        default = "none" if template.default_system is None else self.literal(template.default_system)
        self.line("{%- set system = " + default + " -%}")
        self.line("{%- set turns = messages -%}")
        self.open("if messages and messages[0].role == 'system'")
        self.line("{%- set system = messages[0].content -%}")
        self.line("{%- set turns = messages[1:] -%}")
        self.close("if")
        self.write(template.start)
        self.system()
        self.open("for message in turns")
        if template.alternates:
            self.open("if (message.role == 'user') != (loop.index0 % 2 == 0)")
            self.refuse("this message: user and assistant take turns, the user first")
            self.close("if")
        self.open("if message.role == 'user'")
        self.user()
        self.middle("elif message.role == 'assistant'")
        self.assistant()
        self.middle("elif message.role == 'tool'")
        self.tool()
        self.middle("elif message.role == 'system'")
        if template.system_anywhere and template.system is not None:
            self.write(template.system.before, self.trimmed("message.content"), template.system.after)
        else:
            self.refuse("a system message after the first message")
        self.middle("else")
        self.line("{{- raise_exception('unknown role ' ~ message.role) -}}")
        self.close("if")
        self.close("for")
        self.open("if add_generation_prompt")
        if template.alternates:
            self.open("if turns and turns[-1].role != 'user'")
            self.refuse("a prompt that does not end with the user")
            self.close("if")
        self.write(template.assistant)
        self.close("if")
        return "\n".join(self.lines)

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def open(self, statement: str) -> None:
        self.line("{%- " + statement + " -%}")
        self.depth += 1

    def middle(self, statement: str) -> None:
        self.depth -= 1
        self.open(statement)

    def close(self, kind: str) -> None:
        self.depth -= 1
        self.line("{%- end" + kind + " -%}")

    def literal(self, text: str) -> str:
        """A Jinja expression for a template string; empty for an empty one."""
        parts = []
        for part in _MARKS.split(text):
            if part == BOS:
                parts += ["bos_token"] if self.bos else []
            elif part:
                parts.append("eos_token" if part == EOS else json.dumps(part))
        return " ~ ".join(parts)

    def write(self, before: str, expression: str = "", after: str = "") -> None:
        whole = " ~ ".join(filter(None, (self.literal(before), expression, self.literal(after))))
        if whole:
            self.line("{{- " + whole + " -}}")

    def trimmed(self, expression: str) -> str:
        return f"{expression} | trim" if self.template.trims else expression

    def refuse(self, what: str) -> None:
        self.line(
            "{{- raise_exception(" + json.dumps(f"template {self.template.name} has no place for {what}") + ") -}}"
        )

    def system(self) -> None:
        template, tools = self.template, self.template.tools
        if tools is None or tools.specs is None:
            self.open("if tools")
            self.refuse(f"functions: {tools.no_specs}" if tools else "functions")
            self.close("if")
        in_user = ["system is not none"] if template.system is None else []
        if tools and tools.specs and tools.specs_in == "user":
            in_user.append("tools")
        if in_user:
            self.open(f"if ({' or '.join(in_user)}) and (not turns or turns[0].role != 'user')")
            self.refuse("a system prompt or functions without a user message behind them")
            self.close("if")
        if template.system is None:
            return
        specs = tools is not None and tools.specs is not None and tools.specs_in == "system"
        self.open("if system is not none or tools" if specs else "if system is not none")
        self.write(template.system.before)
        self.open("if system is not none")
        self.write("", self.trimmed("system"))
        self.close("if")
        if specs and tools:
            self.open("if tools")
            self.open("if system is not none")
            self.write("\n\n")
            self.close("if")
            self.specs(tools)
            self.close("if")
        self.write(template.system.after)
        self.close("if")

    def specs(self, tools: Tools) -> None:
        assert tools.specs is not None
        indent = "" if tools.spec_indent is None else f"(indent={tools.spec_indent})"
        self.write(tools.specs.before)
        self.open("for tool in tools")
        self.write(tools.spec.before, f"tool | tojson{indent}", tools.spec.after)
        self.close("for")
        self.write(tools.specs.after)

    def user(self) -> None:
        template, tools = self.template, self.template.tools
        self.write(template.user.before)
        if template.system_in_user:
            self.open("if loop.first and system is not none")
            self.write(template.system_in_user.before, self.trimmed("system"), template.system_in_user.after)
            self.close("if")
        if tools and tools.specs and tools.specs_in == "user":
            self.open("if loop.first and tools")
            self.specs(tools)
            self.close("if")
        self.write("", self.trimmed("message.content"), template.user.after)

    def assistant(self) -> None:
        template, tools = self.template, self.template.tools
        self.write(template.assistant)
        if self.generation:
            self.line("{%- generation -%}")
        self.write(template.lead)
        self.open("if message.reasoning_content")
        if template.reasoning is None:
            self.refuse("reasoning")
        else:
            self.write(template.reasoning.before, self.trimmed("message.reasoning_content"), template.reasoning.after)
        self.close("if")
        self.open("if message.content")
        stripped = "message.content.rstrip(' ')" if template.strips_answer_end else self.trimmed("message.content")
        self.write("", stripped)
        self.close("if")
        self.open("if message.tool_calls")
        if tools is None:
            self.refuse("tool calls")
        else:
            self.calls(tools)
        self.close("if")
        self.write(template.end)
        if self.generation:
            self.line("{%- endgeneration -%}")
        self.write(template.after)

    def calls(self, tools: Tools) -> None:
        if tools.single_call:
            self.open("if message.tool_calls | length > 1")
            self.refuse("more than one tool call in a message")
            self.close("if")
        self.open("if message.content")
        if tools.calls_alone:
            self.refuse("text beside a tool call")
        else:
            self.write(tools.call_separator)
        self.close("if")
        self.write(tools.calls.before)
        self.open("for call in message.tool_calls")
        self.open("if not loop.first")
        self.write(tools.call_separator)
        self.close("if")
        self.write(tools.call.before + '{"name": ', "call.function.name | tojson", f', "{tools.arguments_key}": ')
        self.write("", "call.function.arguments | tojson", ', "id": ' if tools.call_has_id else "")
        if tools.call_has_id:
            self.write("", "call.id | tojson")
        self.write("}" + tools.call.after)
        self.close("for")
        self.write(tools.calls.after)

    def tool(self) -> None:
        tools = self.template.tools
        if tools is None:
            self.refuse("tool results")
            return
        text = f"({self.trimmed('message.content')})"
        self.open("if loop.first or turns[loop.index0 - 1].role != 'tool'")
        self.write(tools.results.before)
        self.close("if")
        self.write(tools.result.before)
        if tools.result_form == "text":
            self.write("", text)
        elif tools.result_form == "json":
            self.write("", f"{text} | tojson")
        else:
            self.write('{"content": ', f"{text} | tojson", ', "call_id": ')
            self.write("", "(message.tool_call_id or '') | tojson", "}")
        self.write(tools.result.after)
        self.open("if loop.last or turns[loop.index0 + 1].role != 'tool'")
        self.write(tools.results.after)
        self.close("if")
