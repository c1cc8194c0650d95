"""`chaku completion`: the script that teaches a shell to complete chaku's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from chaku.cli.help_page import command
from chaku.cli.main import root

INSTALL = {
    "bash": "chaku completion bash > ~/.local/share/bash-completion/completions/chaku",
    "zsh": 'chaku completion zsh > "${fpath[1]}/_chaku"',
    "fish": "chaku completion fish > ~/.config/fish/completions/chaku.fish",
}


@command()
@click.argument("shell", type=click.Choice(list(INSTALL)))
def completion(shell: str) -> None:
    """Print the completion script of SHELL."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root, {}, "chaku", "_CHAKU_COMPLETE").source().strip())
    click.echo(f"\n# Install: {INSTALL[shell]}")  # zsh wants its #compdef in the first line, so this comes last
