"""Chat templates as data: the exact strings of every built-in format, where each role goes and what has no place.

Sources: FastChat's conversation and training code (vicuna), Meta's llama and llama-models code, the templates that
Mistral, Google, Qwen, Nous Research and Hugging Face H4 publish with their models.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from chaku.chat.format import Format, Tools, Wrap
from chaku.chat.layout import lay_out
from chaku.chat.messages import Conversation
from chaku.chat.segments import BOS, EOS, Segment
from chaku.errors import ConfigError
from chaku.nearest import did_you_mean


@dataclass(frozen=True, slots=True)
class Template(Format):
    """A format that lays conversations out and has a hash."""

    @property
    def hash(self) -> str:
        """Sha256 of all strings and switches but the name, hexadecimal. Switches that came later count where set."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if key not in ("name", "tokens")}
        if not self.strips_answer_end:
            del fields["strips_answer_end"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def lay_out(
        self, conversation: Conversation, *, bos: str, eos: str, generation_prompt: bool = False
    ) -> Sequence[Segment]:
        """The conversation as segments. Raises InvalidRequest for what this format has no place for."""
        return lay_out(self, conversation, bos=bos, eos=eos, generation_prompt=generation_prompt)


VICUNA_SYSTEM = (
    "A chat between a curious {user} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {user}'s questions."
)

# https://huggingface.co/Qwen/Qwen3-8B/blob/main/tokenizer_config.json (NousResearch's Hermes format)
_HERMES_TOOLS = Tools(
    specs=Wrap(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>",
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
        '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}'
        "\n</tool_call>",
    ),
    spec=Wrap("\n", ""),
    call=Wrap("<tool_call>\n", "\n</tool_call>"),
    results=Wrap("<|im_start|>user", "<|im_end|>\n"),
    result=Wrap("\n<tool_response>\n", "\n</tool_response>"),
)

# https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md (JSON calls, without the date)
_LLAMA3_TOOLS = Tools(
    specs=Wrap(
        "Given the following functions, please respond with a JSON for a function call with its proper arguments "
        'that best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": '
        "dictionary of argument name and its value}. Do not use variables.\n\n",
        "",
    ),
    specs_in="user",
    spec=Wrap("", "\n\n"),
    spec_indent=4,
    arguments_key="parameters",
    calls_alone=True,
    single_call=True,
    result=Wrap("<|start_header_id|>ipython<|end_header_id|>\n\n", "<|eot_id|>"),
    result_form="json",
)

# https://github.com/mistralai/mistral-common, InstructTokenizerV3
_MISTRAL_TOOLS = Tools(
    specs=None,
    no_specs="Mistral shows functions before the last user message only, so earlier turns would change with each turn",
    calls=Wrap("[TOOL_CALLS][", "]"),
    call_separator=", ",
    call_has_id=True,
    calls_alone=True,
    result=Wrap("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    result_form="object",
)

_VICUNA = Template(
    name="vicuna_v1.1",
    start=BOS,
    system=Wrap("", " "),
    default_system=VICUNA_SYSTEM.format(user="user"),
    user=Wrap("USER: ", " "),
    assistant="ASSISTANT:",
    lead=" ",
    end=EOS,
)

_TEMPLATES = (
    # As v0 was trained; FastChat's v0 inference prompt has one newline less behind the system prompt.
    Template(
        name="vicuna_v0",
        system=Wrap("", "\n\n### "),
        default_system=VICUNA_SYSTEM.format(user="human"),
        user=Wrap("Human: ", "\n### "),
        assistant="Assistant:",
        lead=" ",
        end="\n###",
        after=" ",
        stop=("###",),
    ),
    _VICUNA,
    dataclasses.replace(_VICUNA, name="vicuna_v1.3"),
    dataclasses.replace(_VICUNA, name="vicuna_v1.5"),
    # The space before EOS is Meta's; the model learns it as part of the end.
    Template(
        name="llama2",
        start="",
        system_in_user=Wrap("<<SYS>>\n", "\n<</SYS>>\n\n"),
        user=Wrap(BOS + "[INST] ", " [/INST]"),
        assistant="",
        lead=" ",
        end=" " + EOS,
        trims=True,
        alternates=True,
    ),
    Template(
        name="llama3",
        system=Wrap("<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"),
        user=Wrap("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
        end="<|eot_id|>",
        system_anywhere=True,
        trims=True,
        tools=_LLAMA3_TOOLS,
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    Template(
        name="chatml",
        start="",
        system=Wrap("<|im_start|>system\n", "<|im_end|>\n"),
        user=Wrap("<|im_start|>user\n", "<|im_end|>\n"),
        assistant="<|im_start|>assistant\n",
        end="<|im_end|>",
        after="\n",
        system_anywhere=True,
        reasoning=Wrap("<think>\n", "\n</think>\n\n"),
        tools=_HERMES_TOOLS,
        tokens=("<|im_start|>", "<|im_end|>"),
    ),
    # Mistral 7B Instruct v0.1 and v0.2: markers are text.
    Template(
        name="mistral",
        system_in_user=Wrap("", "\n\n"),
        user=Wrap("[INST] ", " [/INST]"),
        assistant="",
        lead=" ",
        end=EOS,
        alternates=True,
    ),
    # From v0.3 on: markers are special tokens, and the tokenizer itself puts the space behind them. Mistral moves the
    # system prompt to the last user turn, so earlier turns would change with each turn; here it stays in the first.
    Template(
        name="mistral_v3",
        system_in_user=Wrap("", "\n\n"),
        user=Wrap("[INST]", "[/INST]"),
        assistant="",
        end=EOS,
        tools=_MISTRAL_TOOLS,
        tokens=("[INST]", "[/INST]"),
        strips_answer_end=True,
    ),
    Template(
        name="gemma",
        system_in_user=Wrap("", "\n\n"),
        user=Wrap("<start_of_turn>user\n", "<end_of_turn>\n"),
        assistant="<start_of_turn>model\n",
        end="<end_of_turn>",
        after="\n",
        trims=True,
        alternates=True,
        tokens=("<start_of_turn>", "<end_of_turn>"),
    ),
    Template(
        name="zephyr",
        system=Wrap("<|system|>\n", EOS + "\n"),
        user=Wrap("<|user|>\n", EOS + "\n"),
        assistant="<|assistant|>\n",
        end=EOS,
        after="\n",
        system_anywhere=True,
    ),
    # Prompt and completion as they are; no markers.
    Template(name="plain", system=Wrap("", "\n\n"), user=Wrap("", ""), assistant="", end=EOS),
)

TEMPLATES = {template.name: template for template in _TEMPLATES}


def get_template(name: str) -> Template:
    """A built-in template. Raises ConfigError naming the nearest one."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    fix = did_you_mean(name, TEMPLATES, f"known: {', '.join(TEMPLATES)}")
    raise ConfigError(f"no template is called {name!r}", fix=fix, param="template")
