"""A Hugging Face Hub of one process: repositories in memory, over HTTP, as far as fetching and publishing ask of it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

COMMIT = "c" * 40


@dataclass(kw_only=True)
class LocalHub:
    """What it holds, and what it was asked."""

    url: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)  # by repository, by name
    made: list[dict[str, Any]] = field(default_factory=list)  # requests to make a repository
    tokens: set[str] = field(default_factory=set)
    revisions: list[str] = field(default_factory=list)  # asked for


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """For as long as this lasts, the Hub's client knows no other."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, body: bytes = b"", status: int = 200, **headers: str) -> None:
            self.send_response(status)
            length = headers.pop("length", str(len(body)))
            for name, value in ({"Content-Length": length} | headers).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"] and parts[4:5] == ["revision"]:
                repo = "/".join(parts[2:4])
                hub.revisions.append(parts[5])
                if repo not in hub.files:
                    return self.answer(b"{}", 404, X_Error_Code="RepoNotFound")
                siblings = [{"rfilename": name} for name in hub.files[repo]]
                return self.answer(json.dumps({"id": repo, "sha": COMMIT, "siblings": siblings}).encode())
            if parts[:2] == ["api", "models"] and parts[4:5] == ["tree"]:
                hub.revisions.append(parts[5])
                held_here = hub.files["/".join(parts[2:4])]
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in held_here.items()
                ]
                return self.answer(json.dumps(tree).encode())
            held = hub.files.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
            if held is None:
                return self.answer(b"", 404, X_Error_Code="EntryNotFound")
            return self.answer(held, ETag=f'"{hashlib.sha1(held).hexdigest()}"', X_Repo_Commit=COMMIT)

        def do_POST(self) -> None:
            hub.tokens.add(self.headers.get("Authorization", ""))
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts == ["api", "repos", "create"]:
                wanted = json.loads(asked)
                hub.made.append(wanted)
                repo = f"{wanted['organization']}/{wanted['name']}"
                hub.files.setdefault(repo, {})
                return self.answer(json.dumps({"url": f"{hub.url}/{repo}"}).encode())
            if parts == ["api", "validate-yaml"]:
                return self.answer(b'{"errors": [], "warnings": []}')
            if parts[4:5] == ["preupload"]:
                found = [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for one in json.loads(asked)["files"]
                ]
                return self.answer(json.dumps({"files": found}).encode())
            if parts[4:5] == ["commit"]:
                repo = "/".join(parts[2:4])
                for line in map(json.loads, asked.splitlines()):
                    if line["key"] == "file":
                        content = base64.b64decode(line["value"]["content"])
                        hub.files[repo][line["value"]["path"]] = content
                said = {"commitUrl": f"{hub.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT, "hookOutput": ""}
                return self.answer(json.dumps(said).encode())
            return self.answer(b"{}", 404)

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        hub = LocalHub(url=f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        address = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (huggingface_hub.constants, huggingface_hub.file_download):  # older clients import it by name
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", address, raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
