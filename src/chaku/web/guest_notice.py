"""What a guest is told before the first chat: what is kept, for how long, and what the models can't do."""

from __future__ import annotations

from chaku.policies import GuestPolicy
from chaku.web.page import NOT_KEPT


def notice_of(policy: GuestPolicy, *, keeps: bool = True) -> list[str]:
    """The notice, one paragraph each. Unless the gateway `keeps` chats, it says so."""
    limits = policy.limits
    kept = (
        f"Your chats are deleted {policy.keep_days} days after your last visit."
        if policy.keep_days
        else "Your chats are kept until you delete them, or ask the operator to."
    )
    amounts = [
        f"{limits.requests_per_minute:,} requests per minute" if limits.requests_per_minute else "",
        f"{limits.tokens_per_minute:,} tokens per minute" if limits.tokens_per_minute else "",
        f"{limits.tokens_per_day:,} tokens per day" if limits.tokens_per_day else "",
        f"{limits.max_tokens:,} tokens in one answer" if limits.max_tokens else "",
    ]
    allowed = ", ".join(amount for amount in amounts if amount)
    return [
        "This is a research preview. The models make mistakes: in reasoning, in mathematics, in facts, and in what "
        "they say about themselves. They may write unsafe or offensive text. Check what matters.",
        "Your chats are stored on this server, whose operator can read them. Do not write personal or secret things. "
        + kept
        if keeps
        else f"{NOT_KEPT} The models still read it. Do not write personal or secret things.",
        "A cookie in this browser is how we know you. Without it, your chats can't be opened again.",
        *([f"You may use {allowed}."] if allowed else []),
    ]
