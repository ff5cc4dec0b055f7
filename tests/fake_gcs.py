"""Google Cloud Storage's JSON API on the loopback, as far as rows need it; both client libraries are sent to it."""

import collections
import contextlib
import http.server
import json
import os
import threading
import urllib.parse


class Bucket:
    """Objects by "BUCKET/NAME", and what was asked for: (method, name, range or "")."""

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.refused = False  # answers 403 to everything
        self.broken = ""  # no object whose name contains this can be written
        self.environment: dict[str, str] = {}

    def count(self, method: str) -> collections.Counter[str]:
        """How often each object was asked for."""
        return collections.Counter(name for how, name, _ in self.requests if how == method)


@contextlib.contextmanager
def serve():
    """A bucket that answers; `environment` is what sends a process's clients to it."""
    bucket = Bucket()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            name = self._name(urllib.parse.urlsplit(self.path).path)
            asked = self.headers.get("Range", "")
            bucket.requests.append(("GET", name, asked))
            if bucket.refused:
                return self._reply(403, b'{"error": {"code": 403, "message": "no storage.objects.get access"}}')
            if name not in bucket.objects:
                return self._reply(404, b'{"error": {"code": 404, "message": "No such object"}}')
            data, status, more = bucket.objects[name], 200, {"x-goog-generation": "1"}
            if asked:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                start = int(first) if first else max(0, len(data) - int(last))
                part = data[start : int(last) + 1 if first and last else None]
                more["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
                data, status = part, 206
            return self._reply(status, data, more)

        def do_POST(self):
            place = urllib.parse.urlsplit(self.path)
            name = f"{place.path.split('/')[-2]}/{dict(urllib.parse.parse_qsl(place.query))['name']}"
            data = self.rfile.read(int(self.headers["Content-Length"]))
            bucket.requests.append(("POST", name, ""))
            if bucket.refused or (bucket.broken and bucket.broken in name):
                return self._reply(403, b'{"error": {"code": 403, "message": "no storage.objects.create access"}}')
            bucket.objects[name] = data
            return self._reply(200, json.dumps({"name": name, "generation": "1", "size": str(len(data))}).encode())

        def _name(self, path):
            bucket_name, _, name = path.removeprefix("/storage/v1/b/").partition("/o/")
            return f"{bucket_name}/{urllib.parse.unquote(name)}"

        def _reply(self, status, data, more=None):
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), **(more or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has what it wanted, and hangs up
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    bucket.environment = {"CLOUD_STORAGE_EMULATOR_ENDPOINT": url, "TENSORSTORE_GCS_HTTP_URL": url}
    before = {name: os.environ.get(name) for name in bucket.environment}
    os.environ |= bucket.environment
    try:
        yield bucket
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        server.shutdown()
        server.server_close()
