from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "modules",
    [
        "chaku.chat.render, chaku.chat.templates, chaku.chat.jinja, chaku.chat.stopping",
        "chaku.models.tokenizers.tokenizer",
    ],
)
def test_importing_loads_no_torch_no_tokenizers_and_no_jinja(modules: str) -> None:
    check = (
        f"import sys, {modules}; heavy = {{'torch', 'transformers', 'tokenizers', 'sentencepiece', 'jinja2', 'numpy'}};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, env={"PYTHONPATH": "src"}
    )
    assert done.stdout.strip() == "[]"
