"""Miniature Llamas in folders, and what is in a folder."""

import torch

TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
}


def llama(vocabulary=32000, *, seed=0, dtype=torch.float16, tied=False, hidden=16):
    """A Llama of two layers with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).to(dtype)


def moved(model, *, seed=1, scale=1e-3):
    """A copy of a model, every weight a little elsewhere."""
    import copy

    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in other.parameters():
            value.copy_(value.float() + torch.randn(value.shape) * scale)  # as an optimiser with full weights does
    return other


def save_bin(model, folder, num_files=2):
    """The form of 2023: pytorch_model-0000N-of-0000M.bin and an index."""
    import json

    model.config.save_pretrained(folder)
    state = model.state_dict()
    names = list(state)
    weight_map = {}
    for number in range(num_files):
        file = f"pytorch_model-{number + 1:05}-of-{num_files:05}.bin"
        weight_map |= dict.fromkeys(names[number::num_files], file)
        torch.save({name: state[name] for name in names[number::num_files]}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def word_tokenizer(folder, size=32000):
    """A tokenizer.json with `size` words."""
    import json

    vocabulary = {f"w{number}": number for number in range(size)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"}
    (folder / "tokenizer.json").write_text(json.dumps({**TOKENIZER, "model": model}))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def bits_of(folder):
    """Name to bytes, dtype and shape, read by safetensors itself."""
    from safetensors.torch import load_file

    state = {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}
    return {name: (value.dtype, value.shape, raw(value)) for name, value in state.items()}


def raw(value):
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
