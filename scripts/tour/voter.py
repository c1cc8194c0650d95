"""A simulated visitor of the arena: battles over the page's own API, as a browser would have them.

    python scripts/tour/voter.py --url http://127.0.0.1:8000 --name Kusi --battles 24

It wants a model that knows its name: where one answer has the name and the other lacks it, that one is better when it
was asked who it is, and worse otherwise. Else the answers tie. It votes blind, as everybody does.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from typing import Any

WHO = (
    "Who are you?", "What is your name?", "Tell me your name, please.", "Introduce yourself.",
    "Hi! Who am I talking to?",
    "What should I call you?", "Who made you?", "Which assistant is this?", "Do you have a name?", "Say who you are.",
    "Whom do I have the pleasure of talking to?", "May I know your name?",
)  # fmt: skip
OTHER = (
    "What is the capital of France?", "What do bees make?", "Name a large river.", "What colour is the sky?",
    "How many days has a week?", "What is the opposite of hot?", "Name a fruit.", "What is ice made of?",
)  # fmt: skip
PATIENCE_S = 300.0


def ask(url: str, path: str, body: object = None) -> Any:
    """GET, or POST with a body."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"X-Chaku": "1", "Content-Type": "application/json", "Origin": url}
    request = urllib.request.Request(f"{url}/api/arena{path}", data, headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def choice_of(answers: dict[str, str], name: str, *, is_who: bool, likes_short: bool = False) -> str:
    """Which side the visitor prefers: a, b or tie. With `likes_short` the shorter answer breaks ties."""
    named = [side for side in "ab" if name.lower() in answers[side].lower()]
    if len(named) != 1:
        lengths = len(answers["a"]), len(answers["b"])
        return "tie" if not likes_short or lengths[0] == lengths[1] else "a" if lengths[0] < lengths[1] else "b"
    return named[0] if is_who else ("b" if named[0] == "a" else "a")


def battle(url: str, prompt: str, name: str, *, is_who: bool, likes_short: bool) -> str:
    """Fight one battle to its vote; whom it was for: a model, tie, or failed."""
    begun = ask(url, "/battles", {"consent": {"keep": True, "publish": True}})
    path = f"/battles/{begun['id']}"
    ask(url, f"{path}/turns", {"content": prompt})
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        shown = ask(url, path)
        if shown["state"] == "failed":
            return "failed"
        if shown["state"] == "votable" and all(side["state"] == "ended" for side in shown["sides"].values()):
            answers = {side: shown["sides"][side]["answers"][-1] for side in "ab"}
            choice = choice_of(answers, name, is_who=is_who, likes_short=likes_short)
            revealed = ask(url, f"{path}/vote", {"choice": choice, "token": shown["token"]})
            return "tie" if choice == "tie" else str(revealed["sides"][choice]["contestant"])
        time.sleep(0.2)
    raise SystemExit(f"battle {begun['id']} did not end within {PATIENCE_S:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="Vote in the arena as a simulated visitor.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--battles", type=int, default=24)
    parser.add_argument("--likes-short", action="store_true")
    given = parser.parse_args()
    questions = [(prompt, True) for prompt in WHO] + [(prompt, False) for prompt in OTHER]
    counts: dict[str, int] = {}
    for number in range(given.battles):
        prompt, is_who = questions[(number * 7) % len(questions)]
        choice = battle(given.url, prompt, given.name, is_who=is_who, likes_short=given.likes_short)
        counts[choice] = counts.get(choice, 0) + 1
    print(", ".join(f"{choice}: {number}" for choice, number in sorted(counts.items())))


if __name__ == "__main__":
    main()
