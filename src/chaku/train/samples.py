"""What the model in training says to a few prompts, greedily: the quickest way to see that it learns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from chaku.chat.messages import Conversation, Message, Role
from chaku.chat.tokenizer import Before
from chaku.data.rows.rendering import Rendering
from chaku.train.model import Trainee
from chaku.train.parallel import World


def stop_ids(rendering: Rendering) -> list[int]:
    """Ids that end an answer: of the tokenizer and of the template."""
    tokenizer = rendering.tokenizer
    found = [tokenizer.special_id(each) for each in (tokenizer.eos, *getattr(rendering.template, "stop", ()))]
    return list(dict.fromkeys(each for each in found if each is not None))


@torch.no_grad()
def answers(
    trainee: Trainee, rendering: Rendering, prompts: Iterable[str], world: World, max_tokens: int = 48
) -> Iterator[tuple[str, str]]:
    """Each prompt with the model's answer of at most `max_tokens`. All processes of a sharded model ask together."""
    attention = trainee.causal.config._attn_implementation
    stops = stop_ids(rendering)
    trainee.eval()
    trainee.causal.set_attn_implementation("sdpa")
    try:
        for prompt in prompts:
            ids = rendering.renderer.render_prompt(Conversation("sample", (Message(Role.USER, prompt),)))
            with torch.compiler.set_stance("force_eager"):  # a shape for every token is nothing to compile for
                whole = trainee.generate(
                    torch.tensor([ids], device=world.device), max_new_tokens=max_tokens, do_sample=False,
                    eos_token_id=stops, pad_token_id=stops[0], synced_gpus=world.size > 1,
                )  # fmt: skip
            said = [each for each in whole[0, len(ids) :].tolist() if each not in stops]
            yield prompt, rendering.tokenizer.decode(said, Before.TEXT)
    finally:
        trainee.causal.set_attn_implementation(attention)
        trainee.train()
