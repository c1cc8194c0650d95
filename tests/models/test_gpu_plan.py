"""Plans on GPUs: the seeds' 33B on eight V100s, divisibility, dtypes, and that the parts add up."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from chaku.cli.main import root
from chaku.errors import ConfigError
from chaku.models.plan.accelerators import ACCELERATORS, accelerator
from chaku.models.plan.gpu_plan import plan_gpus, smallest
from chaku.models.sources import shape_of


def test_33b_on_eight_v100_is_two_replicas_of_four_in_f16_for_52_heads_dont_divide_by_8() -> None:
    plan = plan_gpus(shape_of("vicuna-33b-v1.3"), accelerator("V100-32GB"), 8)
    assert plan.fits and plan.dtype == "f16" and plan.best is not None
    assert (plan.best.tensor, plan.best.replicas) == (4, 2)
    assert any("52 heads don't divide by 8" in note for note in plan.notes)
    assert any("no bf16" in note for note in plan.notes)


def test_a_split_over_eight_is_found_where_heads_divide() -> None:
    plan = plan_gpus(shape_of("vicuna-7b-v1.5"), accelerator("A100-80GB"), 8)
    assert 8 in {layout.tensor for layout in plan.layouts}
    assert plan.dtype == "f16", "as it was published"


def test_the_parts_of_a_gpu_add_up_to_what_is_usable() -> None:
    plan = plan_gpus(shape_of("vicuna-13b-v1.5"), accelerator("A100-40GB"), 1)
    best = plan.best
    assert best is not None
    assert best.weights_bytes + best.overhead_bytes + best.kv_room_bytes == best.usable_bytes
    assert best.tokens == best.kv_room_bytes // best.kv_bytes_per_token
    # 40 layers x 40 heads x 128 wide, keys and values, 2 bytes each
    assert best.kv_bytes_per_token == 2 * 40 * 40 * 128 * 2


def test_what_does_not_fit_says_so_and_what_would() -> None:
    plan = plan_gpus(shape_of("vicuna-33b-v1.3"), accelerator("L40S"), 1)
    assert not plan.fits and [layout.dtype for layout in plan.alternatives] == ["fp8", "int4"]
    shown = CliRunner().invoke(root, ["weights", "plan", "vicuna-33b-v1.3", "--gpu", "L40S"])
    assert shown.exit_code == 0 and "does not fit" in shown.output and "int4" in shown.output
    assert plan_gpus(shape_of("vicuna-33b-v1.3"), accelerator("T4"), 1).alternatives == (), "17 GB in 4 bits, 15 there"


def test_more_context_means_fewer_requests() -> None:
    shape = shape_of("vicuna-7b-v1.5")
    short, long = (plan_gpus(shape, accelerator("A100-40GB"), 1, context=tokens).best for tokens in (1024, 4096))
    assert short is not None and long is not None and short.requests > long.requests > 0


def test_the_table_of_all_names_the_least_gpus_that_hold_it() -> None:
    plans = {plan.gpu.name: plan for plan in smallest(shape_of("vicuna-7b-v1.5"))}
    assert plans.keys() == ACCELERATORS.keys()
    assert plans["A100-80GB"].count == 1
    assert plans["T4"].count > 1, "13.5 GB of weights and a cache are too much for 15"


def test_gpu_names_are_forgiving_and_unknown_ones_are_refused() -> None:
    assert accelerator("h100").name == "H100-80GB" and accelerator("rtx 4090").name == "RTX4090"
    with pytest.raises(ConfigError, match="H100"):
        accelerator("V900")


def test_a_config_json_is_enough_and_grouped_heads_bound_the_split(tmp_path) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14_336,
        "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = shape_of(str(tmp_path))
    assert shape.num_parameters == 8_030_261_248  # Llama 3 8B
    plan = plan_gpus(shape, accelerator("H100"), 1)
    assert plan.best is not None and plan.best.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2


def test_json_and_the_table_are_printed() -> None:
    made = CliRunner().invoke(
        root, ["weights", "plan", "vicuna-33b-v1.3", "--gpu", "V100-32GB", "--count", "8", "--json"]
    )
    assert json.loads(made.output)["fits"] is True
    table = CliRunner().invoke(root, ["weights", "plan", "smollm2-135m"])
    assert table.exit_code == 0 and "V100-32GB" in table.output
