"""API keys at rest: made, listed, revoked. A token is shown once; what stays is its sha256 and first characters."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from chaku.config import TOKEN_PREFIX
from chaku.errors import InvalidRequest, NotFound
from chaku.nearest import did_you_mean
from chaku.policies import Limits
from chaku.store.audit import Actor, note
from chaku.store.database import Store
from chaku.store.ids import new_id
from chaku.store.tables import visitors

MAX_NAME_LENGTH = 64
SCOPES = {
    "infer": "call the API",
    "page": "log in to the page",
    "metrics": "read /metrics and the table of workers",
    "admin": "do all of these, and drain, reload and read the logs of workers",
    "join": "add workers to the gateway, and nothing else",
}
"""The rights that a key may carry, and what each allows."""
DEFAULT_SCOPES = frozenset({"infer", "page"})
CALLER_SCOPES = frozenset({"infer", "page", "admin"})
"""A key with one of them belongs to a caller: while there is one, callers need a key and visitors a login."""
_SHOWN_CHARACTERS = len(TOKEN_PREFIX) + 6  # 36 of the token's 256 bits


@dataclass(frozen=True)
class Key:
    """One API key, without its token."""

    id: str
    name: str
    prefix: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    scopes: frozenset[str] = DEFAULT_SCOPES
    expires_at: datetime | None = None
    limits: Limits = field(default_factory=Limits)
    kind: Literal["key", "guest", "user"] = "key"

    def has_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def allows(self, scope: str) -> bool:
        """Whether its holder has a right. `admin` includes every right except `join`."""
        return scope in self.scopes or ("admin" in self.scopes and scope != "join")


KEY_FIELDS = (
    "id",
    "name",
    "prefix",
    "created_at",
    "last_used_at",
    "revoked_at",
    "scopes",
    "expires_at",
    "limits",
    "kind",
)
COLUMNS = sa.select(*(visitors.c[name] for name in KEY_FIELDS))
"""The columns of `key_of`, in its order."""
SELECT = COLUMNS.where(visitors.c.kind == "key")


def key_of(row: Sequence[Any]) -> Key:
    """The key in a row of SELECT."""
    values = dict(zip(KEY_FIELDS, row, strict=True))
    return Key(**values | {"limits": Limits.model_validate(values["limits"])})


@dataclass(frozen=True)
class NewKey:
    """A key just made, and the only sight of its token."""

    key: Key
    token: str = field(repr=False)


def digest(token: str | bytes) -> str:
    """What is stored of a token: sha256 in hex. Unsalted and fast is enough for 32 random bytes."""
    raw = token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token
    return hashlib.sha256(raw).hexdigest()


def create(
    store: Store,
    name: str,
    *,
    now: datetime,
    scopes: Iterable[str] = DEFAULT_SCOPES,
    expires_at: datetime | None = None,
    limits: Limits | None = None,
    by: Actor | None = None,
) -> NewKey:
    """Make a key. `by` is who asked for it, for the audit log; None is the user of the shell.

    Raises InvalidRequest where the name is empty, too long, odd, or an active key's, and for an unknown scope.
    """
    wanted, limits = _checked(scopes), limits or Limits()
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable() or name != name.strip():
        raise InvalidRequest(
            f"key name {name!r} is not 1 to {MAX_NAME_LENGTH} printable characters without spaces around them",
            fix="choose another name",
            param="name",
        )
    if name.startswith(TOKEN_PREFIX):  # most likely a token, which must not be stored
        raise InvalidRequest(
            f"a key's name can't begin with {TOKEN_PREFIX!r}, as tokens do", fix="choose another name", param="name"
        )
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    prefix = token[:_SHOWN_CHARACTERS]
    key = Key(new_id(now), name, prefix, created_at=now, scopes=wanted, expires_at=expires_at, limits=limits)
    try:
        with store.write() as connection:
            connection.execute(
                visitors.insert().values(
                    id=key.id,
                    name=name,
                    digest=digest(token),
                    prefix=prefix,
                    created_at=now,
                    scopes=wanted,
                    expires_at=expires_at,
                    limits=stored(limits),
                    revision=0,
                    kind="key",
                )
            )
            note(connection, "keys.create", name, _details(key), by=by, now=now)
    except sa.exc.IntegrityError:
        raise InvalidRequest(
            f"there is an active key named {name!r}",
            fix=f"choose another name, or revoke it first (chaku keys revoke {name})",
            param="name",
        ) from None
    return NewKey(key, token)


def list_keys(store: Store) -> list[Key]:
    """Every key ever made, revoked ones too, oldest first."""
    with store.read() as connection:
        rows = connection.execute(SELECT.order_by(visitors.c.created_at, visitors.c.id))
        return [key_of(row) for row in rows]


def edit(
    store: Store,
    which: str,
    *,
    scopes: Iterable[str] | None = None,
    expires_at: datetime | Literal["keep"] | None = "keep",
    limits: Mapping[str, Any] | None = None,
    by: Actor | None = None,
) -> Key:
    """Change the active key of that name, id or token prefix; a KeyRing knows within its interval.

    `limits` are the fields of Limits to change; None and () lift a limit. Raises NotFound or InvalidRequest.
    """
    with store.write() as connection:
        key = _pick(_active(connection), which)
        key = replace(
            key,
            scopes=key.scopes if scopes is None else _checked(scopes),
            expires_at=key.expires_at if expires_at == "keep" else expires_at,
            limits=key.limits.model_copy(update=dict(limits or {})),
        )
        changed = {
            "scopes": key.scopes,
            "expires_at": key.expires_at,
            "limits": stored(key.limits),
            "revision": visitors.c.revision + 1,
        }
        connection.execute(visitors.update().where(visitors.c.id == key.id).values(changed))
        note(connection, "keys.edit", key.name, _details(key), by=by)
    return key


def revoke(store: Store, which: str, *, now: datetime, by: Actor | None = None) -> Key:
    """End the active key of that name, id or token prefix; a KeyRing knows within its interval.

    Raises NotFound, or InvalidRequest where a prefix fits several keys.
    """
    with store.write() as connection:
        key = _pick(_active(connection), which)
        connection.execute(visitors.update().where(visitors.c.id == key.id).values(revoked_at=now))
        note(connection, "keys.revoke", key.name, {"id": key.id}, by=by, now=now)
    return replace(key, revoked_at=now)


def _active(connection: sa.Connection) -> list[Key]:
    return [key_of(row) for row in connection.execute(SELECT.where(visitors.c.revoked_at.is_(None)))]


def _checked(scopes: Iterable[str]) -> frozenset[str]:
    wanted = frozenset(scopes)
    if not wanted or (unknown := sorted(wanted - SCOPES.keys())):
        what = f"there is no scope {unknown[0]!r}" if wanted else "a key needs a scope"
        fix = did_you_mean(unknown[0] if wanted else "", SCOPES, f"scopes: {', '.join(SCOPES)}")
        raise InvalidRequest(what, fix=fix, param="scope")
    return wanted


def stored(limits: Limits) -> dict[str, Any]:
    """Limits as the database keeps them."""
    return limits.model_dump(mode="json", exclude_defaults=True)


def _details(key: Key) -> dict[str, Any]:
    """What the audit log says of a key."""
    expires = key.expires_at.isoformat() if key.expires_at else None
    return {"id": key.id, "scopes": sorted(key.scopes), "expires_at": expires, "limits": stored(key.limits)}


def _pick(active: list[Key], which: str) -> Key:
    exact = [key for key in active if which in (key.id, key.name)]
    # A whole token is longer than the prefix that is kept: someone pasted it.
    starts = [
        key
        for key in active
        if len(which) > len(TOKEN_PREFIX) and (key.prefix.startswith(which) or which.startswith(key.prefix))
    ]
    fits = exact or starts
    if len(fits) > 1:
        raise InvalidRequest(
            f"{which[:_SHOWN_CHARACTERS]!r} fits {len(fits)} keys: {', '.join(key.name for key in fits)}",
            fix="give the name or the id",
        )
    if not fits:
        shown = which[:_SHOWN_CHARACTERS] + "…" if which.startswith(TOKEN_PREFIX) else which
        fix = did_you_mean(which, [key.name for key in active], "see them with chaku keys list")
        raise NotFound(f"no active key {shown!r}", fix=fix)
    return fits[0]
