"""What the model in training says to a few prompts, greedily: the quickest way to see that it learns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from chaku.chat.messages import Conversation, Message, Role
from chaku.chat.tokenizer import Before
from chaku.data.rendering import Rendering
from chaku.train.model import Trainee


def stop_ids(rendering: Rendering) -> list[int]:
    """Ids that end an answer: of the tokenizer and of the template."""
    tokenizer = rendering.tokenizer
    found = [tokenizer.special_id(each) for each in (tokenizer.eos, *getattr(rendering.template, "stop", ()))]
    return list(dict.fromkeys(each for each in found if each is not None))


@torch.no_grad()
def answers(
    trainee: Trainee, rendering: Rendering, prompts: Iterable[str], max_tokens: int = 48
) -> Iterator[tuple[str, str]]:
    """Each prompt with the model's answer of at most `max_tokens`. One process only: a sharded model can't generate."""
    device = next(trainee.parameters()).device
    attention = trainee.causal.config._attn_implementation
    trainee.eval()
    trainee.causal.set_attn_implementation("sdpa")
    try:
        for prompt in prompts:
            ids = rendering.renderer.render_prompt(Conversation("sample", (Message(Role.USER, prompt),)))
            given = torch.tensor([ids], device=device)
            whole = trainee.causal.generate(
                given, attention_mask=torch.ones_like(given), max_new_tokens=max_tokens, do_sample=False,
                eos_token_id=stop_ids(rendering), pad_token_id=stop_ids(rendering)[0],
            )  # fmt: skip
            said = [each for each in whole[0, len(ids) :].tolist() if each not in stop_ids(rendering)]
            yield prompt, rendering.tokenizer.decode(said, Before.TEXT)
    finally:
        trainee.causal.set_attn_implementation(attention)
        trainee.train()
