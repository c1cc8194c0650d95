"""Training measured lever by lever: tokens a second, useful MFU and memory, as a ratio to padded rows in the same run.

    python bench/train.py [SET] [--padded-set SET] [--layers 6 --width 512] [--length 2048] [--seconds 20] [--out FILE]

Every variant runs chaku's own loop (`chaku.train.loop`) with a recipe's settings, in a child process of its own, so
that memory is its own. The model is a Llama of random weights whose matrices have sizes that GPUs like. SET is a built
set (`chaku data build`); without one, rows are random ids in documents of several lengths, two thirds of them trained.
The baseline is what a Hugging Face style loop does: one conversation a row, padded to a full row, logits of every
position, loss by labels; --padded-set gives it conversations split less short than SET's. Only real tokens are counted,
never padding. Useful MFU (`chaku.train.flops`) is a share of the GPU's peak in the table of accelerators. A CPU has no
such peak, so there is no MFU on one. A CPU without AVX-512 computes in fp32, as bf16 would take it many times as long.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import platform
import subprocess
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HEAD_SIZE = 64
RANDOM_VOCABULARY = 32_000
RANDOM_ROWS = 256


@dataclass(frozen=True)
class Variant:
    """One way to train: how rows are cut, and what differs from the defaults."""

    name: str
    rows: str = "packed"
    levers: tuple[tuple[str, Any], ...] = ()
    masters: bool = False
    """bf16 weights with fp32 masters, through FSDP2 over one process, instead of autocast over fp32 weights."""


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
    Variant("packed, bf16 weights with fp32 masters", masters=True),
    Variant("packed, masters and compiled", levers=(("compile", True),), masters=True),
    Variant("packed, masked attention on a GPU", levers=(("attention", "sdpa"),)),
)


class Enough(Exception):
    """The time is up."""


@dataclass
class Stopwatch:
    """Listens to the loop: drops the first steps, keeps the others, and ends it after a while."""

    seconds: float
    warm_up: int
    records: list[Any] = field(default_factory=list)
    num_seen: int = 0

    def note(self, line: str) -> None:
        """Nothing is printed while it is measured."""

    def step_done(self, record: Any, _total: int) -> None:
        """Keep a record. Raises Enough at the end."""
        self.num_seen += 1
        if self.num_seen <= self.warm_up:
            return
        self.records.append(record)
        if sum(kept.seconds for kept in self.records) > self.seconds:
            raise Enough


class RandomRows:
    """Full rows of random ids, in documents of 64 tokens up to a whole row; two thirds carry loss."""

    def __init__(self, length: int, number: int = RANDOM_ROWS) -> None:
        self.length, self.number = length, number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, number: int) -> Any:
        import numpy as np

        from chaku.data.rows.packed import Row

        chooser = np.random.default_rng(number)
        ids = chooser.integers(0, RANDOM_VOCABULARY, self.length, dtype=np.uint32)
        starts = np.cumsum(chooser.integers(64, max(self.length // 2, 65), self.length // 64))
        doc_ids = np.searchsorted(starts[starts < self.length], np.arange(self.length), side="right")
        mask = (np.arange(self.length) % 96 >= 32).astype(np.uint8)
        return Row("random", number, ids, mask, doc_ids.astype(np.uint16))


def rounded(number: float, step: int) -> int:
    """Up to a multiple of `step`."""
    return -(-int(number) // step) * step


def model_of(args: argparse.Namespace, vocab_size: int) -> Any:
    """A Llama of random weights; every matrix has sizes divisible by 64, the larger ones by 128."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = max(args.width // HEAD_SIZE, 1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=rounded(vocab_size, 128), hidden_size=args.width,
            intermediate_size=rounded(args.width * 8 / 3, 256 if args.width >= 512 else 64),
            num_hidden_layers=args.layers, num_attention_heads=heads, num_key_value_heads=args.kv_heads or heads,
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


