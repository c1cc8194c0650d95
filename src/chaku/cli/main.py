"""`chaku`: the table of commands, and what happens to whatever they raise.

A command's module is imported when that command runs, so that `chaku --help` stays quick: nothing but click, errors
and the version may be imported here.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import click

from chaku import __version__
from chaku.cli.lazy import LazyGroup
from chaku.cli.lines import say
from chaku.errors import ChakuError, UsageError, error_lines
from chaku.nearest import did_you_mean

INTERRUPTED = 128 + 2  # what a shell reports for a program ended by SIGINT
BROKEN_PIPE = 128 + 13

COMMANDS = {
    "demo": ("chaku.cli.demo:demo", "Serve the small built-in model and open the page."),
    "serve": ("chaku.cli.serve:serve", "Serve models: OpenAI API and page on one port."),
    "worker": ("chaku.cli.worker:worker", "Serve a model for a gateway elsewhere."),
    "up": ("chaku.cli.up:up", "Start a gateway and its workers from one file."),
    "down": ("chaku.cli.up:down", "End what `chaku up` started."),
    "fleet": ("chaku.cli.fleet:fleet", "See and steer the workers of a gateway."),
    "chat": ("chaku.cli.chat:chat", "Talk to a model, or ask one question."),
    "run": ("chaku.cli.chat:run", "Talk to the model that you name."),
    "compare": ("chaku.cli.compare:compare", "Ask several models the same, side by side."),
    "score": ("chaku.cli.score:score", "Write and compare sample records of /score."),
    "batch": ("chaku.cli.batch:batch", "Send files of requests; a killed run is resumed."),
    "ps": ("chaku.cli.gateway_here:ps", "Show what is served on this machine."),
    "stop": ("chaku.cli.gateway_here:stop", "Stop the gateway on this machine."),
    "pull": ("chaku.cli.pull:pull", "Fetch a model into the cache."),
    "list": ("chaku.cli.models:list_models", "List the models that are known and pulled."),
    "models": ("chaku.cli.models:models", "List, show and remove models."),
    "data": ("chaku.cli.data:data", "Turn conversations into training rows; audit them."),
    "train": ("chaku.cli.train:train", "Fine-tune a model."),
    "estimate": ("chaku.cli.estimate:estimate", "Estimate what training needs and costs on GPUs."),
    "launch": ("chaku.cli.launch:launch", "Train through interruptions, here or in a cloud."),
    "runs": ("chaku.cli.runs:runs", "List, show, watch, plot and push training runs."),
    "weights": ("chaku.cli.weights:weights", "Convert, merge, compare and plan weights."),
    "eval": ("chaku.cli.eval:evaluate", "Judge the answers of models; check the judge."),
    "arena": ("chaku.cli.arena:arena", "Rate models from votes and verdicts."),
    "leaderboard": ("chaku.cli.arena:leaderboard", "Show the ratings of comparison files."),
    "engines": ("chaku.cli.engines:engines", "List engines; install vLLM or SGLang."),
    "doctor": ("chaku.cli.doctor:doctor", "Check this machine; say how to mend what is missing."),
    "paths": ("chaku.cli.paths:paths", "Show where chaku keeps its files."),
    "keys": ("chaku.cli.keys:keys", "Create, edit and revoke API keys; show their use."),
    "visitors": ("chaku.cli.visitors:visitors", "List, limit, block and delete visitors without a key."),
    "audit": ("chaku.cli.audit:audit_log", "List what admins changed, and who did."),
    "completion": ("chaku.cli.completion:completion", "Print the completion script of a shell."),
}
SECTIONS = {
    "Serve and chat": ("demo", "serve", "worker", "up", "down", "fleet", "chat", "run", "batch", "score", "ps", "stop"),
    "Models": ("pull", "list", "models", "weights"),
    "Compare": ("compare", "eval", "arena", "leaderboard"),
    "Training": ("data", "train", "estimate", "launch", "runs"),
    "This machine": ("engines", "doctor", "paths", "keys", "visitors", "audit", "completion"),
}


def color_from_environment() -> bool | None:
    """What NO_COLOR and FORCE_COLOR say; None leaves it to whether the output is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None


