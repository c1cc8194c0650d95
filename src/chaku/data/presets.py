"""What each preset of a recipe says about data; `chaku.train.presets` has what it says about training."""

from __future__ import annotations

from typing import Any

from chaku.errors import ConfigError
from chaku.nearest import did_you_mean

DATA_PRESETS: dict[str, dict[str, Any]] = {
    "vicuna-7b": {"template": "vicuna_v1.1", "context": 2048},
    "vicuna-13b": {"template": "vicuna_v1.1", "context": 2048},
    "vicuna-7b-16k": {"template": "vicuna_v1.1", "context": 16384},
    "lora": {},
    "qlora": {},
    "tiny": {"context": 256, "pack_length": 256},
}


def data_preset(name: str | None) -> dict[str, Any]:
    """The data values of a preset; none without a preset. Raises ConfigError naming the nearest preset."""
    if name is None:
        return {}
    if name not in DATA_PRESETS:
        fix = did_you_mean(str(name), DATA_PRESETS, f"there are {', '.join(DATA_PRESETS)}")
        raise ConfigError(f"train.preset is {name!r}", fix=fix, param="train.preset")
    return DATA_PRESETS[name]
