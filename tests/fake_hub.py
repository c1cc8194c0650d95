"""A Hugging Face hub on loopback: what huggingface_hub asks a server for, out of a FileServer."""

from __future__ import annotations

import hashlib

from file_server import FileServer, Page

COMMIT = "c" * 40


def publish(server: FileServer, files: dict[str, bytes], revision: str = "main", repo: str = "org/tiny-GGUF") -> None:
    """Put a repository with these files on the server."""
    listing = {"_id": "1", "id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": [], "downloads": 0}
    listing["siblings"] = [{"rfilename": name} for name in files]
    server.json(f"/api/models/{repo}/revision/{revision}", listing)
    if revision == "main":
        server.json(f"/api/models/{repo}", listing)
    for name, content in files.items():
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        server.pages[f"/{repo}/resolve/{revision}/{name}"] = Page(content, headers=headers)
