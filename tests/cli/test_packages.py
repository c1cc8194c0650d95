"""Every extra brings all that its commands import, a command that lacks one says so, and imports stand at the top."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from chaku import packages
from chaku.cli.main import root
from chaku.errors import UsageError
from cli.imports import FILES, imports_of, imports_of_node, installed_by, third_party
from empty_environment import ROOT

CLI = sorted(name for name in FILES if name.startswith("chaku.cli"))
ROOM_OF_EXTRA = {
    "data": ("data",), "train": ("train", "weights"), "local": ("engines",), "transformers": ("engines.transformers",),
    "otel": ("serve.traces",),
}  # fmt: skip
OPTIONAL = {
    "vllm", "sglang", "trackio", "wandb", "tensorboard", "torch_xla", "requests", "PIL", "xllamacpp", "psycopg", "pip",
    "huggingface_hub",
}  # fmt: skip
"""Asked for where they are used, with an error of their own."""


def test_every_extra_has_its_proof_in_an_empty_environment() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    proofs = (ROOT / "tests/conformance/test_extras.py").read_text()
    assert set(re.findall(r"^def test_extra_(\w+)", proofs, re.MULTILINE)) == set(extras)


@pytest.mark.parametrize("module", CLI)
def test_the_top_of_every_command_file_imports_what_the_base_install_has(module):
    assert third_party(module) <= installed_by(None)


@pytest.mark.parametrize("module", CLI)
def test_an_import_inside_a_function_is_of_something_that_only_an_extra_brings(module):
    top = ast.parse(FILES[module].read_text()).body
    functions = [node for node in top if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        for name in imports_of_node(function):
            if name.partition(".")[0] in sys.stdlib_module_names:
                continue
            assert not third_party(name) <= installed_by(None), f"{module}.{function.name} imports {name} late"


@pytest.mark.parametrize("extra", list(ROOM_OF_EXTRA))
def test_an_extra_brings_every_package_that_its_part_imports_anywhere(extra):
    rooms = tuple(f"chaku.{room}." for room in ROOM_OF_EXTRA[extra])
    others = tuple(f"chaku.{room}." for other in ROOM_OF_EXTRA for room in ROOM_OF_EXTRA[other] if other != extra)
    rooms_within = tuple(room for room in others if room.startswith(rooms))
    named = {
        name.partition(".")[0]
        for module in FILES
        if module.startswith(rooms) and not module.startswith(rooms_within)
        for name in imports_of(module, inside=True)
    }
    lacking = named - {"chaku"} - set(sys.stdlib_module_names) - OPTIONAL - installed_by(extra)
    assert not lacking


def test_a_missing_package_is_named_with_the_command_of_this_interpreter(monkeypatch):
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: None if name in ("pyarrow", "rensa") else real(name))
    with pytest.raises(UsageError, match="pyarrow, rensa are not installed") as caught:
        CliRunner().invoke(root, ["data", "build", "x.json", "-o", "out"], catch_exceptions=False)
    assert caught.value.fix == packages.install_command("data")


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (
            '{"url": "file:///me/my%20clone", "dir_info": {"editable": true}}',
            "--editable '/me/my clone[data]'",
        ),
        ('{"url": "file:///srv/chaku", "dir_info": {}}', "'/srv/chaku[data]'"),
        ('{"url": "file:///tmp/chaku-0.1-py3-none-any.whl"}', "'/tmp/chaku-0.1-py3-none-any.whl[data]'"),
        (None, "'chaku[data]'"),
    ],
)
def test_a_missing_extra_is_installed_from_where_chaku_came_from(monkeypatch, record, wanted):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return record

    monkeypatch.setattr(packages.importlib.metadata, "distribution", lambda _: Installed())
    assert packages.install_command("data") == f"{shlex.quote(sys.executable)} -m pip install {wanted}"


def test_an_archive_of_the_net_is_named_by_its_address(monkeypatch):
    record = '{"url": "https://host/chaku.tar.gz", "archive_info": {}}'
    installed = SimpleNamespace(read_text=lambda _: record)
    monkeypatch.setattr(packages.importlib.metadata, "distribution", lambda _: installed)
    assert packages.install_command("data").endswith(" 'chaku[data] @ https://host/chaku.tar.gz'")


def test_the_list_of_packages_is_the_one_that_pip_reads():
    assert {"pyarrow", "rensa", "selectolax"} <= set(packages.packages_of("data"))
    assert packages.packages_of("local") == ["xllamacpp"]
