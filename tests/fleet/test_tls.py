"""HTTPS on gateway and worker: a certificate is shown, and a gateway talks only to the worker that it belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from certificates import certificate, needs_openssl
from chaku.cli.gateway_here import ps
from chaku.errors import ConfigError
from chaku.serve.tls import read_tls
from chaku.settings import ServeConfig
from chaku_server import serving
from waiting import eventually
from workers import worker


@needs_openssl
def test_a_worker_with_a_certificate_of_its_own_joins_a_gateway_over_https(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate(tmp_path, "gateway")
    own, own_key = certificate(tmp_path, "worker")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    tls = ("--tls-cert", str(cert), "--tls-key", str(key))
    with serving(tmp_path, *tls, wait=False) as gateway:
        assert gateway.url.startswith("https://127.0.0.1:")
        arguments = ("--join", gateway.url, "--name", "w", "--tls-cert", str(own), "--tls-key", str(own_key))
        with worker(tmp_path, "m=scripted:", *arguments, SSL_CERT_FILE=str(cert)) as w:
            rows = eventually(lambda: gateway.get("/fleet")[1]["workers"], why=lambda: w.log)
            assert rows[0]["url"].startswith("https://")
            eventually(lambda: gateway.get("/fleet")[1]["workers"][0]["state"] == "ready")
            shown = CliRunner().invoke(ps, ["--port", gateway.url.rpartition(":")[2]]).stdout.splitlines()
            assert shown[0].startswith(f"{gateway.url}  chaku ") and shown[2].split()[:2] == ["m", "ready"]
            body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
            status, answer = gateway.post("/v1/chat/completions", body)
            assert (status, answer["choices"][0]["message"]["content"]) == (200, "You said: hello")


@needs_openssl
def test_files_that_are_no_pair_are_refused_at_start(tmp_path: Path) -> None:
    cert, _ = certificate(tmp_path, "one")
    _, other_key = certificate(tmp_path, "two")
    for pair in ({"tls_cert": cert}, {"tls_key": other_key}, {"tls_cert": cert, "tls_key": other_key}):
        with pytest.raises(ConfigError, match=r"tls|TLS"):
            read_tls(ServeConfig(**pair))
    with pytest.raises(ConfigError, match="can't be used"):
        read_tls(ServeConfig(tls_cert=tmp_path / "none.pem", tls_key=tmp_path / "none.pem"))
    assert read_tls(ServeConfig()) is None
