"""Other dtypes, shards and PaddleNLP's layout: there and back, and read by those who made the formats."""

import importlib.util
import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from chaku.cli.main import root
from chaku.errors import ModelError, UsageError
from chaku.weights.convert import convert
from chaku.weights.paddle import to_paddle
from chaku.weights.tensors import open_tensors
from in_process import run_here
from processes import environment
from weights.small_models import bits_of, llama, raw, save_bin, word_tokenizer

SEED_FILES = [
    "config.json",
    "generation_config.json",
    "model_state.pdparams",
    "processor/eval/preprocessor_config.json",
    "processor/train/preprocessor_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "tokenizer_config.json",
]


@pytest.fixture
def model(tmp_path):
    llama(50).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_transformers_loads_what_convert_wrote(tmp_path, dtype):
    from transformers import LlamaForCausalLM

    original = llama(50, dtype=torch.float32)
    (tmp_path / "model").mkdir()
    save_bin(original, tmp_path / "model")
    files = convert(tmp_path / "model", tmp_path / "out", dtype=dtype, shard_bytes=4000)
    assert len(files) > 1
    torch_dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    back = LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert back.dtype == torch_dtype
    for name, value in original.state_dict().items():
        assert torch.equal(back.state_dict()[name], value.to(torch_dtype))


def test_what_does_not_fit_into_f16_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "model").mkdir()
    save_file({"fine": torch.ones(2), "large": torch.tensor([1.0, 7e4, -1e6])}, tmp_path / "model/model.safetensors")
    with pytest.raises(ModelError, match="2 values of large reach 1e\\+06; f16 ends at 65504: convert to bf16"):
        convert(tmp_path / "model", tmp_path / "out", dtype="f16")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_tensors_that_are_no_floats_stay(tmp_path):
    (tmp_path / "model").mkdir()
    save_file({"ids": torch.arange(3), "value": torch.ones(2)}, tmp_path / "model/model.safetensors")
    convert(tmp_path / "model", tmp_path / "out", dtype="bf16")
    state = load_file(tmp_path / "out/model.safetensors")
    assert (state["ids"].dtype, state["value"].dtype) == (torch.int64, torch.bfloat16)


def test_the_command_says_what_it_wrote_and_what_is_wrong(tmp_path, model):
    def in_process(*arguments):
        return CliRunner().invoke(root, ["weights", "convert", *map(str, arguments)])

    done = in_process(model, "-o", tmp_path / "out", "--dtype", "bf16", "--shard-size", "4KB")
    assert done.exit_code == 0, done.output
    assert "model-00001-of-0000" in done.stdout
    assert {str(dtype) for dtype, *_ in bits_of(tmp_path / "out").values()} == {"torch.bfloat16"}
    again = run_here("weights", "convert", str(model), "-o", str(tmp_path / "out"), env=environment())
    assert (again.returncode, again.stderr.splitlines()[0]) == (2, f"error: {tmp_path}/out exists")
    wrong = in_process(model, "-o", tmp_path / "other", "--shard-size", "large")
    assert wrong.exit_code == 2 and "write 5GB, 500MB or 4GiB" in wrong.output
    unfit = in_process(model, "-o", tmp_path / "other", "--processor", model)
    assert isinstance(unfit.exception, UsageError) and "add --to paddle" in unfit.exception.fix


