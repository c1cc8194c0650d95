"""What several `chaku weights` commands take."""

from __future__ import annotations

import re
from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def _size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B)?", value.strip().upper())
    if not match or not (num_bytes := int(float(match[1]) * _UNITS[match[2] or ""])):
        raise click.BadParameter(f"{value!r} is not a size; write 5GB, 500MB or 4GiB", ctx, param)
    return num_bytes


output_option = click.option("-o", "--output", metavar="FOLDER", type=FOLDER, required=True, help="Folder to write.")
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace what is at the output, once the new one is whole."
)
shard_option = click.option(
    "--shard-size",
    "shard_bytes",
    metavar="SIZE",
    callback=_size,
    default="5GB",
    show_default=True,
    help="Largest file.",
)
