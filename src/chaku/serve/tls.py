"""The certificate that a gateway or a worker shows, where it serves HTTPS by itself."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass

from chaku.errors import ConfigError
from chaku.settings import ServeConfig


@dataclass(frozen=True)
class Tls:
    """Files of a certificate and its key, which fit each other."""

    certificate: str
    key: str
    fingerprint: str
    """sha256 of the certificate, in hex: a gateway talks to a worker that shows it, whoever signed it."""


def read_tls(config: ServeConfig) -> Tls | None:
    """The settings' certificate; None where there is none. Raises ConfigError for files that can't be used."""
    if config.tls_cert is None and config.tls_key is None:
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise ConfigError("--tls-cert and --tls-key need each other", fix="give both, or none", param="tls_cert")
    certificate, key = str(config.tls_cert), str(config.tls_key)
    fix = "--tls-cert takes a certificate and --tls-key its private key without a password, both as PEM"
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
        pem = config.tls_cert.read_text()
        first = pem[pem.index("-----BEGIN CERTIFICATE-----") : pem.index("-----END CERTIFICATE-----") + 25]
        encoded = ssl.PEM_cert_to_DER_cert(first)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{certificate} and {key} can't be used for TLS: {reason}", fix=fix, param="tls_cert"
        ) from None
    return Tls(certificate, key, hashlib.sha256(encoded).hexdigest())
