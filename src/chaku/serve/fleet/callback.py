"""The call-back: the gateway connects to a worker's URL before it believes it.

The process there proves that it holds the key that the join carried. The key itself is not sent.
"""

from __future__ import annotations

import asyncio
import secrets

from pydantic import ValidationError

from chaku.errors import ChakuError, InvalidRequest
from chaku.http_out import NEVER_AGAIN, Transport
from chaku.protocol.fleet import Join, Proof, is_proof
from chaku.serve.fleet.addresses import CheckedResolver

CALL_BACK_S = 3.0
_MAX_BYTES = 4096


async def call_back(join: Join, *, allow_loopback: bool) -> None:
    """Return if the process that sent `join` answers at its URL.

    Raises InvalidRequest with the address that was tried and what to do. Follows no redirect.
    """
    nonce = secrets.token_hex(16)
    resolver = CheckedResolver(allow_loopback=allow_loopback)
    transport = Transport(
        join.url,
        who=f"the worker at {join.url}",
        connect_s=CALL_BACK_S,
        silence_s=CALL_BACK_S,
        keepalive=False,
        resolver=resolver,
        certificate=join.certificate,
    )
    try:
        async with asyncio.timeout(2 * CALL_BACK_S):
            async with transport.request("GET", f"/fleet/self?nonce={nonce}", retries=NEVER_AGAIN) as response:
                content = await response.content.read(_MAX_BYTES)
                status = response.status
        if status != 200:
            raise _unreachable(join.url, f"something else answers there, with status {status}")
        proof = Proof.model_validate_json(content)
    except TimeoutError:
        raise _unreachable(join.url, "nothing came back in time") from None
    except ValidationError:
        raise _unreachable(join.url, "something that is not a worker answers there") from None
    except InvalidRequest:
        raise
    except ChakuError as error:
        raise _unreachable(join.url, error.message) from None
    finally:
        await transport.close()
    if not is_proof(proof, join.key, join.name, join.generation, nonce):
        raise _unreachable(join.url, "another worker answers there")


def _unreachable(url: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"the gateway can't call the worker back at {url}: {why}",
        fix="start the worker with --advertise URL, an address that the gateway reaches; "
        "or open a tunnel with ssh or cloudflared, see docs/fleet.md",
        code="worker_unreachable",
        param="url",
    )
