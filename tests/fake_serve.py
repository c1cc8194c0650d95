"""Keeps `chaku serve`'s side of the contract with `chaku chat`: FakeServer behind --ready-fd, with the asked-for model.

`python fake_serve.py PIDFILE serve MODEL --port 0 --ready-fd N --exit-with-parent`; a MODEL called `missing` fails.
"""

import json
import os
import sys
import time
from pathlib import Path

from fake_openai import FakeServer


def main(pid_file, command, model, *flags):
    assert (command, flags[:3:2], flags[-1]) == ("serve", ("--port", "--ready-fd"), "--exit-with-parent"), sys.argv
    Path(pid_file).write_text(str(os.getpid()))
    if model == "missing":
        print(
            "12:00:00 INFO looking\nerror: there is no model 'missing'\n  fix: `chaku models` lists them",
            file=sys.stderr,
        )
        sys.exit(3)
    server = FakeServer()
    server.models = [model]
    with server.running(), os.fdopen(int(flags[3]), "w") as ready:
        url = server.base_url.removesuffix("/v1")
        ready.write(json.dumps({"url": url, "models": [model], "api_key": "session-key"}) + "\n")
        ready.flush()
        time.sleep(60)


main(*sys.argv[1:])
