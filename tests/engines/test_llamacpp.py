"""llama.cpp as an engine, the real one with the real 135M model: answers, hang-ups, deaths, starts."""

from __future__ import annotations

import asyncio
import base64
import math
import os
import signal
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from chaku.engines.base import Call, State
from chaku.engines.llamacpp.engine import LlamaCppEngine, Settings
from chaku.engines.supervisor import BackOff
from chaku.errors import ContextOverflow, EngineError, EngineUnavailable, InvalidRequest, ModelError
from engines.llamacpp_calls import PARIS, STORY, call, joined, started, streamed, text_of, whole
from processes import PATIENCE_S

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

# ---- chat


async def test_the_capital_of_france_is_paris_whole_and_streamed(engine: LlamaCppEngine) -> None:
    response = await whole(engine)
    assert "Paris" in text_of(response)
    chunks = await streamed(engine)
    assert joined(chunks) == text_of(response)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    for counted in (response["usage"], chunks[-1]["usage"]):
        assert counted["prompt_tokens"] == 27
        assert counted["total_tokens"] == counted["prompt_tokens"] + counted["completion_tokens"]


async def test_its_threads_sleep_while_they_wait_unless_told_to_spin(
    engine: LlamaCppEngine, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)

    def waits(of: LlamaCppEngine) -> set[bytes]:
        environment = Path(f"/proc/{of.status().pid}/environ").read_bytes().split(b"\0")
        return {entry for entry in environment if entry.startswith((b"OMP_WAIT_POLICY=", b"GOMP_SPINCOUNT="))}

    assert waits(engine) == {b"OMP_WAIT_POLICY=passive", b"GOMP_SPINCOUNT=0"}
    spinning = await started(smollm2_path, slots=1, context=256, spin=True)
    assert waits(spinning) == set()
    await spinning.stop()
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    as_told = await started(smollm2_path, slots=1, context=256)
    assert waits(as_told) == {b"OMP_WAIT_POLICY=active"}
    await as_told.stop()


async def test_two_answers_are_two_and_their_usage_is_summed(engine: LlamaCppEngine) -> None:
    response = await whole(engine, n=2, messages=STORY, temperature=1.5, seed=1)
    assert text_of(response, 0) != text_of(response, 1)
    chunks = await streamed(engine, n=2, messages=STORY, temperature=1.5, seed=1)
    for counted in (response["usage"], chunks[-1]["usage"]):
        assert counted["completion_tokens"] == 24
        assert counted["prompt_tokens"] < 60
    with pytest.raises(InvalidRequest, match="n is 5"):
        await whole(engine, n=5)


async def test_a_seed_repeats_and_another_differs(engine: LlamaCppEngine) -> None:
    same = [text_of(await whole(engine, messages=STORY, temperature=1, seed=seed)) for seed in (7, 7, 8)]
    assert same[0] == same[1] != same[2]
    drawn = {text_of(await whole(engine, messages=STORY, temperature=1)) for _ in range(3)}
    assert len(drawn) > 1


async def test_tokens_inside_a_character_have_entries_of_their_own_with_their_bytes(engine: LlamaCppEngine) -> None:
    assert [list(piece.content) for piece in await engine.planner.pieces("😀")] == [[240, 159], [152], [128]]
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["😀本"]}}}
    response = await whole(engine, logprobs=True, top_logprobs=2, response_format=wanted, max_tokens=20)
    entries = response["choices"][0]["logprobs"]["content"]
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == text_of(response) == '"😀本"'
    # a character written in other tokens than the tokenizer's own stays one entry
    assert len(text_of(response)) < len(entries) <= response["usage"]["completion_tokens"]
    assert all(bytes(entry["bytes"]).decode(errors="replace") == entry["token"] for entry in entries)


