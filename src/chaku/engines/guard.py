"""The guard: runs a command that is not ours (llama-server, vllm serve) and ends it when the gateway ends.

vLLM and SGLang are started so; llama.cpp's and transformers' children are chaku's own Python, which holds the lifeline
itself (`process.Lifeline`).

The guard leads a process group, in which the command and its workers run. It holds the lifeline to the gateway. When
that breaks, even by `kill -9`, it kills the group. On Linux the command also dies if the guard itself is killed.
Configuration, one JSON line on standard input: {"argv": [...]}. Standard output and error belong to the command.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from chaku.engines.process import die_with_parent, read_config, wait_for_end_of_parent

NOT_STARTED = 127
"""Exit code if the command can't be started; the shell's."""


def main() -> int:
    """Run the command; return its exit code, or end by the signal that ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is the gateway's business
    config, parent_pid = read_config()
    if os.getppid() != parent_pid:
        return 1
    guard_pid = os.getpid()
    command_pid = os.fork()  # while there is one thread only
    if command_pid == 0:
        _run_command(config["argv"], guard_pid)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(command_pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    threading.Thread(target=wait_for_end_of_parent, args=(_kill_group,), daemon=True, name="lifeline").start()
    _, status = os.waitpid(command_pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(guard_pid, -code)
    return code


def _run_command(argv: list[str], guard_pid: int) -> None:
    """Become the command. Never returns."""
    try:
        die_with_parent(guard_pid)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execvp(argv[0], argv)  # noqa: S606 - the command is the configuration's
    except OSError as error:
        os.write(2, f"can't start {argv[0]}: error: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _kill_group(_code: int) -> None:
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
