"""Web addresses as a store that is read by ranges, with the standard library: proxies and certificates as elsewhere."""

from __future__ import annotations

import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from rerank_cli import __version__
from rerank_cli.errors import InputError
from rerank_cli.storage.objects.store import ChangedObject, Facts, StoreError

T = TypeVar("T")
_ATTEMPTS = 7
_SECONDS = 60.0  # without a byte, after which a connection is given up
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class WebStore:
    """Addresses as keys. `secret` are headers that are not sent on to another address by a redirection."""

    def __init__(self, secret: Mapping[str, str] | None = None) -> None:
        self._secret = dict(secret or {})

    def facts(self, key: str) -> Facts:
        # A GET of one byte, not a HEAD: a signed address is valid for one method.
        def ask() -> Facts:
            with self._open(key, 0, 1) as answer:
                headers = answer.headers
                if answer.status == 206:
                    total = headers.get("Content-Range", "").rpartition("/")[2]
                elif headers.get("Content-Length") == "0":
                    total = "0"
                else:
                    raise StoreError(
                        "the server does not send parts of a file (no Range). Fix: download it, or read it from stdin"
                    )
                if not total.isdigit():
                    raise StoreError("the server does not say how large the file is. Fix: download it")
                return Facts(int(total), _version(headers, int(total)))

        return self._tried(ask)

    def read(self, key: str, start: int, length: int, version: str | None) -> bytes:
        """With None as version it is not compared: the address names content that never changes."""

        def ask() -> bytes:
            with self._open(key, start, length) as answer:
                total = answer.headers.get("Content-Range", "").rpartition("/")[2]
                found = _version(answer.headers, int(total)) if answer.status == 206 and total.isdigit() else ""
                if not found or version not in (None, found):
                    raise ChangedObject("was changed while it was read. Fix: run the same command again")
                data: bytes = answer.read()
            if len(data) != length:
                raise ConnectionResetError
            return data

        return self._tried(ask) if length else b""

    def listed(self, folder: str) -> Iterator[tuple[str, Facts]]:
        raise InputError(f"{folder.partition('?')[0]}: a web server does not list files. Fix: name each file")

    def _open(self, key: str, start: int, length: int) -> Any:
        request = urllib.request.Request(key)
        request.add_header("Range", f"bytes={start}-{start + length - 1}")
        request.add_header("Accept-Encoding", "identity")
        request.add_header("User-Agent", f"rerank/{__version__}")
        for name, value in self._secret.items():
            request.add_unredirected_header(name, value)
        try:
            return urllib.request.urlopen(request, timeout=_SECONDS, context=_context())
        except urllib.error.HTTPError as error:
            if error.code == 416:  # an empty file has no first byte
                return _Empty(error.headers)
            raise

    def _tried(self, ask: Callable[[], T]) -> T:
        """The result of a request, repeated with growing pauses. Raises OSError with a reason of one line."""
        for attempt in range(1, _ATTEMPTS + 1):
            pause = 0.1 * 2**attempt
            try:
                return ask()
            except urllib.error.HTTPError as error:
                code, after = error.code, error.headers.get("Retry-After", "")
                error.close()
                if code in (404, 410):
                    raise FileNotFoundError(2, "there is no such file") from None
                if code in (401, 403):
                    raise StoreError(f"access is denied ({code}). Fix: a token or an address that is valid") from None
                if code not in _PASSING or attempt == _ATTEMPTS:
                    raise StoreError(f"the server answered {code}") from None
                pause = max(pause, min(30.0, float(after))) if after.isdigit() else pause
            except StoreError:
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                if isinstance(reason, ssl.SSLCertVerificationError):
                    raise StoreError(f"its certificate is not valid ({reason.verify_message})") from None
                if attempt == _ATTEMPTS or isinstance(error, ValueError):
                    number = getattr(reason, "errno", None)
                    what = os.strerror(number) if number and number > 0 else type(reason).__name__
                    raise StoreError(f"the server does not answer ({what})") from None
            time.sleep(pause)
        raise AssertionError


class _Empty:
    """The answer to a request for the first byte of an empty file."""

    status = 200

    def __init__(self, headers: Any) -> None:
        self.headers = {"ETag": headers.get("ETag", ""), "Content-Length": "0"}

    def __enter__(self) -> _Empty:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _context() -> ssl.SSLContext | None:
    """Certificates of the system, or those of certifi where the system has none."""
    if os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile:
        return None
    try:
        import certifi
    except ImportError:
        return None
    return ssl.create_default_context(cafile=certifi.where())


def _version(headers: Any, size: int) -> str:
    """What identifies the content: the ETag, else the time of the last change, with the size."""
    tag = headers.get("ETag") or headers.get("Last-Modified") or ""
    return f"{tag.removeprefix('W/')} {size}"
