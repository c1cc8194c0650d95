"""What the model in training says to a few prompts, greedily: the quickest way to see that it learns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from chaku.chat.messages import Conversation, Message, Role
from chaku.chat.tokenizer import Before
from chaku.data.rows.rendering import Rendering
from chaku.train.model import Trainee
from chaku.train.parallel import World


@torch.no_grad()
def answers(
    trainee: Trainee, rendering: Rendering, prompts: Iterable[str], world: World, max_tokens: int = 48
) -> Iterator[tuple[str, str]]:
    """Each prompt with the model's answer of at most `max_tokens`. All processes of a sharded model ask together."""
    attention = trainee.causal.config._attn_implementation
    stops = rendering.renderer.stop_ids
    trainee.eval()
    trainee.causal.set_attn_implementation("sdpa")
    try:
        for prompt in prompts:
            ids = rendering.renderer.render_prompt(Conversation("sample", (Message(Role.USER, prompt),)))
            with torch.compiler.set_stance("force_eager"):  # a shape for every token is nothing to compile for
                whole = trainee.generate(
                    torch.tensor([ids], device=world.device), max_new_tokens=max_tokens, do_sample=False,
                    eos_token_id=sorted(stops), pad_token_id=min(stops), synced_gpus=world.size > 1,
                )  # fmt: skip
            answer = [token for token in whole[0, len(ids) :].tolist() if token not in stops]
            yield prompt, rendering.tokenizer.decode(answer, Before.TEXT)
    finally:
        trainee.causal.set_attn_implementation(attention)
        trainee.train()