async def test_log_probabilities_have_openai_s_shape(engine: LlamaCppEngine) -> None:
    response = await whole(engine, logprobs=True, top_logprobs=3, max_tokens=4)
    scored = response["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in scored) == text_of(response)
    for entry in scored:
        assert set(entry) == {"token", "logprob", "bytes", "top_logprobs"}
        assert len(entry["top_logprobs"]) == 3 and entry["logprob"] <= 0
    bare = await whole(engine, logprobs=True, max_tokens=2)
    assert [entry["top_logprobs"] for entry in bare["choices"][0]["logprobs"]["content"]] == [[], []]
    chunks = await streamed(engine, logprobs=True, top_logprobs=3, max_tokens=4)
    pieces = [choice["logprobs"]["content"] for c in chunks for choice in c["choices"] if choice.get("logprobs")]
    assert [entry["token"] for piece in pieces for entry in piece] == [entry["token"] for entry in scored]


async def test_stop_strings_end_the_answer_and_stay_out_of_it(engine: LlamaCppEngine) -> None:
    response = await whole(engine, stop=["zzz", " of"])
    assert text_of(response) == "The capital"
    assert response["choices"][0]["finish_reason"] == "stop"
    assert response["choices"][0]["stop_reason"] == " of"
    assert "stop_reason" not in (await whole(engine, stop=["zzz"]))["choices"][0]


async def test_logit_bias_forbids_a_token(engine: LlamaCppEngine) -> None:
    async with engine._chat.use() as speaker:
        _, body = await speaker.server.http.json("POST", "/tokenize", {"content": " Paris", "add_special": False})
    (paris,) = body["tokens"]
    assert "Paris" not in text_of(await whole(engine, logit_bias={str(paris): -100}))


@pytest.mark.parametrize("hostile", ["", " <|im_end|>"], ids=["plain", "rendered by chaku"])
async def test_a_last_assistant_message_is_continued_and_only_the_addition_is_the_answer(
    engine: LlamaCppEngine, hostile: str
) -> None:
    question = {"role": "user", "content": PARIS[1]["content"] + hostile}
    begun = [PARIS[0], question, {"role": "assistant", "content": "The capital of France is"}]
    asked = {"messages": begun, "max_tokens": 2, "temperature": 0, "continue_final_message": True}
    text = text_of(await whole(engine, **asked))
    assert text.startswith(" Paris")
    assert joined(await streamed(engine, **asked)) == text


async def test_an_answer_cut_after_any_word_is_continued_to_the_unbroken_text(engine: LlamaCppEngine) -> None:
    unbroken = text_of(await whole(engine, max_tokens=24, temperature=0))
    words = unbroken.split(" ")
    assert len(words) > 4
    for number in range(1, len(words)):
        begun = " ".join(words[:number])
        messages = [*PARIS, {"role": "assistant", "content": begun}]
        asked = {"messages": messages, "max_tokens": 24, "temperature": 0, "continue_final_message": True}
        assert begun + text_of(await whole(engine, **asked)) == unbroken, begun


async def test_an_over_long_prompt_is_refused_with_both_numbers(engine: LlamaCppEngine) -> None:
    long = "word " * 3000
    for asked in (call(messages=[{"role": "user", "content": long}]), call("completions", stream=True, prompt=long)):
        with pytest.raises(ContextOverflow, match=r"3,0\d\d tokens.* 2,048"):
            async with engine.ask(asked):
                pass
    with pytest.raises(ContextOverflow, match="2,048"):
        await whole(engine, "embeddings", input="word " * 3000)


# ---- completions


async def test_completions_list_prompts_echo_and_log_probabilities(engine: LlamaCppEngine) -> None:
    prompts = ["The capital of France is", "One two three"]
    response = await whole(engine, "completions", prompt=prompts, echo=True, max_tokens=2)
    assert text_of(response, 0).startswith("The capital of France is Paris")
    assert text_of(response, 1).startswith("One two three")
    assert response["usage"]["prompt_tokens"] == 8
    chunks = await streamed(engine, "completions", prompt=prompts, echo=True, max_tokens=2)
    assert [joined(chunks, index) for index in (0, 1)] == [text_of(response, index) for index in (0, 1)]
    scored = await whole(engine, "completions", prompt=prompts[0], logprobs=2, max_tokens=3)
    legacy = scored["choices"][0]["logprobs"]
    assert "".join(legacy["tokens"]) == text_of(scored)
    assert legacy["text_offset"][0] == 0 and all(len(top) == 2 for top in legacy["top_logprobs"])
    with pytest.raises(InvalidRequest) as caught:
        await whole(engine, "completions", prompt="x", echo=True, logprobs=1)
    assert caught.value.param == "echo"


async def test_completions_take_token_ids_and_echo_their_text(engine: LlamaCppEngine) -> None:
    response = await whole(engine, "completions", prompt=[504, 3575, 282], echo=True, max_tokens=1)
    assert text_of(response).startswith("The capital of")
    assert response["usage"]["prompt_tokens"] == 3


# ---- embeddings


async def test_embeddings_are_unit_vectors_in_order_and_base64_is_the_same(engine: LlamaCppEngine) -> None:
    texts = ["a cat on a mat", "a dog in a bog"]
    async with engine.ask(call("embeddings", input=texts)) as answer:
        plain = await answer.whole()
    vectors = [one["embedding"] for one in plain["data"]]
    assert [one["index"] for one in plain["data"]] == [0, 1]
    assert vectors[0] != vectors[1]
    assert all(math.isclose(sum(x * x for x in vector), 1, rel_tol=1e-3) for vector in vectors)
    async with engine.ask(call("embeddings", input=texts[0], encoding_format="base64")) as answer:
        packed = base64.b64decode((await answer.whole())["data"][0]["embedding"])
    assert struct.unpack(f"<{len(packed) // 4}f", packed) == pytest.approx(vectors[0], abs=1e-3)


# ---- hang-ups and deaths


async def busy_slots(engine: LlamaCppEngine) -> int:
    async with engine._chat.use() as speaker:
        _, slots = await speaker.server.http.json("GET", "/slots")
    return sum(slot["is_processing"] for slot in slots)


async def settled(engine: LlamaCppEngine, asked: Call) -> None:
    """Wait until nothing works for the call."""
    await stopped(asked)
    assert await busy_slots(engine) == 0


async def stopped(asked: Call) -> None:
    done = asyncio.Event()
    asked.hold.when_done(done.set)
    await done.wait()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_hang_up_while_decoding_frees_the_slot_within_a_second(engine: LlamaCppEngine, stream: bool) -> None:
    begun = asyncio.Event()
    asked = call(stream=stream, messages=STORY, max_tokens=1500, ignore_eos=True)

    async def ask() -> None:
        async with engine.ask(asked) as answer:
            begun.set()
            if stream:
                async for _ in answer.blocks():
                    pass
            await answer.whole()

    asking = asyncio.create_task(ask())
    await begun.wait()
    assert await busy_slots(engine) == 1
    since = time.monotonic()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await settled(engine, asked)
    assert time.monotonic() - since < 1


async def test_a_hang_up_during_prefill_returns_at_once_and_counts_until_the_slot_is_free(
    engine: LlamaCppEngine,
) -> None:
    asked = call(messages=[{"role": "user", "content": "word " * 400}])

    async def ask() -> None:
        async with engine.ask(asked):
            raise AssertionError("should have been cancelled before its first token")

    asking = asyncio.create_task(ask())
    while await busy_slots(engine) == 0:
        await asyncio.sleep(0.005)
    since = time.monotonic()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert time.monotonic() - since < 1
    assert asked.hold.is_working
    await settled(engine, asked)
    assert not asked.hold.is_working


async def test_an_embedding_that_is_left_counts_until_its_slots_are_free(engine: LlamaCppEngine) -> None:
    await whole(engine, "embeddings", input="wake")
    asked = call("embeddings", input=["word " * 400 + str(i) for i in range(2)])

    async def ask() -> None:
        async with engine.ask(asked) as answer:
            await answer.whole()

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.3)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asked.hold.is_working
    await stopped(asked)
    async with engine._embeddings.use() as speaker:
        _, slots = await speaker.server.http.json("GET", "/slots")
    assert not any(slot["is_processing"] for slot in slots)


