"""The page's source: types, pure logic, and the rules that keep it small and safe. No browser."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chaku.web.page import MAIN, STATIC, PageFiles, modules_needed
from web import node_tools

HERE = Path(__file__).parent


def ours(ending: str) -> list[Path]:
    """Our files with this ending, in whatever folder they lie; not the libraries."""
    return sorted(p for p in STATIC.rglob(f"*{ending}") if not p.is_relative_to(STATIC / "vendor"))


def named(path: Path) -> str:
    return path.relative_to(STATIC).as_posix()


MODULES = ours(".js")
FIRST_LOAD_LIMIT = 150_000  # bytes, gzip


def test_the_pure_modules_do_what_their_tests_in_node_say():
    files = sorted(str(path) for path in (HERE / "js").glob("*.test.mjs"))
    assert files
    done = subprocess.run([*node_tools.node(), "--test", *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_in_the_comments_hold(tmp_path):
    shutil.copytree(STATIC, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("vendor"))
    shutil.copy(HERE / "tsconfig.json", tmp_path)
    shutil.copytree(HERE / "types" / "vendor", tmp_path / "vendor")  # the libraries as far as the page uses them
    (tmp_path / "node_modules").symlink_to(node_tools.modules())
    compiler = node_tools.modules() / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [*node_tools.node(), str(compiler), "-p", "."], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_module_is_long(path):
    assert len(path.read_text().splitlines()) <= 300


def test_elements_are_made_from_text_in_one_module_only():
    sinks = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|dangerouslySet|\beval\(")
    assert [named(path) for path in MODULES if sinks.search(path.read_text())] == []
    assert [named(p) for p in MODULES if "createPolicy" in p.read_text()] == ["markdown/sanitise.js"]


def test_nothing_is_named_that_lies_elsewhere():
    for path in [*MODULES, STATIC / "index.html", *ours(".css")]:
        found = re.findall(r"""(?:from|import\(|src=|href=|url\()\s*["']?(https?:[^"')\s]+)""", path.read_text())
        assert found == [], named(path)


LAYERS = ("reset", "tokens", "kit", "screens")


@pytest.mark.parametrize("path", ours(".css"), ids=named)
def test_every_rule_stands_in_a_layer_so_that_screens_win_over_the_kit(path):
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    outside = re.sub(r"^@layer (\w+) \{$.*?^\}$", r"\1", text, flags=re.DOTALL | re.MULTILINE).split()
    if named(path) == "app/tokens.css":  # the first sheet says their order
        assert " ".join(outside[:5]) == f"@layer {', '.join(LAYERS)};"
        outside = outside[5:]
    assert outside and set(outside) <= set(LAYERS)
    on_demand = named(path) not in first_load()
    assert not on_demand or outside in (["kit"], ["screens"])


def test_index_html_has_no_inline_script_or_style():
    html = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html) == []


def read(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.js")}


def test_modules_needed_at_once_are_found_through_folders_and_not_those_on_demand():
    files = {
        "a/main.js": b'/** @import {X} from "./t.js" */\nimport {\n  b,\n} from "../b/b.js";\nimport("../late.js")',
        "b/b.js": b'export * from "./c.js";\nimport"../d.js"',
        "b/c.js": b"",
        "d.js": b'import { b } from "./b/b.js";',
        "late.js": b"",
        "a/t.js": b"",
    }
    assert modules_needed(files, "a/main.js") == ["a/main.js", "b/b.js", "b/c.js", "d.js"]


def test_the_page_preloads_the_modules_that_are_needed_at_once():
    preloaded = re.findall(r'rel="modulepreload" href="/assets/\w{16}/([^"]+)"', PageFiles()._index)
    assert {"vendor/preact.js", "chat/composer.js"} <= set(preloaded)
    assert sorted([*preloaded, MAIN]) == modules_needed(read(STATIC), MAIN)


def first_load() -> list[str]:
    """Every file that the browser fetches before the first chat is shown."""
    styles = re.findall(r'href="{{assets}}/([^"]+\.css)"', (STATIC / "index.html").read_text())
    assert len(styles) >= 4
    return [*modules_needed(read(STATIC), MAIN), *styles, "index.html", "icon.svg"]


def first_load_bytes() -> int:
    return sum(len(gzip.compress((STATIC / name).read_bytes(), 9)) for name in first_load())


def test_the_first_load_is_within_its_budget():
    assert first_load_bytes() <= FIRST_LOAD_LIMIT