def rows_of(variant: Variant, args: argparse.Namespace) -> tuple[Any, int, int]:
    """The rows that a variant trains on, how many ids there are, and the length of a full row."""
    folder = args.padded_set or args.set if variant.rows == "padded" else args.set
    if folder is None:
        rows: Any = RandomRows(args.length)
        vocab_size, length = RANDOM_VOCABULARY, args.length
    else:
        from chaku.data.rows.rendering import open_rendering
        from chaku.train.rows import Rows, checked_manifest

        manifest = checked_manifest(folder)
        rendering = open_rendering(manifest["tokenizer"]["source"], manifest["config"]["template"])
        rows, vocab_size, length = Rows(folder, "train"), rendering.tokenizer.vocab_size, manifest["pack_length"]
    return (rows if variant.rows == "packed" else documents(rows)), vocab_size, length


def padded_loss(trainee: Any, batch: Any) -> Any:
    """A Hugging Face style loss: logits of every position, padding masked by the labels."""
    import torch

    from chaku.train.loss import NO_TARGET

    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=trainee.autocast_to is not None):
        logits = trainee.causal(input_ids=batch.ids, attention_mask=(batch.documents >= 0).long()).logits
    loss = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=NO_TARGET, reduction="sum"
    )
    return loss, {}


def open_run(variant: Variant, args: argparse.Namespace, folder: Path, peak_flops_per_s: float | None) -> Any:
    """A run of chaku's loop over a random model, with nothing of it replaced but the baseline's loss."""
    import functools

    import torch
    import torch.distributed as dist

    from chaku.train import loop
    from chaku.train.attention import VARLEN
    from chaku.train.batches import Batches
    from chaku.train.checkpoint import Checkpoints
    from chaku.train.config import TrainConfig
    from chaku.train.log import Log
    from chaku.train.model import attention_of, cost_of
    from chaku.train.optimiser import open_optimiser
    from chaku.train.parallel import World, allocate_in_segments
    from chaku.train.parallelize import parallelize

    allocate_in_segments()
    settings = {
        "precision": args.precision,
        "micro_rows": args.micro_rows,
        "batch_rows": 2 * args.micro_rows,
        "compile": False,
    }
    settings |= {"save_every": 10**9}
    config = TrainConfig(**{**settings, "evaluate_every": 0, **dict(variant.levers)})
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    world = World(0, 1, device, shards_alone=variant.masters)
    if variant.masters:
        backend, store = "gloo" if device.type == "cpu" else "nccl", dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    rows, vocab_size, full_row = rows_of(variant, args)
    causal = model_of(args, vocab_size)
    attention = "sdpa" if variant.rows == "padded" else attention_of(config, device)
    causal.set_attn_implementation(attention)
    trainee = parallelize(causal, config, world, varlen=attention == VARLEN)
    if variant.rows == "padded":
        trainee.summed_loss = functools.partial(padded_loss, trainee)  # type: ignore[method-assign]
    is_fixed = variant.rows == "padded" or device.type == "cuda" or bool(config.compile)
    length = full_row if is_fixed and variant.rows != "apart" else None
    batches = Batches(rows, config.batch_rows, config.micro_rows, 0, length=length, pins=device.type == "cuda")
    return loop.Run(
        trainee, open_optimiser(trainee, config), batches, None, Log(None), Checkpoints(folder, world), world, config,
        10**9, cost_of(trainee), peak_flops_per_s, Stopwatch(args.seconds, 4 if config.compile else 2),
    )  # fmt: skip


