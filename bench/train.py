"""Training measured lever by lever: tokens a second, useful MFU and memory, as a ratio to padded rows in the same run.

    python bench/train.py SET [--padded-set SET] [--layers 6 --width 576] [--length 2048] [--seconds 20] [--out FILE]

SET is a built set (`chaku data build`). The model is a Llama of random weights with the set's vocabulary. The baseline
is what a Hugging Face style loop does: one conversation a row, padded to --length, logits of every position, loss by
labels; --padded-set gives it conversations split less short than SET's. Only real tokens are counted, never padding.
Each variant runs in a child process of its own, so that memory is its own. Useful MFU (`chaku.train.flops`) is a share
of the GPU's peak in the table of accelerators; on CPU, of what one large bf16 matrix product reaches in the same run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MICRO_ROWS = 4


@dataclass(frozen=True)
class Variant:
    """One way to train: how rows are cut, and what differs from the defaults."""

    name: str
    rows: str = "packed"
    levers: tuple[tuple[str, Any], ...] = ()


VARIANTS = (
    Variant("padded, all logits (baseline)", "padded"),
    Variant("unpacked, padded to the longest", "apart"),
    Variant("packed"),
    Variant("packed, loss not chunked", levers=(("loss_chunk_tokens", 0),)),
    Variant("packed, fp32", levers=(("precision", "fp32"),)),
    Variant("packed, AdamW not fused", levers=(("fused_optimiser", False),)),
    Variant("packed, selective checkpointing", levers=(("activation_checkpointing", "selective"),)),
    Variant("packed, full checkpointing", levers=(("activation_checkpointing", "full"),)),
    Variant("packed, no batches ahead", levers=(("prefetch_steps", 0),)),
    Variant("packed, compiled", levers=(("compile", True),)),
    Variant("packed, masked attention on a GPU", levers=(("attention", "sdpa"),)),
)


def model_of(args: argparse.Namespace, vocab_size: int) -> Any:
    """A Llama of random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size, hidden_size=args.width, intermediate_size=args.width * 8 // 3,
            num_hidden_layers=args.layers, num_attention_heads=args.width // 64, num_key_value_heads=args.width // 64,
            max_position_embeddings=max(args.length, 8192), tie_word_embeddings=True,
        )
    )  # fmt: skip


def documents(rows: Any) -> list[Any]:
    """Each conversation as a row of its own."""
    import numpy as np

    from chaku.data.rows.packed import Row

    return [
        Row(rows[at].file, at, ids, mask, np.zeros(len(ids), np.uint16))
        for at in range(len(rows))
        for ids, mask in rows[at].documents()
    ]


