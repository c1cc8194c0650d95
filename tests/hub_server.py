"""A Hugging Face hub on loopback that takes pushes and gives them back: what huggingface_hub asks of one, without xet.

Repositories are dictionaries of bytes; large files come by the LFS batch protocol, as the real hub takes them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".distcp", ".bin", ".model")
"""Suffixes that go by LFS."""


@dataclass
class Repository:
    """One model repository; every commit replaces its files at once."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: ["0" * 40])

    @property
    def sha(self) -> str:
        return self.commits[-1]


class HubServer:
    """`with HubServer() as hub:`; tokens that may write are in `writers`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.writers = {"hf_writer"}
        self.readers = {"hf_reader"}
        self.requests: list[tuple[str, str]] = []
        self.fail: dict[str, int] = {}
        """Status that the next requests to paths with this in them get, as often as said in `fail_times`."""
        self.fail_times = 1
        self.bodies: list[bytes] = []
        """Of all requests that change something."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self)

            do_HEAD = do_POST = do_PUT = do_GET

            def log_message(self, *_args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environment(self, home: Any, token: str | None = "hf_writer") -> dict[str, str]:
        """What a process needs to take this for the hub."""
        found = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        found |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"}
        return found | ({"HF_TOKEN": token} if token else {})

    def _answer(self, call: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(call.path).path)
        self.requests.append((call.command, path))
        body = self._body(call)
        if call.command in ("POST", "PUT"):
            self.bodies.append(body)
        for part, status in self.fail.items():
            if part in path and self.fail_times > 0:
                self.fail_times -= 1
                return self._send(call, status, {"error": "made to fail"})
        for method, pattern, handle in _ROUTES:
            if call.command in method.split() and (match := re.fullmatch(pattern, path)):
                return handle(self, call, body, **{key: text for key, text in match.groupdict().items() if text})
        return self._send(call, 404, {"error": f"no {call.command} {path}"})

    @staticmethod
    def _body(call: BaseHTTPRequestHandler) -> bytes:
        if call.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(call.rfile.readline(), 16):
                pieces.append(call.rfile.read(size))
                call.rfile.readline()
            call.rfile.readline()
            return b"".join(pieces)
        return call.rfile.read(int(call.headers.get("Content-Length") or 0))

    def _token(self, call: BaseHTTPRequestHandler) -> str:
        return call.headers.get("Authorization", "").removeprefix("Bearer ")

    def _may_write(self, call: BaseHTTPRequestHandler) -> bool:
        token = self._token(call)
        if token in self.writers:
            return True
        if token in self.readers:
            self._send(call, 403, {"error": "You don't have the rights to do this"})
        else:
            self._send(call, 401, {"error": "Invalid username or password."})
        return False

    def _send(
        self, call: BaseHTTPRequestHandler, status: int, value: Any, headers: dict[str, str] | None = None
    ) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        call.send_response(status)
        for name, text in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            call.send_header(name, text)
        call.end_headers()
        if call.command != "HEAD":
            call.wfile.write(body)

    def _create(self, call: BaseHTTPRequestHandler, body: bytes) -> None:
        if not self._may_write(call):
            return
        asked = json.loads(body)
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        url = {"url": f"{self.url}/{repo}", "id": "1", "name": repo}
        if repo in self.repositories:
            return self._send(call, 409, {"error": "You already created this model repo", **url})
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.repositories[repo] = Repository(is_private)
        return self._send(call, 200, url)

    def _validate(self, call: BaseHTTPRequestHandler, body: bytes) -> None:
        """The real hub's rules, as far as they concern us."""
        import yaml

        front = yaml.safe_load(json.loads(body)["content"].split("---")[1])
        errors = [{"message": f"{key} must be text"} for key in ("license",) if not isinstance(front.get(key, ""), str)]
        if front.get("license") == "other" and not front.get("license_name"):
            errors.append({"message": "license_name is required for other"})
        for base in [front["base_model"]] if "base_model" in front else []:
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
                errors.append({"message": f"base_model {base!r} is not valid. Use a model id"})
        self._send(call, 400 if errors else 200, {"errors": errors, "warnings": []})

    def _preupload(self, call: BaseHTTPRequestHandler, body: bytes, repo: str) -> None:
        if not self._may_write(call):
            return
        if repo not in self.repositories:
            return self._send(call, 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        there = self.repositories[repo].files
        answers = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            is_large = path.endswith(LARGE)
            answer = {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
            if path in there:
                answer["oid"] = _oid(path, there[path])
            answers.append(answer)
        return self._send(call, 200, {"files": answers})

    def _batch(self, call: BaseHTTPRequestHandler, body: bytes, repo: str) -> None:
        if not self._may_write(call):
            return
        objects: list[dict[str, Any]] = []
        for one in json.loads(body)["objects"]:
            if one["oid"] not in self.objects:
                href = f"{self.url}/lfs/{one['oid']}"
                verify = f"{self.url}/{repo}.git/info/lfs/verify"
                one |= {"actions": {"upload": {"href": href}, "verify": {"href": verify}}}
            objects.append(one)
        self._send(call, 200, {"transfer": "basic", "objects": objects})

    def _put(self, call: BaseHTTPRequestHandler, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._send(call, 400, {"error": "not what was announced"})
        self.objects[oid] = body
        return self._send(call, 200, {}, {"ETag": f'"{oid}"'})

    def _verify(self, call: BaseHTTPRequestHandler, body: bytes, repo: str) -> None:
        asked = json.loads(body)
        whole = len(self.objects.get(asked["oid"], b"")) == asked["size"]
        self._send(call, 200 if whole else 404, {})

    def _commit(self, call: BaseHTTPRequestHandler, body: bytes, repo: str) -> None:
        if not self._may_write(call):
            return
        found = self.repositories[repo]
        files = dict(found.files)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        found.files = files
        found.commits.append(hashlib.sha1(body, usedforsecurity=False).hexdigest())
        url = f"{self.url}/{repo}/commit/{found.sha}"
        self._send(call, 200, {"commitUrl": url, "commitOid": found.sha})

    def _visible(self, call: BaseHTTPRequestHandler, repo: str) -> Repository | None:
        found = self.repositories.get(repo)
        known = self.writers | self.readers
        if found is None or (found.private and self._token(call) not in known):
            status = 404 if self._token(call) in known else 401
            self._send(call, status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def _describe(self, call: BaseHTTPRequestHandler, body: bytes, repo: str, revision: str = "main") -> None:
        import yaml

        if (found := self._visible(call, repo)) is None:
            return
        if revision not in ("main", *found.commits):
            return self._send(call, 404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
        card = found.files.get("README.md", b"").decode()
        front = yaml.safe_load(card.split("---")[1]) if card.startswith("---") else None
        listing = [{"rfilename": name} for name in sorted(found.files)]
        answer = {"_id": "1", "id": repo, "modelId": repo, "sha": found.sha, "private": found.private, "tags": []}
        self._send(call, 200, answer | {"downloads": 0, "siblings": listing, "cardData": front})
        return None

    def _resolve(self, call: BaseHTTPRequestHandler, body: bytes, repo: str, revision: str, path: str) -> None:
        if (found := self._visible(call, repo)) is None:
            return
        if path not in found.files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found.sha}
            return self._send(call, 404, {"error": "Entry not found"}, headers)
        content = found.files[path]
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": found.sha}
        return self._send(call, 200, content, headers | {"Accept-Ranges": "bytes", "Content-Type": "text/plain"})


def _oid(path: str, content: bytes) -> str:
    """As git names a file: by its blob, by its sha256 where LFS keeps it."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+?)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", HubServer._create),
    ("POST", "/api/validate-yaml", HubServer._validate),
    ("POST", rf"/api/models/{_REPO}/preupload/main", HubServer._preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", HubServer._batch),
    ("POST", rf"/{_REPO}\.git/info/lfs/verify", HubServer._verify),
    ("PUT", r"/lfs/(?P<oid>\w+)", HubServer._put),
    ("POST", rf"/api/models/{_REPO}/commit/main", HubServer._commit),
    ("GET HEAD", rf"/api/models/{_REPO}(/revision/(?P<revision>.+))?", HubServer._describe),
    ("GET HEAD", rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubServer._resolve),
]
