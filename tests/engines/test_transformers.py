"""The transformers engine with the real 135M model in fp32, an adapter beside it: one child for all of these tests."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from chaku.engines.base import Call, State  # noqa: E402
from chaku.engines.supervisor import BackOff  # noqa: E402
from chaku.engines.transformers.engine import Settings, TransformersEngine  # noqa: E402
from chaku.errors import ContextOverflow, InvalidRequest, ModelError  # noqa: E402
from chaku.models.tokenizers.tokenizer import load_tokenizer  # noqa: E402
from engines.llamacpp_calls import NAME, PARIS, joined, streamed, text_of, whole  # noqa: E402

pytestmark = [
    pytest.mark.model,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning"),  # peft 0.21 on transformers 5.24
]
PROMPTS = ("The capital of France is", "Once upon a time", "def add(a, b):")


@pytest.fixture(scope="module")
def reference(smollm2_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32, attn_implementation="sdpa").eval()


@pytest.fixture(scope="module")
def tuned(reference: Any) -> Any:
    """An adapter that changes what the model says. `reference` has it from here on, switched off."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(reference, config)
    wrapped.base_model.disable_adapter_layers()
    return wrapped


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(
    smollm2_folder: Path, tuned: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TransformersEngine]:
    adapter = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(adapter)
    template = load_tokenizer(smollm2_folder).chat_template
    settings = Settings(
        smollm2_folder, adapters={"tuned": adapter}, template=template, context=512, slots=8, threads=1,
        dtype="float32",
        back_off=BackOff(first_s=0.1),
    )  # fmt: skip
    engine = TransformersEngine(NAME, settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
    assert engine.status().state is State.STOPPED


def generated(reference: Any, ids: list[int], num: int) -> list[int]:
    with torch.inference_mode():
        answer = reference.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=num, pad_token_id=0)
    return answer[0, len(ids) :].tolist()


async def test_greedy_answers_of_base_and_adapter_side_by_side_equal_generate(
    engine: TransformersEngine, reference: Any, tuned: Any, smollm2_folder: Path
) -> None:
    tokenizer = load_tokenizer(smollm2_folder)
    (adapter,) = engine.adapters()

    async def asked(prompt: str) -> str:
        async with adapter.ask(
            Call("completions", {"prompt": prompt, "temperature": 0, "max_tokens": 8}, False, "t")
        ) as a:
            answer = await a.whole()
        assert answer["model"] == "tuned"
        return text_of(answer)

    both = [whole(engine, "completions", prompt=one, max_tokens=8) for one in PROMPTS], map(asked, PROMPTS)
    answers, tuned_answers = await asyncio.gather(*(asyncio.gather(*asking) for asking in both))
    for prompt, answer, tuned_answer in zip(PROMPTS, answers, tuned_answers, strict=True):
        ids = tokenizer.encode_text(prompt)
        assert text_of(answer) == tokenizer.decode(generated(reference, ids, 8))
        tuned.base_model.enable_adapter_layers()
        try:
            expected = tokenizer.decode(generated(reference, ids, 8))
        finally:
            tuned.base_model.disable_adapter_layers()
        assert tuned_answer == expected != text_of(answer)


async def test_prompts_are_scored_as_text_and_as_ids(
    engine: TransformersEngine, reference: Any, smollm2_folder: Path
) -> None:
    ids = load_tokenizer(smollm2_folder).encode_text(PROMPTS[0])
    with torch.inference_mode():
        logprobs_TV = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [float(logprobs_TV[at - 1, ids[at]]) for at in range(1, len(ids))]
    for prompt, num_new in ((PROMPTS[0], 0), ([ids, ids], 1)):
        body = {"prompt": prompt, "echo": True, "logprobs": 2, "max_tokens": num_new, "temperature": 0}
        async with engine.ask(Call("completions", body, False, "test")) as under_way:
            answer = await under_way.whole()  # OpenAI's own type does not know the null of a first token
        for choice in answer["choices"]:
            scores = choice["logprobs"]
            assert choice["text"].startswith(PROMPTS[0])
            assert scores["token_logprobs"][0] is None and len(scores["tokens"]) == len(ids) + num_new
            assert scores["token_logprobs"][1 : len(ids)] == pytest.approx(expected, abs=1e-4)
            assert max(scores["top_logprobs"][2].values()) == pytest.approx(float(logprobs_TV[1].max()), abs=1e-4)
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


async def test_chats_stream_and_are_continued_where_they_were_cut(engine: TransformersEngine) -> None:
    unbroken = joined(await streamed(engine, max_tokens=7))
    assert "Paris" in unbroken
    assert text_of(await whole(engine, max_tokens=7)) == unbroken
    for cut in (2, 9, 14):
        messages = [*PARIS, {"role": "assistant", "content": unbroken[:cut]}]
        rest = await whole(engine, messages=messages, continue_final_message=True, max_tokens=7)
        assert (unbroken[:cut] + text_of(rest)).startswith(unbroken)


async def test_log_probabilities_and_several_answers(engine: TransformersEngine) -> None:
    answer = await whole(engine, n=2, logprobs=True, top_logprobs=2, temperature=1, seed=3, max_tokens=4)
    first, second = answer["choices"]
    assert first["message"]["content"] != second["message"]["content"]
    tokens = first["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == first["message"]["content"]
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in tokens)
    again = await whole(engine, n=2, temperature=1, seed=3, max_tokens=4)
    assert [text_of(again, 0), text_of(again, 1)] == [text_of(answer, 0), text_of(answer, 1)]


async def test_what_does_not_fit_or_exist_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(ContextOverflow, match="512"):
        await whole(engine, "completions", prompt=[5] * 600)
    with pytest.raises(InvalidRequest, match="no token 90000"):
        await whole(engine, "completions", prompt=[90000])
    assert engine.capabilities.scores_prompts and "tools" in engine.capabilities.why_not


@pytest.mark.prove
async def test_a_killed_child_comes_back(engine: TransformersEngine) -> None:
    pid = engine.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for _ in range(600):
        if engine.status().state is State.READY and engine.status().pid != pid:
            break
        await asyncio.sleep(0.2)
    assert engine.status().num_restarts == 1
    assert text_of(await whole(engine, max_tokens=2))


@pytest.mark.prove
async def test_a_folder_that_can_t_be_loaded_fails_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    engine = TransformersEngine("broken", Settings(tmp_path, threads=1))
    with pytest.raises(ModelError, match="no-such-type"):
        await engine.start()


@pytest.mark.prove
@pytest.mark.parametrize("bits", [8, 4])
async def test_weights_of_few_bits_answer_on_a_cpu(smollm2_folder: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    engine = TransformersEngine(NAME, Settings(smollm2_folder, context=256, slots=1, threads=1, bits=bits))
    await engine.start()
    try:
        answer = await whole(engine, "completions", prompt="The capital of France is", max_tokens=4)
        assert "Paris" in text_of(answer)
    finally:
        await engine.stop()
