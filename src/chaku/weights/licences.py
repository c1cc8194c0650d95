"""Licences in the words that model hubs read: an identifier of their list, or `other` with a name and a link.

The list is that of https://huggingface.co/docs/hub/repositories-licenses, as far as models use it.
"""

from __future__ import annotations

import re

_KNOWN = frozenset(
    {
        "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
        "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause",
        "bsd-3-clause-clear", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
        "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "epl-2.0", "eupl-1.1", "eupl-1.2",
        "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "llama2", "llama3",
        "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma", "mpl-2.0", "ms-pl", "ncsa", "odc-by", "odbl", "osl-3.0",
        "unlicense", "wtfpl", "zlib", "unknown",
    }
)  # fmt: skip
_SPELT = {
    "gemma terms of use": "gemma",
    "llama 2 community license agreement": "llama2",
    "apache license 2.0": "apache-2.0",
}


def hub_fields(licence: str, url: str | None = None) -> dict[str, str]:
    """The fields of a card's front matter for a licence as people write it."""
    plain = licence.strip().lower()
    known = _SPELT.get(plain, plain)
    if known in _KNOWN:
        return {"license": known}
    fields = {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", plain).strip("-") or "other"}
    return fields | ({"license_link": url} if url else {})
