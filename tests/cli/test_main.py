"""The root command: quick help, near misses, exit codes."""

import os
import subprocess
import sys

import pytest

from chaku import __version__
from chaku.cli import main as root_module
from chaku.errors import ModelError
from processes import environment, modules_loaded_by

HEAVY = {
    "aiohttp", "alembic", "asyncio", "fastapi", "markdown_it", "numpy", "orjson", "prompt_toolkit", "pydantic",
    "pygments", "rich", "sqlalchemy", "starlette", "torch", "uvicorn", "yaml",
}  # fmt: skip


def chaku(*arguments, **env):
    command = [sys.executable, "-m", "chaku", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**env))


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["chta"], ["weights", "--help"]])
def test_help_and_mistakes_load_nothing_heavy(arguments):
    loaded = modules_loaded_by(f"from chaku.cli.main import main; main({arguments!r})")
    assert "click" in loaded
    assert not HEAVY & loaded


def test_the_help_page_loads_few_modules_and_none_of_another_command():
    report = "print(*(name for name in sys.modules if name.startswith('chaku')), file=sys.stderr)"
    code = f"import sys\nfrom chaku.cli.main import main\ntry: main(['--help'])\nfinally: {report}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert set(done.stderr.split()) <= {
        "chaku", "chaku.cli", "chaku.cli.main", "chaku.cli.lazy", "chaku.cli.help_page", "chaku.cli.examples",
        "chaku.cli.lines", "chaku.complaints", "chaku.errors", "chaku.nearest", "chaku.wrapping",
    }  # fmt: skip


def test_help_lists_every_command():
    shown = chaku("--help").stdout
    for name, (_, line) in root_module.COMMANDS.items():
        assert f"  {name} " in shown and line in shown


def test_the_version_is_the_packages():
    assert chaku("--version").stdout == f"chaku {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "error", "fix"),
    [
        (["chta"], "there is no command 'chta'", "did you mean `chaku chat`?"),
        (["weights", "make-detla"], "there is no command 'make-detla'", "did you mean `chaku weights make-delta`?"),
        (["xyzzy"], "there is no command 'xyzzy'", "`chaku --help` lists the commands"),
        (["--no-colour"], "there is no option --no-colour", "did you mean --no-color?"),
        (["chat", "--temprature", "1"], "there is no option --temprature", "did you mean --temperature?"),
        (["completion"], "Missing argument", "`chaku completion --help` shows what it takes"),
    ],
)
def test_a_mistake_is_named_with_the_nearest_right_word(arguments, error, fix):
    done = chaku(*arguments)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()[0], done.stderr.splitlines()[-1]
    assert first.startswith(f"error: {error}")
    assert second == f"  fix: {fix}"


@pytest.mark.parametrize("group", ["keys", "data"])
def test_a_group_alone_shows_its_commands_and_not_an_error(group):
    done = chaku(group)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == chaku(group, "--help").stdout


@pytest.mark.parametrize(
    ("before", "env", "colored"),
    [
        ([], {}, False),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (["--no-color"], {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_follows_flag_and_environment(before, env, colored):
    assert ("\x1b[" in chaku(*before, "chta", **env).stderr) is colored


def failing(kind):
    import click

    @click.command()
    def command():
        raise kind

    return command


@pytest.mark.parametrize(
    ("raised", "code", "stderr"),
    [
        (ModelError("no such model", fix="pull it"), 3, "error: no such model\n  fix: pull it\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_what_a_command_raises_becomes_its_exit_code(monkeypatch, capsys, raised, code, stderr):
    monkeypatch.setattr(root_module.LazyGroup, "get_command", lambda *_: failing(raised))
    with pytest.raises(SystemExit) as exited:
        root_module.main(["models"])
    assert (exited.value.code, capsys.readouterr().err) == (code, stderr)


def test_traceback_shows_where_it_comes_from(monkeypatch, capsys):
    monkeypatch.setattr(root_module.LazyGroup, "get_command", lambda *_: failing(ModelError("no")))
    with pytest.raises(SystemExit):
        root_module.main(["--traceback", "models"])
    assert "in command" in capsys.readouterr().err


def test_a_mistake_of_ours_is_not_dressed_up(monkeypatch):
    monkeypatch.setattr(root_module.LazyGroup, "get_command", lambda *_: failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        root_module.main(["models"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed_with_their_install_line(shell):
    shown = chaku("completion", shell).stdout
    assert "_CHAKU_COMPLETE" in shown
    assert f"chaku completion {shell} > " in shown.splitlines()[-1]


def test_tab_completes_commands_without_loading_them():
    done = chaku(_CHAKU_COMPLETE="bash_complete", COMP_WORDS="chaku c", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,chat", "plain,compare", "plain,completion"]


def test_bash_takes_its_script(tmp_path):
    script = chaku("completion", "bash").stdout
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
