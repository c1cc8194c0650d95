"""Hugging Face's own libraries on chaku's models: transformers loads a run, huggingface_hub asks a gateway.

    python examples/hugging_face.py load runs/my-run "Tell me a story."
    python examples/hugging_face.py ask http://127.0.0.1:8000/v1 my-run "Tell me a story."

Nothing of chaku is imported here. The second command needs a gateway: chaku serve my-run=runs/my-run
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def load(run: str, question: str, num_tokens: int = 64) -> str:
    """Load a run's model and tokenizer with plain transformers, and answer a question as a chat."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(run) / "final"
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=num_tokens, do_sample=False)
    return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def ask(base_url: str, model: str, question: str, api_key: str = "none") -> str:
    """Ask a gateway with huggingface_hub's client; the answer streams."""
    from huggingface_hub import InferenceClient

    client = InferenceClient(base_url=base_url, api_key=api_key)
    chat = [{"role": "user", "content": question}]
    stream = client.chat_completion(chat, model=model, max_tokens=64, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


if __name__ == "__main__":
    command, place, *words = sys.argv[1:]
    print(load(place, words[0]) if command == "load" else ask(place, words[0], words[1]))
