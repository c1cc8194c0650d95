"""The page's source: types, pure logic, and the rules that keep it small and safe. No browser."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from web import node_tools
from web.fake_page import STATIC

HERE = Path(__file__).parent
MODULES = sorted(STATIC.glob("*.js"))
FIRST_LOAD_LIMIT = 150_000  # bytes, gzip


def test_the_pure_modules_do_what_their_tests_in_node_say():
    files = sorted(str(path) for path in (HERE / "js").glob("*.test.mjs"))
    assert files
    done = subprocess.run([*node_tools.node(), "--test", *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_in_the_comments_hold(tmp_path):
    for path in MODULES:
        shutil.copy(path, tmp_path)
    shutil.copy(HERE / "tsconfig.json", tmp_path)
    shutil.copytree(HERE / "types" / "vendor", tmp_path / "vendor")  # the libraries as far as the page uses them
    (tmp_path / "node_modules").symlink_to(node_tools.modules())
    compiler = node_tools.modules() / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [*node_tools.node(), str(compiler), "-p", "."], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_module_is_long(path):
    assert len(path.read_text().splitlines()) <= 300


def test_elements_are_made_from_text_in_one_module_only():
    sinks = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|dangerouslySet|\beval\(")
    assert [path.name for path in MODULES if sinks.search(path.read_text())] == []
    assert [p.name for p in MODULES if "createPolicy" in p.read_text()] == ["sanitise.js"]


def test_nothing_is_named_that_lies_elsewhere():
    for path in [*MODULES, STATIC / "index.html", *STATIC.glob("*.css")]:
        found = re.findall(r"""(?:from|import\(|src=|href=|url\()\s*["']?(https?:[^"')\s]+)""", path.read_text())
        assert found == [], path.name


def test_index_html_has_no_inline_script_or_style():
    html = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html) == []


def imported_by(name: str, seen: set[str]) -> set[str]:
    """Every module that `name` needs before it runs."""
    for found in re.findall(
        r"""(?m)^(?:import|export)\b[^;"]*?["'](\.{1,2}/[^"']+)["']""", (STATIC / name).read_text()
    ):
        path = str((STATIC / name).parent.joinpath(found).resolve().relative_to(STATIC.resolve()))
        if path not in seen:
            seen.add(path)
            imported_by(path, seen)
    return seen


def test_index_html_preloads_exactly_the_modules_that_are_needed_at_once():
    preloaded = re.findall(r'rel="modulepreload" href="{{assets}}/([^"]+)"', (STATIC / "index.html").read_text())
    assert sorted(preloaded) == sorted(imported_by("main.js", set()) | {"vendor/preact.js"})


def test_the_first_load_is_within_its_budget():
    names = imported_by("main.js", {"main.js", "index.html", "vendor/preact.js", "icon.svg"})
    names |= {path.name for path in STATIC.glob("*.css")}
    total = sum(len(gzip.compress((STATIC / name).read_bytes(), 9)) for name in names)
    assert total <= FIRST_LOAD_LIMIT, f"{total} bytes"
