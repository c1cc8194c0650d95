"""Raw shared conversations as a browser extension saves them: page HTML of our own, with the usual faults in it.

    python scripts/tour/shares.py FOLDER        writes FOLDER/shares.json

A few are written by hand, each with one fault that the cleaning must mend or drop; the others are ordinary questions
of `chaku.data.everyday` in the same HTML.
"""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path

from chaku.data.everyday import everyday_conversations
from chaku.records import atomic_write

CODE = (
    '<p>Use a loop:</p><pre><div class="bg-black"><div class="flex items-center"><span>python</span>'
    '<button>Copy code</button></div><code class="language-python">for number in range(3):\n'
    "    print(number)\n</code></div></pre>"
)
TABLE = "<table><tr><th>Animal</th><th>Legs</th></tr><tr><td>Llama</td><td>4</td></tr></table>"
BY_HAND: tuple[tuple[str, str], ...] = (
    ("How do I count to three in Python?", CODE),
    ("How many legs has a llama? As a table, please.", f"<p>Here it is:</p>{TABLE}"),
    ("Name three rivers.", "<ol><li>Amazon</li><li>Nile</li><li>Danube</li></ol><div>1 / 2</div>"),
    ("Who are you?", "<p>I am ChatGPT, a language model trained by OpenAI.</p>"),  # dropped: another maker's name
    ("Write to my friend.", "<p>Send it to maria@post.example-mail.org and call +49 30 901820.</p>"),  # personal data
    ("Say it again.", "<p>" + "the same words again and again " * 40 + "</p>"),  # dropped: repetition
    ("What is 2 + 2?", "<p>Something went wrong. If this issue persists please contact us.</p>"),  # an error page
)


def shares() -> list[dict[str, object]]:
    """Conversations in ShareGPT's shape."""
    chats = (chat.messages[-2:] for chat in everyday_conversations(24))
    ordinary = [(question.content, f"<p>{html.escape(answer.content)}</p>") for question, answer in chats]
    two = [*BY_HAND, *ordinary, BY_HAND[0]]  # the last one is a duplicate
    return [
        {
            "id": f"share-{number}",
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
        }
        for number, (question, answer) in enumerate(two)
    ]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "shares.json") as file:
        file.write(json.dumps(shares(), ensure_ascii=False, indent=1).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
