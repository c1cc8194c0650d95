"""The page's files: what is sent with them, how they are cached, and what is there without them."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

import chaku.web.page
from chaku.serve.batches.routes import add_batch_routes
from chaku.serve.server import Serving
from gateways import gateway, page_gateway
from tabs import Tab, tab

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types chaku dompurify"
)


@pytest.fixture
def static(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    (folder / "vendor" / "fonts").mkdir(parents=True)
    (folder / "index.html").write_text('<!doctype html><script type="module" src="{{assets}}/app.js"></script>')
    (folder / "app.js").write_text("export const words = 'many words';\n" * 100)
    (folder / "small.css").write_text("a{}")
    (folder / "vendor" / "manifest.json").write_text("{}")
    (folder / "vendor" / "fonts" / "a.woff2").write_bytes(b"wOF2" * 500)
    (folder / "notes.py").write_text("secret = 1")
    (tmp_path / "outside.js").write_text("secret")
    return folder


async def assets(me: Tab, page: str = "/") -> str:
    """Where today's files are."""
    status, html, _ = await me.raw("GET", page)
    assert status == 200
    (found,) = re.findall(rb'src="(/assets/[0-9a-f]{16})/app.js"', html)
    return found.decode()


async def test_every_answer_of_the_page_carries_the_strict_headers(database: Path, static: Path) -> None:
    async with page_gateway(database, static=static) as g, tab(g) as me:
        root = await assets(me)
        files = ("/", "/chat/x", f"{root}/app.js", f"{root}/vendor/fonts/a.woff2")
        for path in (*files, "/api/session", "/api/none", "/api/chats"):
            _, _, headers = await me.raw("GET", path)
            assert headers.getall("content-security-policy") == [POLICY], path
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-opener-policy"] == "same-origin"


async def test_the_page_is_never_cached_and_its_files_for_ever_under_names_that_change_with_them(
    database: Path, static: Path
) -> None:
    async with page_gateway(database, static=static) as g, tab(g) as me:
        root = await assets(me)
        for path in ("/chat", "/chat/some-id"):
            assert await assets(me, path) == root
        assert (await me.raw("GET", "/"))[2]["cache-control"] == "no-store"
        _, content, headers = await me.raw("GET", f"{root}/app.js")
        assert headers["cache-control"] == "public, max-age=31536000, immutable"
        assert headers["content-type"] == "text/javascript; charset=utf-8"
        assert content == (static / "app.js").read_bytes()
        (static / "app.js").write_text("export const words = 'new words';")
        new = await assets(me)
        assert new != root
        status, content, headers = await me.raw("GET", f"{root}/app.js")  # a tab from before
        assert (status, content, headers["cache-control"]) == (200, b"export const words = 'new words';", "no-store")


async def test_files_are_compressed_for_whoever_takes_it(database: Path, static: Path) -> None:
    async with page_gateway(database, static=static) as g, tab(g) as me:
        root = await assets(me)
        whole = (static / "app.js").read_bytes()
        for accepts, encoding in (("gzip, deflate, br", "gzip"), ("identity", None), ("gzip;q=0, br", None)):
            headers = {"accept-encoding": accepts}
            async with me.http.get(f"{g.url}{root}/app.js", headers=headers, auto_decompress=False) as response:
                content = await response.read()
                assert response.headers.get("content-encoding") == encoding
                assert response.headers["vary"] == "accept-encoding"
            assert (gzip.decompress(content) if encoding else content) == whole
            assert (len(content) < len(whole) / 5) is bool(encoding)
        for name in ("small.css", "vendor/fonts/a.woff2"):
            assert "content-encoding" not in (await me.raw("GET", f"{root}/{name}"))[2]


async def test_nothing_else_is_served(database: Path, static: Path) -> None:
    async with page_gateway(database, static=static) as g, tab(g) as me:
        root = await assets(me)
        for name in ("notes.py", "none.js", "../outside.js", "%2e%2e/outside.js", "vendor", "", "/etc/hostname"):
            status, content, _ = await me.raw("GET", f"{root}/{name}")
            assert (status, b"secret" in content) == (404, False), name


async def test_without_its_files_the_api_answers_and_the_page_says_what_to_do(database: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    async with page_gateway(database, static=tmp_path / "empty") as g, tab(g) as me:
        status, html, headers = await me.raw("GET", "/")
        assert (status, b"make page" in html, headers["content-security-policy"]) == (503, True, POLICY)
        assert (await me.call("GET", "/session"))["user"]["name"] == "local"


async def test_without_a_page_the_gateway_has_the_api_alone() -> None:
    async with gateway() as g:
        for path in ("/", "/api/session", "/chat"):
            async with g.http.get(g.url + path) as response:
                assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")


async def test_the_apis_description_does_not_change_with_the_page(database: Path) -> None:
    def extend(serving: Serving, _url: str) -> None:
        add_batch_routes(serving.app, None)

    async with gateway(extend=extend) as plain, page_gateway(database) as paged:
        described = [await (await g.http.get(g.url + "/openapi.json")).json() for g in (plain, paged)]
    assert described[0] == described[1]


def test_the_libraries_are_there_whole_and_with_their_licences() -> None:
    vendor = chaku.web.page.STATIC / "vendor"
    if not vendor.exists():
        pytest.skip("the page's libraries were not fetched (make page)")
    names = (
        "uplot/uplot.js",
        "preact.js",
        "hooks.js",
        "htm.js",
        "markdown-it.js",
        "dompurify.js",
        "highlight/core.js",
        "katex/katex.js",
    )
    for name in (*names, "katex/katex.css", "highlight/languages/python.js"):
        assert (vendor / name).stat().st_size > 500, name
    assert len(list((vendor / "licences").iterdir())) == 7
    for script in vendor.rglob("*.js"):
        bare = re.findall(rb"""\b(?:from|import)\s*["'](\w[\w@/.-]*)["']""", script.read_bytes())
        assert not bare, f"{script.name} imports {bare} by a name that no import map resolves"


async def test_a_browser_that_goes_to_any_screen_gets_the_page_and_a_program_that_errs_is_told(database: Path) -> None:
    async with page_gateway(database) as g, tab(g) as me:
        browser, program = {"accept": "text/html,*/*;q=0.8"}, {"accept": "application/json"}
        for path in ("/", "/chat/x", "/training", "/training/run%201?with=a", "/library", "/a/screen/to/come"):
            status, html, headers = await me.raw("GET", path, headers=browser)
            assert (status, b'id="app"' in html, headers["content-security-policy"]) == (200, True, POLICY), path
        for path in ("/v1/nothing", "/api/nothing", "/assets/x/none.js", "/favicon.ico", "/health/x"):
            assert (await me.raw("GET", path, headers=browser))[0] == 404, path
        status, answer, _ = await me.raw("GET", "/trainings", headers=program)
        assert (status, b"not_found" in answer) == (404, True)
