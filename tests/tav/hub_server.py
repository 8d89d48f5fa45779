"""The hub's HTTP interface, as far as `huggingface_hub` asks it for a repository's files: what stands in for the hub here."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Repositories = dict[str, dict[str, Path]]
"""`owner/name` -> revision -> folder."""

GATED = "gated/base"


@contextmanager
def hub(repositories: Repositories) -> Iterator[str]:
    """The address of a hub that has these, and `GATED`, which it shows to nobody."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).removeprefix("/")
            if path.startswith("api/models/"):
                owner, name, *rest = path.removeprefix("api/models/").split("/")
                self._api(f"{owner}/{name}", rest)
            else:
                owner, name, _, revision, *file = path.split("/")
                self._file(f"{owner}/{name}", revision, "/".join(file))

        def _api(self, repo: str, rest: list[str]) -> None:
            if repo == GATED:
                return self._answer(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            if repo not in repositories:
                return self._answer(401, {"error": "no such repository"}, {"X-Error-Code": "RepoNotFound"})
            revisions = repositories[repo]
            if rest == ["refs"]:
                refs = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": _commit(name)} for name in revisions]
                return self._answer(200, {"branches": refs, "tags": [], "converts": []})
            wanted = rest[1] if rest else "main"
            found = {name: name for name in revisions} | {_commit(name): name for name in revisions}
            if wanted not in found:
                return self._answer(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
            folder = revisions[found[wanted]]
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            if rest and rest[0] == "tree":
                entries = [
                    {
                        "type": "file",
                        "path": file.relative_to(folder).as_posix(),
                        "size": file.stat().st_size,
                        "oid": _tag(file),
                    }
                    for file in files
                ]
                return self._answer(200, entries)
            siblings = [{"rfilename": file.relative_to(folder).as_posix()} for file in files]
            return self._answer(200, {"id": repo, "sha": _commit(found[wanted]), "siblings": siblings})

        def _file(self, repo: str, commit: str, path: str) -> None:
            (folder,) = [folder for name, folder in repositories[repo].items() if _commit(name) == commit]
            content = (folder / path).read_bytes()
            headers = {"ETag": f'"{_tag(folder / path)}"', "X-Repo-Commit": commit}
            self._send(200, content, headers)

        def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {}))

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _commit(revision: str) -> str:
    return hashlib.sha1(revision.encode()).hexdigest()


def _tag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