def with_side_files(model):
    (model / "tokenizer.model").write_bytes(b"pieces")
    (model / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>", "legacy": false}')
    (model / "preprocessor_config.json").write_text('{"size": 336}')


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_paddle_and_back_is_the_same_bit_for_bit(tmp_path, dtype):
    llama(50, dtype=dtype).save_pretrained(tmp_path / "model")
    with_side_files(tmp_path / "model")
    (tmp_path / "model/generation_config.json").unlink(missing_ok=True)
    assert to_paddle(tmp_path / "model", tmp_path / "paddle") == SEED_FILES
    assert json.loads((tmp_path / "paddle/special_tokens_map.json").read_text()) == {
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    assert json.loads((tmp_path / "paddle/config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    convert(tmp_path / "paddle", tmp_path / "back")
    assert bits_of(tmp_path / "back") == bits_of(tmp_path / "model")
    assert (tmp_path / "back/tokenizer.model").read_bytes() == b"pieces"
    assert (tmp_path / "back/processor/train/preprocessor_config.json").read_text() == '{"size": 336}'
    from transformers import LlamaForCausalLM

    assert LlamaForCausalLM.from_pretrained(tmp_path / "back", dtype="auto").dtype == dtype


def test_pdparams_is_what_numpy_pickles_with_linear_weights_turned(tmp_path, model):
    to_paddle(model, tmp_path / "paddle")
    with (tmp_path / "paddle/model_state.pdparams").open("rb") as file:
        state = pickle.load(file)
    ours = load_file(model / "model.safetensors")
    assert len(state) == len(ours)
    assert state["llama.embed_tokens.weight"].shape == (50, 16)
    assert state["lm_head.weight"].shape == (16, 50)
    assert np.array_equal(state["lm_head.weight"], ours["lm_head.weight"].numpy().T)
    key = "layers.1.mlp.down_proj.weight"
    assert np.array_equal(state[f"llama.{key}"], ours[f"model.{key}"].numpy().T)
    assert all(array.flags.c_contiguous and array.dtype == np.float16 for array in state.values())


def test_long_context_is_told_the_way_paddlenlp_reads_it(tmp_path, model):
    config = json.loads((model / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 10000.0}
    (model / "config.json").write_text(json.dumps(config))
    to_paddle(model, tmp_path / "paddle")
    theirs = json.loads((tmp_path / "paddle/config.json").read_text())
    assert (theirs["rope_scaling_type"], theirs["rope_scaling_factor"], theirs["seq_length"]) == ("linear", 4.0, 64)
    del theirs["rope_scaling"]  # as PaddleNLP itself writes it
    (tmp_path / "paddle/config.json").write_text(json.dumps(theirs))
    convert(tmp_path / "paddle", tmp_path / "back")
    back = json.loads((tmp_path / "back/config.json").read_text())
    assert back["rope_scaling"] == {"type": "linear", "factor": 4.0}
    assert "seq_length" not in back


def test_the_tied_head_is_left_out(tmp_path):
    original = llama(50, tied=True)
    (tmp_path / "model").mkdir()
    save_bin(original, tmp_path / "model", num_files=1)
    word_tokenizer(tmp_path / "model", 50)
    files = to_paddle(tmp_path / "model", tmp_path / "paddle")
    assert "tokenizer.json" in files and "sentencepiece.bpe.model" not in files
    assert "lm_head.weight" not in open_tensors(tmp_path / "paddle")
    assert not (tmp_path / "paddle/processor").exists()


def test_both_processors_are_written_or_it_is_refused(tmp_path, model):
    given = tmp_path / "given"
    for purpose in ("train", "eval"):
        (given / purpose).mkdir(parents=True)
        (given / purpose / "preprocessor_config.json").write_text(purpose)
    to_paddle(model, tmp_path / "paddle", processor=given)
    assert (tmp_path / "paddle/processor/eval/preprocessor_config.json").read_text() == "eval"
    (given / "eval/preprocessor_config.json").unlink()
    for folder in (given, model):
        with pytest.raises(UsageError, match=r"there is no .*preprocessor_config\.json"):
            to_paddle(model, tmp_path / "other", processor=folder)
    assert not (tmp_path / "other").exists()


def test_unknown_architectures_are_refused(tmp_path, model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "gemma3"}))
    with pytest.raises(ModelError, match="model_type 'gemma3'; PaddleNLP's names are known for llama, mistral, qwen2"):
        to_paddle(model, tmp_path / "paddle")
    (model / "config.json").write_text(json.dumps(config))
    state = load_file(model / "model.safetensors")
    save_file({**state, "model.layers.0.mlp.router.weight": torch.ones(2, 2)}, model / "model.safetensors")
    with pytest.raises(ModelError, match=r"router\.weight is not a tensor of a Llama"):
        to_paddle(model, tmp_path / "paddle")


def arrays_of(protocol):
    pickled = io.BytesIO()
    state = {
        "lm_head.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "llama.norm.weight": np.asfortranarray(np.arange(6, dtype=np.uint16).reshape(2, 3)),
        "StructuredToParameterName@@": {"lm_head.weight": "linear_0.w_0"},
    }
    pickle.dump(state, pickled, protocol=protocol)
    return state, pickled.getvalue()


def test_what_numpy_pickled_is_read(tmp_path):
    state, pickled = arrays_of(4)
    (tmp_path / "model_state.pdparams").write_bytes(pickled)
    tensors = open_tensors(tmp_path)
    assert set(tensors.names) == {"lm_head.weight", "model.norm.weight"}
    assert raw(tensors.load("lm_head.weight")) == np.ascontiguousarray(state["lm_head.weight"].T).tobytes()
    norm = tensors.load("model.norm.weight")
    assert norm.dtype == torch.bfloat16
    assert raw(norm) == np.ascontiguousarray(state["llama.norm.weight"]).tobytes()


def test_an_old_protocol_is_told_with_the_way_out(tmp_path):
    (tmp_path / "model_state.pdparams").write_bytes(arrays_of(2)[1])
    with pytest.raises(ModelError, match="pickle protocol 2 or 3: save it again with protocol 4"):
        open_tensors(tmp_path)


PADDLE_LOADS = """
import sys
import numpy as np
import paddle
state = paddle.load(sys.argv[1])
linear = paddle.nn.Linear(16, 50, bias_attr=False)
linear.to(dtype=str(state["lm_head.weight"].dtype).removeprefix("paddle."))
linear.set_state_dict({"weight": state["lm_head.weight"]})
hidden = paddle.ones([1, 16], dtype="float32")
print(paddle.matmul(hidden, linear.weight.astype("float32")).numpy().tolist())
paddle.save(state, sys.argv[2])
"""


@pytest.mark.skipif(importlib.util.find_spec("paddle") is None, reason="paddlepaddle is not installed")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_paddle_itself_reads_it_and_what_it_saves_is_read(tmp_path, dtype):
    original = llama(50, dtype=dtype)
    original.save_pretrained(tmp_path / "model")
    to_paddle(tmp_path / "model", tmp_path / "paddle")
    saved = tmp_path / "saved/model_state.pdparams"
    command = [sys.executable, "-c", PADDLE_LOADS, tmp_path / "paddle/model_state.pdparams", saved]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    wanted = original.lm_head.weight.float().sum(dim=1)
    assert torch.allclose(torch.tensor(json.loads(done.stdout.splitlines()[-1]))[0], wanted, atol=1e-4)
    back = open_tensors(saved)
    assert all(raw(back.load(name)) == raw(value) for name, value in original.state_dict().items())
