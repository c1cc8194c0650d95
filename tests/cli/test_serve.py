"""`chaku serve` as a process: what it tells whoever started it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from chaku_server import chaku_environment, run_chaku


def test_whoever_started_it_may_use_it_where_the_store_has_keys(tmp_path: Path) -> None:
    assert run_chaku(tmp_path, "keys", "create", "me").returncode == 0
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "chaku", "serve", "scripted:", "--port", "0", "--no-ui"]
    process = subprocess.Popen(
        [*command, "--ready-fd", str(writing)],
        env=chaku_environment(tmp_path),
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as ready:
            told = json.loads(ready.readline())
        request = urllib.request.Request(
            f"{told['url']}/v1/models", headers={"Authorization": f"Bearer {told['api_key']}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert [row["id"] for row in json.load(answer)["data"]] == ["scripted"]
    finally:
        process.terminate()
        assert process.wait(15) == 0