def measure(variant: Variant, args: argparse.Namespace, peak_flops_per_s: float | None, answer: Any) -> None:
    """Train for a while and send what was counted."""
    from chaku.train import loop

    with tempfile.TemporaryDirectory() as folder:
        run = open_run(variant, args, Path(folder), peak_flops_per_s)
        watch = run.listener
        try:
            loop.train(run, 0)
        except Enough:
            pass
        finally:
            run.checkpoints.close()
    records = watch.records
    seconds = sum(record.seconds for record in records)
    tokens = sum(record.tokens for record in records)
    slots = sum(
        batch.ids.numel() for record in records[:4] for batch in run.batches.step(record.step - 1).micro_batches
    )
    answer.send(
        {
            "tokens_per_s": tokens / seconds,
            "trained_tokens_per_s": sum(record.trained_tokens for record in records) / seconds,
            "real": sum(record.tokens for record in records[:4]) / slots,
            "memory_gb": max(record.memory_bytes for record in records) / 1e9, "steps": len(records),
            "mfu": peak_flops_per_s and sum(record.mfu * record.seconds for record in records) / seconds,
            "parameters": sum(parameter.numel() for parameter in run.trainee.parameters()),
            "loss": [records[0].loss, records[-1].loss],
        }
    )  # fmt: skip


def peak(answer: Any) -> None:
    """The GPU's peak by the table, its name, and the precision to use; on a CPU None and the number of threads."""
    import torch

    from chaku.models.plan.accelerators import recognised
    from chaku.train.config import TrainConfig
    from chaku.train.parallelize import slow_arithmetic

    if not torch.cuda.is_available():
        is_slow = slow_arithmetic(TrainConfig(precision="bf16"), "cpu") is not None
        answer.send((None, f"{torch.get_num_threads()} threads", "fp32" if is_slow else "bf16"))
        return
    name = torch.cuda.get_device_name()
    row = recognised(name)
    if row is None:
        raise SystemExit(f"{name} is in no table: add it to chaku.models.plan.accelerators")
    answer.send((row.dense_tflops * 1e12, name, "bf16"))


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
        child.join()
        raise RuntimeError(f"{work.__name__} ended with exit code {child.exitcode}") from None
    finally:
        child.join()


def main() -> None:
    """Measure every variant in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path, nargs="?")
    parser.add_argument("--padded-set", type=Path)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--kv-heads", type=int, help="key and value heads  [as many as heads]")
    parser.add_argument("--micro-rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="[bf16; fp32 on a CPU without AVX-512]")
    parser.add_argument("--only", action="append", help="variants whose name holds this")
    parser.add_argument("--exactly", action="append", help="the variant of this name")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    failed: list[str] = []
    peak_flops_per_s, device, fast = in_child(peak)
    args.precision = args.precision or fast
    peak_text = f"peak {peak_flops_per_s / 1e12:.3g} TFLOP/s" if peak_flops_per_s else "no MFU without a GPU's peak"
    print(f"{device}, {args.precision}: {peak_text}", flush=True)
    for variant in VARIANTS:
        chosen = variant.name in (args.exactly or ()) or any(part in variant.name for part in args.only or ())
        if (args.only or args.exactly) and not chosen:
            continue
        if "on a GPU" in variant.name and peak_flops_per_s is None:
            continue
        if args.precision == "fp32" and (variant.masters or variant.name == "packed, fp32"):
            continue
        try:
            result = in_child(measure, variant, args, peak_flops_per_s)
        except RuntimeError as error:
            print(f"{variant.name:<38} failed: {error}", flush=True)
            failed.append(variant.name)
            continue
        results[variant.name] = result
        mfu = f"{result['mfu']:>6.1%} useful MFU  " if result["mfu"] else ""
        ratio = result["tokens_per_s"] / next(iter(results.values()))["tokens_per_s"]
        print(
            f"{variant.name:<38} {result['tokens_per_s']:>8,.0f} tokens/s"
            f"  {result['trained_tokens_per_s']:>8,.0f} trained  x{ratio:<5.2f}"
            f"  {result['real']:>6.1%} real  {mfu}{result['memory_gb']:.2f} GB",
            flush=True,
        )
    if args.out:
        described = {
            "date": datetime.date.today().isoformat(), "machine": platform.platform(), "cpu": _cpu(),
            "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
            "peak_flops_per_s": peak_flops_per_s, "device": device,
            "arguments": {key: str(value) for key, value in vars(args).items()},
            "variants": [asdict(variant) for variant in VARIANTS], "results": results, "failed": failed,
        }  # fmt: skip
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(described, indent=2))
    raise SystemExit(1 if failed else 0)


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    main()