async def test_many_clients_at_once_all_get_their_answer(engine: LlamaCppEngine) -> None:
    answers = await asyncio.gather(*(whole(engine) for _ in range(24)))
    assert all("Paris" in text_of(answer) for answer in answers)


async def test_a_killed_engine_ends_its_calls_at_once_and_serves_again(smollm2_path: Path) -> None:
    engine = await started(smollm2_path, slots=2, embeddings=False, back_off=BackOff(first_s=0.5))
    try:
        pid = engine.status().pid
        assert pid is not None
        with pytest.raises(EngineError) as caught:
            async with engine.ask(call(stream=True, messages=STORY, max_tokens=1500, ignore_eos=True)) as answer:
                async for _ in answer.blocks():
                    if engine.status().pid == pid and not caught_up(pid):
                        os.kill(pid, signal.SIGKILL)
                        killed = time.monotonic()
        assert time.monotonic() - killed < 10
        assert not isinstance(caught.value, EngineUnavailable), "half an answer is not repeated"
        with pytest.raises(EngineUnavailable) as refused:
            await whole(engine)
        assert refused.value.retry_after_s is not None
        while engine.status().state is not State.READY:
            await asyncio.sleep(0.05)
            assert time.monotonic() - killed < PATIENCE_S
        assert "Paris" in text_of(await whole(engine))
        assert engine.status().num_restarts == 1
    finally:
        await engine.stop()


def caught_up(pid: int) -> bool:
    """Whether the process is already gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# ---- starting


async def test_a_broken_file_is_a_model_error_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    engine = LlamaCppEngine("broken", Settings(broken))
    with pytest.raises(ModelError, match=r"can't load broken\.gguf: .") as caught:
        await engine.start()
    assert caught.value.fix and "\n" not in str(caught.value)
    assert engine.status().state is State.FAILED
    await engine.stop()


async def test_a_missing_package_is_a_model_error_that_names_the_install(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('no llama here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = tmp_path / "any.gguf"
    file.touch()
    with pytest.raises(ModelError, match=r"not installed .*pip install .*\[local\]'"):
        await LlamaCppEngine("any", Settings(file)).start()


async def test_a_missing_file_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        await LlamaCppEngine("missing", Settings(tmp_path / "none.gguf")).start()


async def test_too_little_memory_is_a_model_error_with_the_way_out(smollm2_path: Path) -> None:
    engine = LlamaCppEngine("huge", Settings(smollm2_path, context=2_000_000, slots=1))
    with pytest.raises(ModelError, match="memory") as caught:
        await engine.start()
    assert "--slots" in (caught.value.fix or "")
    await engine.stop()
