"""Certificates of this machine, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A new certificate of this machine, signed by itself, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += [
        "-subj",
        f"/CN={name}",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-out",
        str(cert),
        "-keyout",
        str(key),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key
