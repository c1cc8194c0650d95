"""Host headers in every spelling, origins, and Authorization headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.config import load
from chaku.errors import AuthenticationFailed, ConfigError, PermissionRefused
from chaku.serve.access import Access, host_name
from chaku.settings import ServeConfig
from gateways import Keys


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8000", "localhost"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:8000", "::1"),
        ("::1", ""),
        ("[fe80::1%eth0]:1", "fe80::1%eth0"),
        ("a.b.c:1", "a.b.c"),
        ("[unclosed", ""),
        ("", ""),
        (":8000", ""),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name


@given(st.text(max_size=40))
def test_no_host_header_breaks_the_parser_or_gets_in_by_accident(text: str) -> None:
    access = Access(ServeConfig(), Keys())
    host = text.encode("latin-1", "ignore")
    try:
        access.check_host(host)
    except PermissionRefused:
        return
    name = host_name(host.decode("latin-1"))
    assert name in access._host_names or set(name) <= set("0123456789abcdef.:%") or "%" in name


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"localhost.evil.example",
        b"127.0.0.1.evil.example:80",
        b"[localhost]evil.com",
        b"[localhost]",
        b"[::1].evil.com:80",
        b"localhost:evil.com",
        b"fe80::1%evil.com",
        b"[fe80::1%evil.com]",
        b"localhost:80:80",
        b"user@localhost",
        b"",
        None,
    ],
)
def test_names_that_a_rebinding_page_could_have_are_refused(host: bytes | None) -> None:
    with pytest.raises(PermissionRefused):
        Access(ServeConfig(), Keys()).check_host(host)


@pytest.mark.parametrize("host", [b"localhost:1", b"127.0.0.1", b"[::1]:8000", b"10.1.2.3:8000", b"GPU-box.lan:8000"])
def test_addresses_and_configured_names_are_let_in(host: bytes) -> None:
    Access(ServeConfig(allowed_hosts=("gpu-box.LAN",)), Keys()).check_host(host)


def test_the_memory_of_hosts_is_bounded() -> None:
    access = Access(ServeConfig(), Keys())
    for number in range(3000):
        with pytest.raises(PermissionRefused):
            access.check_host(b"host-%d.example" % number)
    assert len(access._known_hosts) <= 1000


@pytest.mark.parametrize(
    ("origin", "host", "named"),
    [
        (None, b"localhost:8000", None),
        (b"http://localhost:8000", b"localhost:8000", None),
        (b"http://LOCALHOST:8000", b"localhost:8000", None),
        (b"https://app.example", b"localhost:8000", "https://app.example"),
        (b"HTTPS://APP.example", b"localhost:8000", "HTTPS://APP.example"),
    ],
)
def test_origins_that_may_come_in(origin: bytes | None, host: bytes, named: str | None) -> None:
    access = Access(ServeConfig(cors_origins=("https://app.example/",)), Keys())
    assert access.check_origin(origin, host) == named


@pytest.mark.parametrize(
    "origin",
    [
        b"null",
        b"",
        b"http://localhost:9000",
        b"https://app.example.evil",
        b"http://app.example",
        b"file://",
        b"\xff\xfe",
        b"http://[",
        b"ftp://localhost:8000",
    ],
)
def test_other_origins_are_refused(origin: bytes) -> None:
    access = Access(ServeConfig(cors_origins=("https://app.example",)), Keys())
    with pytest.raises(PermissionRefused):
        access.check_origin(origin, b"localhost:8000")


@pytest.mark.parametrize("header", [None, b"", b"Bearer", b"Bearer ", b"Raw ck-right", b"ck-right", b"Bearer ck-wrong"])
def test_without_the_right_key_nobody_comes_in(header: bytes | None) -> None:
    with pytest.raises(AuthenticationFailed):
        Access(ServeConfig(), Keys({"ck-right": "k1"})).identify(header)


@pytest.mark.parametrize("header", [b"Bearer ck-right", b"bearer ck-right", b"BEARER  ck-right "])
def test_the_right_key_opens_the_door(header: bytes) -> None:
    assert Access(ServeConfig(), Keys({"ck-right": "k1"})).identify(header).key_id == "k1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu-box.lan"])
def test_any_other_bind_address_needs_a_key(host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Access(ServeConfig(host=host), Keys())
    assert f"--host {host}" in caught.value.message
    assert "chaku keys create" in str(caught.value.fix)
    Access(ServeConfig(host=host), Keys({"ck-right": "k1"}))


@pytest.mark.parametrize("origin", [b"null", b"http://[", b"https://a b", b"x" * 200])
def test_what_is_no_origin_is_never_suggested_for_cors(origin: bytes) -> None:
    with pytest.raises(PermissionRefused) as caught:
        Access(ServeConfig(), Keys()).check_origin(origin, b"localhost:8000")
    assert caught.value.fix is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("cors_origins", value) for value in ("null", "app.example", "https://a.example/path", "https://a b", "")),
        *(("allowed_hosts", value) for value in ("http://a.example", "a.example:80", "a b", "")),
    ],
)
def test_names_and_origins_that_could_never_match_are_refused_at_start(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(ServeConfig, flags={key: (value,)})
    assert repr(value) in caught.value.message


@pytest.mark.parametrize(
    ("peer", "is_trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),  # as a socket for both kinds shows it
        ("::ffff:a01:203", True),
        ("2002:a01:203::1", False),  # 6to4: the outer address is anybody's
        ("64:ff9b::a01:203", False),
        ("11.1.2.3", False),
        ("fd00::7", True),
        ("", False),
        ("10.1.2.3.evil", False),
    ],
)
def test_an_ipv4_address_counts_as_itself_in_an_ipv6_coat_of_its_own_machine(peer: str, is_trusted: bool) -> None:
    access = Access(ServeConfig(trusted_proxies=("10.0.0.0/8", "fd00::/8")), Keys())
    assert access.trusts(peer) is is_trusted
    assert access.client_of(peer, "203.0.113.9") == ("203.0.113.9" if is_trusted else peer)
