"""Names of programming languages as chat pages write them over a code block."""

from __future__ import annotations

import re

_ALIASES = {
    "py": "python", "python3": "python", "js": "javascript", "jsx": "javascript", "ts": "typescript",
    "tsx": "typescript", "sh": "bash", "shell": "bash", "zsh": "bash", "c#": "csharp", "cs": "csharp", "c++": "cpp",
    "cc": "cpp", "f#": "fsharp", "yml": "yaml", "golang": "go", "rs": "rust", "rb": "ruby", "md": "markdown",
    "objective-c": "objectivec", "visualbasic": "vbnet", "vb": "vbnet", "vb.net": "vbnet", "ps1": "powershell",
    "kt": "kotlin", "tex": "latex", "docker": "dockerfile", "make": "makefile", "plain": "plaintext", "html": "xml",
    "svg": "xml", "hs": "haskell", "ex": "elixir", "erl": "erlang", "jl": "julia", "pl": "perl",
}  # fmt: skip
_NAMES = frozenset(
    """apache arduino assembly awk bash c clojure cmake cobol cpp csharp css dart diff dockerfile elixir elm erlang
    fortran fsharp glsl go gradle graphql groovy haskell hcl http ini java javascript json json5 julia kotlin latex less
    lisp lua makefile markdown matlab mermaid mysql nasm nginx nix objectivec ocaml pascal perl pgsql php plaintext
    powershell prolog protobuf python qml r ruby rust sas scala scheme scss solidity sparql sql stata swift tcl
    terraform toml typescript vbnet verilog vhdl vue wasm xml yaml zig""".split()  # noqa: SIM905
)
# "Copy code" and its like where the page's buttons are not button elements.
_BUTTONS = re.compile(r"(?:\s*(?:Copy(?: code)?|Edit|Run|Download|Wrap|Collapse))+\s*\Z")


def language_of_label(text: str) -> str:
    """The language that a line names and nothing beside it, in lower case; "" where it says anything else."""
    name = "".join(_BUTTONS.sub("", text[:80]).lower().split()).replace("\\", "") if len(text) < 80 else ""
    return name if canonical(name) in _NAMES else ""


def canonical(language: str) -> str:
    """One name for each language."""
    name = language.lower()
    return _ALIASES.get(name, name)
