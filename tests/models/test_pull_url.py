from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from chaku.errors import ModelError, UsageError
from chaku.models.fetch import cache, url
from chaku.models.fetch.pull import pull
from chaku.models.reference import Reference, parse
from file_server import FileServer, Page
from gguf_files import gguf_bytes, llama_values, tensor
from pull_process import start_pull

MODEL = gguf_bytes(llama_values(), [tensor(shape=(64, 2000))])
SHA = hashlib.sha256(MODEL).hexdigest()

pytestmark = pytest.mark.usefixtures("models_dir")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url, "_PAUSE_S", 0)


def reference(server: FileServer, sha256: str = SHA) -> Reference:
    return parse(f"{server.url}/m/tiny.gguf#sha256={sha256}").reference


def files(models_dir: Path) -> set[str]:
    return {file.name for file in models_dir.rglob("*") if file.is_file() and not file.name.endswith(".lock")}


def test_a_file_is_fetched_once_and_found_again_without_the_network(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL)
    seen: list[tuple[str, int, int | None]] = []
    model = pull(reference(server), progress=lambda *step: seen.append(step))
    assert model.path.read_bytes() == MODEL
    assert ("download", len(MODEL), len(MODEL)) in seen
    assert [done for phase, done, _ in seen if phase == "download"] == sorted(d for p, d, _ in seen if p == "download")
    assert pull(reference(server)) == model
    assert server.gets() == {"/m/tiny.gguf": 1}


def test_a_broken_connection_is_resumed_where_it_stopped(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL, cut_at=[100_000, 50_000])
    assert pull(reference(server)).path.read_bytes() == MODEL
    assert [wanted for _, _, wanted in server.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_server_without_ranges_sends_it_all_again(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL, cut_at=[100_000], ranges=False)
    assert pull(reference(server)).path.read_bytes() == MODEL


def test_a_later_pull_continues_what_an_earlier_one_gave_up(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL, cut_at=[100_000, 0, 0, 0])
    with pytest.raises(ModelError, match=r"stopped after 100,000 bytes.*it continues there"):
        pull(reference(server))
    assert cache.find(reference(server)) is None
    assert pull(reference(server)).path.read_bytes() == MODEL
    assert server.requests[-1][2] == "bytes=100000-"


def test_a_wrong_hash_is_refused_and_nothing_stays(server: FileServer, models_dir: Path) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL)
    with pytest.raises(ModelError, match=f"has sha256 {SHA}, not {'0' * 64}"):
        pull(reference(server, "0" * 64))
    assert files(models_dir) == set()


def test_a_file_with_the_right_hash_that_is_no_model_is_not_vouched_for(server: FileServer) -> None:
    page = b"<html>" * 100
    server.pages["/m/tiny.gguf"] = Page(page)
    wanted = reference(server, hashlib.sha256(page).hexdigest())
    with pytest.raises(ModelError, match="not a usable GGUF"):
        pull(wanted)
    assert cache.find(wanted) is None


def test_a_missing_file_is_said_at_once(server: FileServer) -> None:
    with pytest.raises(ModelError, match="HTTP 404"):
        pull(reference(server))
    assert len(server.requests) == 1


def test_a_dead_server_is_said_in_one_line() -> None:
    with pytest.raises(ModelError, match="refused") as caught:
        pull(parse(f"http://127.0.0.1:9/tiny.gguf#sha256={SHA}").reference)
    assert "\n" not in str(caught.value)


def test_a_redirect_away_from_encryption_is_refused(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(status=302, headers={"Location": "http://192.0.2.1/tiny.gguf"})
    with pytest.raises(ModelError, match=r"redirects to http://192\.0\.2\.1/tiny\.gguf, without encryption"):
        pull(reference(server))


def test_a_redirect_on_loopback_is_followed(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(status=302, headers={"Location": f"{server.url}/there"})
    server.pages["/there"] = Page(MODEL)
    assert pull(reference(server)).path.name == "tiny.gguf"


def test_too_small_a_disk_is_said_before_fetching(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ModelError, match=r"0 MB free, this model needs 1 MB.*CHAKU_CACHE"):
        pull(reference(server))


def test_a_disk_that_fills_up_on_the_way_is_said_and_leaves_no_model(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))  # a real write error in the middle
    try:
        with pytest.raises(ModelError, match=r"can't write to .*File too large"):
            pull(reference(server))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert cache.find(reference(server)) is None


def test_a_damaged_or_shortened_file_is_fetched_anew(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL)
    model = pull(reference(server))
    os.truncate(model.path, 1000)
    assert cache.find(reference(server)) is None
    assert pull(reference(server)).path.read_bytes() == MODEL


def test_two_processes_fetch_once_and_both_succeed(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL)
    source = f"{server.url}/m/tiny.gguf#sha256={SHA}"
    answers = [child.communicate(timeout=60) for child in [start_pull(source) for _ in range(3)]]
    assert [error for _, error in answers] == ["", "", ""]
    assert len({path for path, _ in answers}) == 1
    assert server.gets() == {"/m/tiny.gguf": 1}


def test_one_that_waits_says_so_and_takes_over_from_a_dead_one(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL, hang=True)
    child = start_pull(f"{server.url}/m/tiny.gguf#sha256={SHA}")
    assert server.half_sent.wait(30)
    phases: list[str] = []

    def end_the_other(phase: str, _done: int, _total: int | None) -> None:
        phases.append(phase)
        if len(phases) == 1:
            server.pages["/m/tiny.gguf"].hang = False
            os.killpg(child.pid, signal.SIGKILL)

    assert pull(reference(server), progress=end_the_other).path.read_bytes() == MODEL
    assert phases[0] == "wait"
    child.communicate(timeout=30)


def test_kill_9_in_the_middle_leaves_nothing_that_is_taken_for_a_model(server: FileServer) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL, hang=True)
    child = start_pull(f"{server.url}/m/tiny.gguf#sha256={SHA}")
    assert server.half_sent.wait(30)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    assert cache.pulled() == []
    server.pages["/m/tiny.gguf"].hang = False
    assert pull(reference(server)).path.read_bytes() == MODEL


def test_what_has_no_file_is_not_pulled() -> None:
    with pytest.raises(UsageError, match="upstream models have no file"):
        pull(parse("http://gpu/v1").reference)


def test_a_removed_model_is_gone(server: FileServer, models_dir: Path) -> None:
    server.pages["/m/tiny.gguf"] = Page(MODEL)
    model = pull(reference(server))
    assert parse(model.source).reference == reference(server), "what the list shows can be given to rm"
    assert cache.remove(reference(server)) > len(MODEL)
    assert files(models_dir) == set()
    with pytest.raises(ModelError, match="is not pulled"):
        cache.remove(reference(server))


def test_a_cache_that_can_t_be_a_folder_is_said(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"can't write to .*CHAKU_CACHE"):
        pull(reference(server))
