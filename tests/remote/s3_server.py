"""A real S3 API on this machine (moto's), and a proxy before it that answers with faults and cuts connections."""

import http.client
import logging
import random
import re
import threading
import urllib.parse
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}


class S3Server:
    """Buckets in memory; `env` has what a process needs to use it."""

    def __init__(self):
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.env = CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def request(self, method, path, data=None):
        """Anything, past the library that is tested; the body of the answer."""
        who = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        headers = {"Authorization": who, "Content-Type": "application/octet-stream"}
        target = f"http://127.0.0.1:{self.port}/{urllib.parse.quote(path, safe='/?=&-')}"
        request = urllib.request.Request(target, data, headers, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def stop(self):
        self._server.stop()


class Bucket:
    """A bucket of its own for a test."""

    def __init__(self, server, name):
        self.server, self.name, self.env = server, name, server.env
        server.request("PUT", name)

    def __truediv__(self, key):
        return f"s3://{self.name}/{key}"

    def put(self, key, data):
        self.server.request("PUT", f"{self.name}/{key}", data)
        return self / key

    def get(self, key):
        return self.server.request("GET", f"{self.name}/{key}")

    def keys(self):
        """All objects, and uploads that were begun and neither completed nor aborted."""
        listed = self.server.request("GET", f"{self.name}?list-type=2").decode()
        begun = self.server.request("GET", f"{self.name}?uploads").decode()
        return sorted(
            re.findall("<Key>(.*?)</Key>", listed) + [f"upload of {k}" for k in re.findall("<Key>(.*?)</Key>", begun)]
        )


class FaultyProxy:
    """Passes requests on to a server, and does harm to some of them, drawn from a seed.

    `share` of them get an answer of 500 or 503, or a connection that is cut: before the server was asked, after it has
    answered, or in the middle of the body.
    """

    def __init__(self, port, share, seed=1):
        self.faults, self.requests, self.share = 0, 0, share
        self._random, self._lock = random.Random(seed), threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size)
                fault = outer.drawn()
                if fault in ("500", "503"):
                    self.send_response(int(fault))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fault == "cut before":
                    self.cut()
                    return
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                if fault == "cut after":
                    self.cut()
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if fault == "cut within":
                    self.wfile.write(data[: len(data) // 2])
                    self.cut()
                    return
                self.wfile.write(data)

            def cut(self):
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(2)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def drawn(self):
        with self._lock:
            self.requests += 1
            if self._random.random() >= self.share:
                return None
            self.faults += 1
            return self._random.choice(["500", "503", "cut before", "cut after", "cut within"])

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
