"""Which addresses a worker may name as its own."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaku.errors import InvalidRequest
from chaku.serve.fleet.addresses import CheckedResolver, check_url, why_not


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254:80",
        "http://[::ffff:169.254.169.254]:80",
        "http://[64:ff9b::a9fe:a9fe]:80",
        "http://[2002:a9fe:a9fe::]:80",
        "http://[fd00:ec2::254]:80",
        "http://100.100.100.200:80",
        "http://168.63.129.16:80",
        "http://[fe80::1]:80",
        "http://0.0.0.0:80",
        "http://[::]:80",
        "http://224.0.0.1:80",
        "http://127.0.0.1:80",
        "http://[::1]:80",
        "http://[::ffff:127.0.0.1]:80",
        "file:///etc/passwd",
        "http://user:pass@10.0.0.1:80",
        "http://10.0.0.1:80/path",
        "http://10.0.0.1:80?x",
        "http://10.0.0.1",
        "http://10.0.0.1:99999",
        "http://:80",
        "",
    ],
)
def test_addresses_that_a_worker_may_not_name(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_url(url, allow_loopback=False)
    assert caught.value.param == "url"


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:80", "https://gpu-1.example:9001", "http://[fd12::1]:80", "http://8.8.8.8:1"]
)
def test_addresses_that_it_may(url: str) -> None:
    assert check_url(url, allow_loopback=False) == url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:80", "http://127.0.0.2:80", "http://[::1]:80", "http://localhost:80"]
)
def test_loopback_is_for_workers_on_this_machine(url: str) -> None:
    assert check_url(url, allow_loopback=True) == url


@given(st.integers(0, 2**16 - 1))
def test_no_spelling_of_a_link_local_address_passes(low: int) -> None:
    four = ipaddress.IPv4Address((169 << 24) + (254 << 16) + low)
    for address in (four, ipaddress.IPv6Address(f"::ffff:{four}"), ipaddress.IPv6Address((0x64FF9B << 96) + int(four))):
        assert why_not(address, allow_loopback=True)


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f.1"])
async def test_a_name_that_leads_to_loopback_is_refused_when_it_is_looked_up(host: str) -> None:
    with pytest.raises(OSError, match=r"loopback|[Nn]ame|known|address"):
        await CheckedResolver(allow_loopback=False).resolve(host, 80)
