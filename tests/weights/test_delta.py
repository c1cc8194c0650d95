"""Deltas: exact where promised, refused before anything is written where they don't fit."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from chaku.errors import ModelError
from chaku.weights.convert import convert
from chaku.weights.delta import apply_delta, make_delta
from in_process import run_here
from processes import environment
from weights.small_models import bits_of, llama, moved, raw, save_bin, word_tokenizer


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shard_bytes", [10**9, 5000])
def test_a_target_comes_back_bit_for_bit(tmp_path, dtype, shard_bytes):
    base = llama(50, dtype=dtype)
    base.save_pretrained(tmp_path / "base")
    moved(base).save_pretrained(tmp_path / "target")
    made = make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "delta", shard_bytes=shard_bytes)
    applied = apply_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "back", shard_bytes=shard_bytes)
    assert bits_of(tmp_path / "back") == bits_of(tmp_path / "target")
    assert bits_of(tmp_path / "delta") != bits_of(tmp_path / "target")
    assert (made.num_inexact, applied.is_verified, applied.num_added_rows) == (0, True, 0)
    assert (len(list((tmp_path / "back").glob("*.safetensors"))) > 1) is (shard_bytes == 5000)
    assert json.loads((tmp_path / "back/config.json").read_text())["vocab_size"] == 50
    assert not (tmp_path / "back/chaku_delta.json").exists()


def test_bin_files_give_the_same_as_safetensors(tmp_path, pair):
    base, target = pair
    for name, folder in (("bin-base", base), ("bin-target", target)):
        (tmp_path / name).mkdir()
        model = type(llama(50)).from_pretrained(folder, dtype=torch.float16)
        save_bin(model, tmp_path / name)
    make_delta(tmp_path / "bin-base", tmp_path / "bin-target", tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "back")
    assert bits_of(tmp_path / "back") == bits_of(target)


def test_nan_and_signed_zero_come_back_bit_for_bit(tmp_path):
    for name, values in (("base", [0.0, 1.0, 2.0, -0.0]), ("target", [-0.0, float("nan"), float("inf"), 0.0])):
        (tmp_path / name).mkdir()
        save_file({"a": torch.tensor(values).half()}, tmp_path / name / "model.safetensors")
    make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "delta")
    apply_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "back")
    assert bits_of(tmp_path / "back") == bits_of(tmp_path / "target")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_difference_says_how_many_values_it_loses(tmp_path, dtype):
    base = llama(50, dtype=dtype)
    base.save_pretrained(tmp_path / "base")
    moved(base).save_pretrained(tmp_path / "target")
    made = make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "delta", format="difference")
    assert apply_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "back").is_verified
    before = load_file(tmp_path / "base/model.safetensors")
    target, back = (load_file(tmp_path / name / "model.safetensors") for name in ("target", "back"))
    delta = load_file(tmp_path / "delta/model.safetensors")
    lost = sum(int((target[name].view(torch.int16) != back[name].view(torch.int16)).sum()) for name in target)
    assert made.num_inexact == lost > 0
    for name, value in delta.items():
        assert raw(value) == raw(target[name] - before[name])
        assert torch.allclose(target[name], back[name], atol=1e-3)


@pytest.mark.parametrize("format", ["xor", "difference", "published"])
@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_the_first_vicuna_adds_a_pad_row_to_32000(tmp_path, format, has_tokenizer):
    base, target = llama(32000, hidden=8), llama(32001, hidden=8, seed=1)
    for name, model in (("base", base), ("target", target)):
        model.save_pretrained(tmp_path / name)
    if has_tokenizer:
        word_tokenizer(tmp_path / "base")
    if format == "published":
        # What the published script did: resize, zero the new rows, subtract; legacy shards.
        grown = llama(32000, hidden=8)
        grown.resize_token_embeddings(32001, mean_resizing=False)
        with torch.no_grad():
            for embedding in (grown.get_input_embeddings(), grown.get_output_embeddings()):
                embedding.weight[-1:] = 0
            for name, value in target.state_dict().items():
                value.sub_(grown.state_dict()[name])
        (tmp_path / "delta").mkdir()
        save_bin(target, tmp_path / "delta")
    else:
        made = make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "delta", format=format)
        assert made.num_added_rows == 1
    applied = apply_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "back")
    assert applied.num_added_rows == 1
    assert applied.is_verified is (format != "published")
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("target", "back"))
    assert found["model.embed_tokens.weight"].shape == (32001, 8)
    for name, value in wanted.items():
        assert torch.equal(found[name], value) if format == "xor" else torch.allclose(found[name], value, atol=1e-3)
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert torch.equal(found[name][32000], value[32000])
    assert json.loads((tmp_path / "back/config.json").read_text())["vocab_size"] == 32001
    if has_tokenizer:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "back")
        assert (tokenizer.pad_token, tokenizer.pad_token_id, len(tokenizer)) == ("[PAD]", 32000, 32001)
        assert tokenizer.encode("w5", add_special_tokens=False) == [5]
    else:
        assert not list((tmp_path / "back").glob("*token*"))


def test_a_published_delta_of_one_vocabulary_gives_what_adding_gives(tmp_path):
    base, target = llama(50), llama(50, seed=1)
    base.save_pretrained(tmp_path / "base")
    wanted = {}
    with torch.no_grad():
        for name, value in target.state_dict().items():
            value.sub_(base.state_dict()[name])
            wanted[name] = base.state_dict()[name] + value
    (tmp_path / "delta").mkdir()
    save_bin(target, tmp_path / "delta")
    assert not apply_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "back").is_verified
    assert {name: found for name, (*_, found) in bits_of(tmp_path / "back").items()} == {
        name: raw(value) for name, value in wanted.items()
    }


def test_a_slow_tokenizer_gets_its_pad_token_in_json(tmp_path):
    for name, model in (("base", llama(50)), ("target", llama(51))):
        model.save_pretrained(tmp_path / name)
    (tmp_path / "base/tokenizer.model").write_bytes(b"pieces")
    make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "delta")
    apply_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "back")
    assert json.loads((tmp_path / "back/added_tokens.json").read_text()) == {"[PAD]": 50}
    assert json.loads((tmp_path / "back/special_tokens_map.json").read_text()) == {"pad_token": "[PAD]"}
    assert (tmp_path / "back/tokenizer.model").read_bytes() == b"pieces"


def test_the_deltas_own_tokenizer_wins(tmp_path, pair):
    base, target = pair
    word_tokenizer(base, 50)
    word_tokenizer(target, 49)
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", tmp_path / "back")
    assert (tmp_path / "back/tokenizer.json").read_text() == (target / "tokenizer.json").read_text()


def test_a_wrong_base_is_refused_with_the_first_tensor_that_differs(tmp_path, pair):
    base, target = pair
    make_delta(base, target, tmp_path / "delta")
    state = load_file(base / "model.safetensors")
    wrong = next(name for name in state if "layers.1" in name)
    state[wrong].view(torch.int16).flatten()[3] ^= 1
    save_file(state, base / "model.safetensors")
    with pytest.raises(ModelError, match=f"is not the base this delta was made from: {wrong} differs"):
        apply_delta(base, tmp_path / "delta", tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta", "target"]


def _rename(state):
    state["other"] = state.pop("lm_head.weight")


def _reshape(state):
    state["model.norm.weight"] = state["model.norm.weight"][:-1].clone()


def _shorten(state):
    state["lm_head.weight"] = state["lm_head.weight"][:-1].clone()


def _recast(state):
    state["lm_head.weight"] = state["lm_head.weight"].bfloat16()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename, "other and 1 more is not in the base"),
        (_reshape, r"model.norm.weight is \[16\] in the base and \[15\] in the target"),
        (_shorten, r"lm_head.weight is \[50, 16\] in the base and \[49, 16\] in the target: the base's vocabulary"),
        (_recast, "lm_head.weight is F16 in the base and BF16 in the target: .*chaku weights convert .* --dtype bf16"),
    ],
)
def test_models_that_do_not_fit_are_refused(tmp_path, pair, change, message):
    base, target = pair
    state = load_file(target / "model.safetensors")
    change(state)
    save_file(state, target / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        make_delta(base, target, tmp_path / "delta")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "target"]


def test_a_damaged_delta_is_named_and_leaves_nothing(tmp_path, pair):
    base, target = pair
    make_delta(base, target, tmp_path / "delta")
    path = tmp_path / "delta/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 4
    path.write_bytes(data)
    with pytest.raises(ModelError, match="does not match its recorded hash: the delta is damaged"):
        apply_delta(base, tmp_path / "delta", tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta", "target"]


def test_a_delta_that_lost_its_record_or_stands_for_a_model_is_refused(tmp_path, pair):
    base, target = pair
    make_delta(base, target, tmp_path / "delta")
    for attempt in (
        lambda: apply_delta(tmp_path / "delta", target, tmp_path / "back"),
        lambda: make_delta(base, tmp_path / "delta", tmp_path / "back"),
        lambda: convert(tmp_path / "delta", tmp_path / "back", dtype="bf16"),
    ):
        with pytest.raises(ModelError, match="delta is a delta, not a model"):
            attempt()
    (tmp_path / "delta/chaku_delta.json").unlink()
    with pytest.raises(ModelError, match=r"lacks its chaku_delta\.json"):
        apply_delta(base, tmp_path / "delta", tmp_path / "back")


def test_old_constants_and_ties_are_no_difference(tmp_path):
    base = llama(50, tied=True)
    base.save_pretrained(tmp_path / "base")  # without lm_head.weight
    target = moved(base)
    state = {**target.state_dict(), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    (tmp_path / "target").mkdir()
    torch.save(dict(reversed(state.items())), tmp_path / "target/pytorch_model.bin")
    make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "delta")
    apply_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "back")
    back = load_file(tmp_path / "back/model.safetensors")
    assert set(back) == set(load_file(tmp_path / "base/model.safetensors"))
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in back.items())


def test_the_commands_say_what_they_did(tmp_path, pair):
    def weights(*arguments):
        return run_here("weights", *map(str, arguments), env=environment())

    base, target = pair
    lines = weights("make-delta", base, target, "-o", tmp_path / "delta", "--format", "difference").stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path}/delta: difference delta of 21 tensors, ")
    assert "values (" in lines[1] and lines[1].endswith("will not come back bit for bit; --format xor is exact")
    applied = weights("apply-delta", base, tmp_path / "delta", "-o", tmp_path / "back")
    assert applied.stdout == f"{tmp_path}/back: 21 tensors, each as recorded\n"
    wrong = weights("apply-delta", target, tmp_path / "delta", "-o", tmp_path / "other")
    assert wrong.returncode == 3
    assert "is not the base this delta was made from: lm_head.weight differs" in wrong.stderr
    assert not (tmp_path / "other").exists()


MEASURES = """
import json, pathlib, resource, sys
import torch
from chaku.weights.convert import convert
from chaku.weights.delta import apply_delta, make_delta
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
(torch.ones(1000, dtype=torch.float16) + 1).view(torch.uint8).bitwise_xor_(torch.ones(1, dtype=torch.uint8))
open("/proc/self/clear_refs", "w").write("5")
before = peak()
base, target, delta, back = map(pathlib.Path, sys.argv[1:5])
make_delta(base, target, delta, format=sys.argv[5])
apply_delta(base, delta, back)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
@pytest.mark.parametrize("format", ["xor", "difference"])
def test_memory_stays_under_two_tensors_and_buffers(tmp_path, format):
    # Above 32 MiB, where glibc maps each block and gives it back; smaller tensors leave gaps in its heap.
    tensor_bytes, num_tensors = 40 << 20, 3
    for name, step in (("base", 0), ("target", 1)):
        (tmp_path / name).mkdir()
        values = torch.arange(tensor_bytes // 2, dtype=torch.int32)
        state = {f"t{number}": ((values + number) % 1000 + step / 7).half() for number in range(num_tensors)}
        save_file(state, tmp_path / name / "model.safetensors")
    del state, values
    folders = [tmp_path / name for name in ("base", "target", "delta", "back")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURES, *folders, format], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert bits_of(folders[3]).keys() == bits_of(folders[1]).keys()
    buffers_bytes = 12 << 20
    assert tensor_bytes < int(done.stdout) < 2 * tensor_bytes + buffers_bytes


def test_the_commands_take_the_name_of_a_pulled_model(tmp_path, pair, monkeypatch):
    base, target = pair
    monkeypatch.setattr("chaku.cli.weights.readable.pulled", {"a-pulled-name": base}.get)
    for command, other, output in (("make-delta", target, "delta"), ("apply-delta", tmp_path / "delta", "back")):
        ran = run_here("weights", command, "a-pulled-name", str(other), "-o", str(tmp_path / output), env=environment())
        assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "back/model.safetensors").read_bytes() == (target / "model.safetensors").read_bytes()
