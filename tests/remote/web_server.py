"""A web server on this machine: files by ranges with an ETag, or whole; with redirections and faults."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebServer:
    """Serves `files` by path. `seen` are the requests: path with query, and headers. `faults` are answered first."""

    def __init__(self, ranges=True):
        self.files, self.seen, self.faults, self.redirects = {}, [], [], {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.seen.append((self.path, dict(self.headers)))
                path = self.path.partition("?")[0]
                if outer.faults:
                    return self.answer(outer.faults.pop(0), b"")
                if path in outer.redirects:
                    return self.answer(302, b"", {"Location": outer.redirects[path]})
                data = outer.files.get(path)
                if data is None:
                    return self.answer(404, b"")
                about = {"ETag": f'"{hash(data)}"', "X-Repo-Commit": "c" * 40, "Content-Type": "text/plain"}
                asked = self.headers.get("Range")
                if not asked or not ranges:
                    return self.answer(200, data, about)
                begin, end = map(int, asked.removeprefix("bytes=").split("-"))
                if begin >= len(data):
                    return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                part = data[begin : end + 1]
                place = f"bytes {begin}-{begin + len(part) - 1}/{len(data)}"
                return self.answer(206, part, about | {"Content-Range": place})

            do_HEAD = do_GET  # noqa: N815

            def do_PUT(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.answer(outer.faults.pop(0) if outer.faults else 405, b"")

            def answer(self, status, data, headers=None):
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
