"""A server on this machine that speaks as much of the hub's protocol as its client asks for."""

import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories by name, such as ORG/REPO or datasets/ORG/NAME: their files by path."""

    def __init__(self):
        self.files, self.gated, self.served, self.short = {}, set(), [], set()
        self.url = ""
        self.status = 200  # of plain files
        self.modified = None  # in place of ETags, as plain web servers have it; "" for nothing

    def respond(self, handler, *, body):
        """Answer a request: the list of a repository's files, or a file."""
        parts = [unquote(part) for part in urlsplit(handler.path).path.strip("/").split("/")]
        if parts[0] == "plain" and self.status != 200:
            return self.fail(handler, self.status, "")
        if parts[0] == "plain":
            return self.send(handler, self.files["plain"].get("/".join(parts[1:])), body=body)
        is_api = parts[0] == "api"
        parts = parts[1:] if is_api else parts
        kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
        repo, rest = "/".join(parts[:2]), parts[2:]
        files = self.files.get(repo if kind == "models" else f"datasets/{repo}")
        if files is None or repo in self.gated:
            code = "GatedRepo" if files is not None else "RepoNotFound"
            return self.fail(handler, 403 if files is not None else 401, code)
        if is_api and rest == ["refs"]:
            refs = {"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}]}
            return self.send(
                handler, json.dumps({**refs, "tags": [], "converts": []}).encode(), body=body
            )
        revision = (rest[1:] or ["main"])[0]
        if revision not in ("main", COMMIT):
            return self.fail(handler, 404, "RevisionNotFound")
        if is_api:
            siblings = [{"rfilename": name, "size": len(held)} for name, held in files.items()]
            info = {"id": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            return self.send(handler, json.dumps(info).encode(), body=body)
        content = files.get("/".join(rest[2:]))
        if content is None:
            return self.fail(handler, 404, "EntryNotFound")
        return self.send(handler, content, body=body)

    def send(self, handler, content, *, body):
        """Send a file, or a part of it."""
        if content is None:
            return self.fail(handler, 404, "EntryNotFound")
        start, status = 0, 200
        if (wanted := handler.headers.get("Range")) and body:
            start, status = int(wanted.removeprefix("bytes=").split("-")[0]), 206
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) - start))
        if self.modified is None:
            handler.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        elif self.modified:
            handler.send_header("Last-Modified", self.modified)
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("Accept-Ranges", "bytes")
        if status == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        if body:
            self.served.append(urlsplit(handler.path).path)
            is_short = urlsplit(handler.path).path in self.short
            with contextlib.suppress(BrokenPipeError):
                handler.wfile.write(content[start : len(content) // 2 if is_short else None])
        return None

    def fail(self, handler, status, code):
        """Say why a request is refused, as the hub does."""
        handler.send_response(status)
        handler.send_header("X-Error-Code", code)
        handler.send_header("X-Error-Message", code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@contextlib.contextmanager
def serving():
    """Serve a hub, at its `url`."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self):
            hub.respond(self, body=True)

        def do_HEAD(self):
            hub.respond(self, body=False)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