@dataclass
class ErrorStyle:
    """How to print an error; filled from the global options once they are parsed."""

    traceback: bool = False
    color: bool | None = field(default_factory=color_from_environment)


def _set_traceback(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    ctx.ensure_object(ErrorStyle).traceback = wanted


def _set_color(ctx: click.Context, _: click.Parameter, no_color: bool) -> None:
    style = ctx.ensure_object(ErrorStyle)
    if no_color:
        style.color = False
    ctx.color = style.color


# Both are eager: a mistake further on in the line must already be told their way.
@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    sections=SECTIONS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="chaku %(version)s")
@click.option(
    "--traceback",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_traceback,
    help="Show where an error comes from.",
)
@click.option(
    "--no-color",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_set_color,
    help="No colours; NO_COLOR does the same, FORCE_COLOR the opposite.",
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Serve, chat with and compare language models on your own machines.

    `chaku demo` shows it all with a small model; `chaku chat` talks to one here.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run a command line (sys.argv by default) and exit with its code."""
    try:
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left. Whatever is still buffered goes nowhere instead of failing again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    sys.exit(code)


def _run(args: Sequence[str] | None) -> int:
    style = ErrorStyle()
    try:
        code = root.main(args, prog_name="chaku", standalone_mode=False, obj=style)
        return code if isinstance(code, int) else 0
    except click.Abort as error:
        return INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as help_page:
        click.echo(help_page.format_message(), err=True)
        return help_page.exit_code
    except (ChakuError, click.ClickException, OSError, UnicodeError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        if style.traceback:
            import traceback

            traceback.print_exc()
        failure = _failure(error)
        tell(failure, color=style.color)
        return failure.exit_code


def _failure(error: Exception) -> ChakuError:
    """What to print of an error: ours, click's, or what the system says of a file or an address."""
    if isinstance(error, ChakuError):
        return error
    if isinstance(error, click.ClickException):
        return _from_click(error)
    if isinstance(error, UnicodeEncodeError):
        fix = "use a UTF-8 locale: export LC_ALL=C.UTF-8, or PYTHONUTF8=1"
        return UsageError(f"this terminal can't show {error.object[error.start : error.end]!r}", fix=fix)
    if isinstance(error, UnicodeError):
        return UsageError(f"a file that should hold UTF-8 text does not: {error}", fix="convert it to UTF-8")
    assert isinstance(error, OSError)
    where = f"{error.filename}: " if error.filename is not None else ""
    cause = f"{where}{(error.strerror or str(error)).lower()}"
    return ChakuError(cause, fix=_WAYS_OUT.get(error.errno or 0, "--traceback shows where this comes from"))


_WAYS_OUT = {
    errno.ENOENT: "check the path",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "a part of this path is a file: name a folder",
    errno.EACCES: "it belongs to another user: change its permissions, or take another place",
    errno.EPERM: "it belongs to another user: change its permissions, or take another place",
    errno.EROFS: "this disk can't be written: take another place",
    errno.ENOSPC: "the disk is full: free some space, or take another place",
    errno.EFBIG: "the largest file allowed here is smaller: raise the limit with ulimit -f unlimited",
    errno.EDQUOT: "your quota is used up: free some space, or take another place",
    errno.ENAMETOOLONG: "take a shorter name",
    errno.EMFILE: "too many files are open: raise the limit with ulimit -n 65536",
}


def _from_click(error: click.ClickException) -> ChakuError:
    if not isinstance(error, click.UsageError):
        return ChakuError(error.format_message())
    fix = f"`{error.ctx.command_path if error.ctx else 'chaku'} --help` shows what it takes"
    if isinstance(error, click.NoSuchOption):
        fix = did_you_mean(error.option_name, error.possibilities or (), fix)
        return UsageError(f"there is no option {error.option_name}", fix=fix)
    return UsageError(error.format_message().rstrip("."), fix=fix)


def tell(failure: ChakuError, *, color: bool | None = None) -> None:
    """Print an error the way every command does: the cause, and below it the way out."""
    for (label, text), hue in zip(error_lines(failure), ("red", "green"), strict=False):
        say(f"{click.style(label, fg=hue, bold=True)} {text}", err=True, color=color)
