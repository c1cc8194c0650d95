"""A tiny image projector as llama.cpp reads one, in LLaVA 1.5's form. Its weights are noise."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

IMAGE_PIXELS, PATCH_PIXELS, WIDTH = 32, 8, 16
NUM_PATCHES = (IMAGE_PIXELS // PATCH_PIXELS) ** 2


def write_mmproj(path: Path, *, text_width: int, seed: int = 0) -> Path:
    """Write it for a text model whose embeddings have `text_width` numbers."""
    noise = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    writer.add_string("clip.projector_type", "mlp")
    vision = {
        "image_size": IMAGE_PIXELS, "patch_size": PATCH_PIXELS, "embedding_length": WIDTH, "feed_forward_length": WIDTH,
        "projection_dim": text_width, "block_count": 1, "attention.head_count": 2,
    }  # fmt: skip
    for name, number in vision.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    shapes: dict[str, tuple[int, ...]] = {
        "v.patch_embd.weight": (WIDTH, 3, PATCH_PIXELS, PATCH_PIXELS),
        "v.patch_embd.bias": (WIDTH,),
        "v.position_embd.weight": (NUM_PATCHES, WIDTH),
        "v.post_ln.weight": (WIDTH,),
        "v.post_ln.bias": (WIDTH,),
        "mm.0.weight": (text_width, WIDTH),
        "mm.0.bias": (text_width,),
        "mm.2.weight": (text_width, text_width),
        "mm.2.bias": (text_width,),
    }
    for name in ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down"):
        shapes |= {f"v.blk.0.{name}.weight": (WIDTH, WIDTH), f"v.blk.0.{name}.bias": (WIDTH,)}
    for name in ("ln1", "ln2"):
        shapes |= {f"v.blk.0.{name}.weight": (WIDTH,), f"v.blk.0.{name}.bias": (WIDTH,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, noise.normal(0, 0.1, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