def measure(variant: Variant, args: argparse.Namespace, answer: Any) -> None:
    """Train for a while and send what was counted."""
    import torch

    from chaku.data.rows.rendering import open_rendering
    from chaku.train.attention import VARLEN, register_varlen
    from chaku.train.batches import Batches, MicroBatch
    from chaku.train.config import TrainConfig
    from chaku.train.flops import train_flops
    from chaku.train.log import memory_bytes
    from chaku.train.loss import NO_TARGET
    from chaku.train.model import cost_of, make_trainee
    from chaku.train.optimiser import open_optimiser
    from chaku.train.parallel import clip_gradients
    from chaku.train.rows import Rows, checked_manifest

    folder = args.padded_set or args.set if variant.rows == "padded" else args.set
    manifest = checked_manifest(folder)
    vocab_size = open_rendering(manifest["tokenizer"]["source"], manifest["config"]["template"]).tokenizer.vocab_size
    config = TrainConfig(**{"micro_rows": MICRO_ROWS, "batch_rows": 2 * MICRO_ROWS, **dict(variant.levers)})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    causal = model_of(args, vocab_size)
    varlen = device.type == "cuda" and config.attention != "sdpa" and variant.rows != "padded"
    if varlen:
        register_varlen()
        causal.set_attn_implementation(VARLEN)
    trainee = make_trainee(causal, config, varlen=varlen).to(device)
    cost = cost_of(trainee)
    optimiser = open_optimiser(trainee, config)
    rows: Any = Rows(folder, "train")
    if variant.rows != "packed":
        rows = documents(rows)
    batches = Batches(
        rows, config.batch_rows, config.micro_rows, 0, length=args.length if variant.rows == "padded" else None
    )

    def padded_loss(batch: MicroBatch) -> Any:
        with torch.autocast(device.type, torch.bfloat16):
            logits = trainee.causal(input_ids=batch.ids, attention_mask=(batch.documents >= 0).long()).logits
        targets = batch.targets.flatten()
        return torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), targets, ignore_index=NO_TARGET, reduction="sum"
        )

    tokens = trained = slots = pairs = 0
    started = 0.0
    warm_up = 3 if config.compile else 1
    for step in batches.steps(0, 10**9, config.prefetch_steps):
        for batch in step.micro_batches:
            moved = batch.to(device)
            loss = padded_loss(moved) if variant.rows == "padded" else trainee.summed_loss(moved)
            torch.autograd.backward(loss / max(step.num_targets, 1))
        clip_gradients(trainee, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if step.index < warm_up:
            started = time.perf_counter()
            continue
        tokens += step.num_tokens
        pairs += step.num_pairs
        trained += step.num_targets
        slots += sum(batch.ids.numel() for batch in step.micro_batches)
        if time.perf_counter() - started > args.seconds:
            break
    seconds = time.perf_counter() - started
    answer.send(
        {
            "tokens_per_s": tokens / seconds, "trained_tokens_per_s": trained / seconds, "real": tokens / slots,
            "memory_gb": memory_bytes(device.type) / 1e9, "steps": step.index - warm_up + 1,
            "flops_per_s": train_flops(cost, tokens, pairs) / seconds, "parameters": cost.num_parameters,
        }
    )  # fmt: skip


def peak(answer: Any) -> None:
    """The GPU's peak by the table, or what a bf16 product of 4096 by 4096 matrices reaches here, the best of five."""
    import torch

    from chaku.models.plan.accelerators import recognised

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        row = recognised(name)
        if row is None:
            raise SystemExit(f"{name} is in no table: add it to chaku.models.plan.accelerators")
        answer.send((row.dense_tflops * 1e12, name))
        return
    size = 4096
    one, other = torch.randn(size, size, dtype=torch.bfloat16), torch.randn(size, size, dtype=torch.bfloat16)
    best = 1e9
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(one, other)
        best = min(best, time.perf_counter() - started)
    answer.send((2 * size**3 / best, f"{torch.get_num_threads()} threads"))


def in_child(work: Any, *arguments: Any) -> Any:
    """What `work` sends, from a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    child = spawn.Process(target=work, args=(*arguments, there))
    child.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__} ended with {child.exitcode}") from None
    finally:
        child.join()


def main() -> None:
    """Measure every variant in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("--padded-set", type=Path)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--only", action="append", help="variants whose name holds this; the baseline always runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    peak_flops_per_s, device = in_child(peak)
    print(f"peak {peak_flops_per_s / 1e12:.3g} TFLOP/s ({device})", flush=True)
    for variant in VARIANTS:
        if args.only and variant is not VARIANTS[0] and not any(part in variant.name for part in args.only):
            continue
        if "on a GPU" in variant.name and device.endswith("threads"):
            continue
        result = in_child(measure, variant, args)
        result["mfu"] = result["flops_per_s"] / peak_flops_per_s
        results[variant.name] = result
        ratio = result["tokens_per_s"] / results[VARIANTS[0].name]["tokens_per_s"]
        print(
            f"{variant.name:<34} {result['tokens_per_s']:>8,.0f} tokens/s"
            f"  {result['trained_tokens_per_s']:>8,.0f} trained  x{ratio:<5.2f}"
            f"  {result['real']:>6.1%} real  {result['mfu']:>6.1%} MFU  {result['memory_gb']:.2f} GB",
            flush=True,
        )
    if args.out:
        described = {
            "date": datetime.date.today().isoformat(), "machine": platform.platform(), "cpu": _cpu(),
            "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
            "peak_flops_per_s": peak_flops_per_s, "device": device,
            "arguments": {key: str(value) for key, value in vars(args).items()},
            "variants": [asdict(variant) for variant in VARIANTS], "results": results,
        }  # fmt: skip
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(described, indent=2))


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    main()
