"""A merged model answers as base and adapter together do in peft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chaku.errors import ModelError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from chaku.weights.adapter import read_adapter  # noqa: E402
from chaku.weights.merge import merge  # noqa: E402

# peft asks transformers by a name that is on its way out
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

IDS = torch.arange(3, 60)[None]


def save_base(folder: Path, *, ties: bool = False, dtype: Any = None) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=ties, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).to(dtype or torch.float32)
    model.save_pretrained(folder)
    return model.eval()


def save_adapter(folder: Path, base: Any, **settings: Any) -> Any:
    """A LoRA whose matrices all say something."""
    torch.manual_seed(1)
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **{"lora_dropout": 0.1} | settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.filterwarnings("ignore:.*embedding layers")
@pytest.mark.parametrize(
    ("ties", "settings"),
    [
        (False, {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}),
        (False, {"r": 8, "lora_alpha": 4, "use_rslora": True, "target_modules": "all-linear"}),
        (True, {"r": 4, "target_modules": ["k_proj"]}),
        (
            False,
            {
                "r": 4,
                "target_modules": ["q_proj", "o_proj"],
                "rank_pattern": {"layers.1.self_attn.q_proj": 2},
                "alpha_pattern": {"layers.0.self_attn.o_proj": 32},
            },
        ),
        (False, {"r": 4, "target_modules": ["q_proj", "embed_tokens"]}),
        (False, {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}),
        (True, {"r": 4, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    ],
    ids=["alpha", "rslora", "tied", "patterns", "embedding", "modules-to-save", "tied-modules-to-save"],
)
def test_merged_logits_are_the_adapters(tmp_path: Path, ties: bool, settings: dict[str, Any]) -> None:
    base = save_base(tmp_path / "base", ties=ties)
    with torch.inference_mode():
        plain = base(IDS).logits.clone()
    adapted = save_adapter(tmp_path / "adapter", base, **settings)
    merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    result = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.inference_mode():
        expected, found = adapted(IDS).logits, result(IDS).logits
    assert not torch.allclose(expected, plain, atol=1e-4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_bf16_base_is_rounded_once(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", dtype=torch.bfloat16)
    save_adapter(tmp_path / "adapter", base, r=4, target_modules=["q_proj"])
    merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    result = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    adapter = read_adapter(tmp_path / "adapter")
    name = "model.layers.0.self_attn.q_proj.weight"
    exact = base.base_model.state_dict()["layers.0.self_attn.q_proj.base_layer.weight"].float() + adapter.delta(name)
    assert torch.equal(result.state_dict()[name], exact.to(torch.bfloat16))


def test_another_base_or_kind_of_adapter_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    save_adapter(tmp_path / "adapter", base, r=4, target_modules=["q_proj"])
    other = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    transformers.LlamaForCausalLM(other).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"layers.0.self_attn.q_proj.weight is \[64, 64\]"):
        merge(tmp_path / "other", tmp_path / "adapter", tmp_path / "merged")
    with pytest.raises(ModelError, match="not a peft adapter"):
        merge(tmp_path / "base", tmp_path / "base", tmp_path / "merged")
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_bytes())
    for change, said in (
        ({"use_dora": True}, "use_dora"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"peft_type": "IA3"}, "IA3"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=said):
            merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
