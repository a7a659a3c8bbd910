"""Buckets of S3, Google Cloud Storage and Azure through obstore.

Credentials are found by obstore: the environment, roles of the machine or the pod, Google's default credentials. AWS
profiles and single sign-on are read by boto3, if it is installed. obstore repeats requests that fail with 429, 500 to
504 or without an answer, with growing pauses; what breaks while a body is read is repeated here. Its errors and
Python's own (FileNotFoundError, PermissionError) have no common base class; none is dropped: each is raised again, or
as an OSError with a message of ours, unless the object shows that the request has succeeded.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from rerank_cli.display import shown
from rerank_cli.errors import UsageError
from rerank_cli.storage.objects.store import Buffer, ChangedObject, Facts, StoreError

T = TypeVar("T")
_RETRY = {
    "max_retries": 8,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=8), "base": 2},
    "retry_timeout": timedelta(seconds=90),
}
_ATTEMPTS = 6  # at requests whose body broke, each with obstore's own repetitions
_CLIENT = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=120)}
_PART = 16 << 20  # bytes of a part of an upload; smaller files are put in one request
_MOST_PARTS = 9000  # S3 takes 10,000
_DENIED = "access is denied. Fix: check the credentials in the environment, and what they allow"


class ObjectStore:
    """A bucket or container, as a `WritableStore`."""

    def __init__(self, scheme: str, bucket: str) -> None:
        """Opens no connection. Raises UsageError if obstore, or what the credentials need, is missing."""
        try:
            import obstore
            from obstore.store import AzureStore, GCSStore, S3Store
        except ImportError as error:
            raise UsageError(f"{scheme}:// needs obstore. Fix: pip install 'rerank-cli[remote]'") from error
        self._api: Any = obstore
        client = _CLIENT | {"allow_http": _is_plain(scheme)}
        options: dict[str, Any] = {"client_options": client, "retry_config": _RETRY}
        try:
            if scheme == "s3":
                self._store: Any = S3Store(bucket, **_s3_options(), **options)
            else:
                self._store = (GCSStore if scheme == "gs" else AzureStore)(bucket, **options)
        except UsageError:
            raise
        except Exception as error:
            reason = shown(str(error).splitlines()[0], 200) if str(error) else type(error).__name__
            raise UsageError(f"{scheme}://{bucket}: {reason}. Fix: the credentials in the environment") from error

    def facts(self, key: str) -> Facts:
        # A GET, not a HEAD: its answer says whether it is the bucket that is missing.
        def ask() -> Facts:
            try:
                found = self._api.get(self._store, key, options={"range": (0, 1)})
            except Exception as error:
                if " 416 " not in str(error):  # an empty object has no first byte
                    raise
                found = self._api.get(self._store, key)
            meta = found.meta
            own = {name: value for name, value in found.attributes.items() if not name[:1].isupper()}
            return Facts(meta["size"], _version(meta), meta["last_modified"].timestamp(), own)

        return self._tried(ask)

    def read(self, key: str, start: int, length: int, version: str) -> Buffer:
        condition = {} if version.startswith("@") else {"if_match": version}
        options = {"range": (start, start + length), **condition}

        def ask() -> Buffer:
            data = self._api.get(self._store, key, options=options).bytes()
            if len(data) != length:
                raise StoreError(f"the answer has {len(data):,} bytes (expected {length:,})")
            return cast("Buffer", data)

        return self._tried(ask) if length else b""

    def listed(self, folder: str) -> Iterator[tuple[str, Facts]]:
        def ask() -> list[tuple[str, Facts]]:
            batches = self._api.list(self._store, folder.rstrip("/") or None)
            found = [meta for batch in batches for meta in batch]
            return [(m["path"], Facts(m["size"], _version(m), m["last_modified"].timestamp())) for m in found]

        yield from self._tried(ask)

    def put(self, key: str, data: bytes, attributes: Mapping[str, str] | None = None) -> str:
        def ask() -> str:
            given = dict(attributes) if attributes else None
            return str(self._api.put(self._store, key, data, attributes=given, use_multipart=False)["e_tag"])

        return self._tried(ask)

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        return self._put_if(key, data, "create")

    def put_if_version(self, key: str, data: bytes, version: str) -> str | None:
        return self._put_if(key, data, {"e_tag": version})

    def _put_if(self, key: str, data: bytes, mode: Any) -> str | None:
        def ask() -> str | None:
            try:
                return str(self._api.put(self._store, key, data, mode=mode)["e_tag"])
            except Exception as error:
                if isinstance(error, FileNotFoundError) and isinstance(mode, dict) and _status(error) != "bucket":
                    return None
                if type(error).__name__ in ("AlreadyExistsError", "PreconditionError"):
                    # The answer to an attempt that succeeded may have been lost.
                    with suppress(FileNotFoundError):
                        found = self._api.get(self._store, key)
                        if bytes(found.bytes()) == data:
                            return _version(found.meta)
                    return None
                if " 501 " in str(error) or type(error).__name__ == "NotImplementedError":
                    raise StoreError("the store has no conditional writes, which a lock needs") from error
                raise

        return self._tried(ask)

    def upload(self, key: str, path: Path, attributes: Mapping[str, str]) -> None:
        size = path.stat().st_size
        if size <= _PART:
            self.put(key, path.read_bytes(), attributes)
            return
        part = max(_PART, -(-size // _MOST_PARTS))

        def ask() -> None:
            given = dict(attributes)
            try:
                self._api.put(
                    self._store, key, path, attributes=given, use_multipart=True, chunk_size=part, max_concurrency=4
                )
            except Exception:
                # The answer to a completed upload may have been lost.
                with suppress(OSError):
                    found = self.facts(key)
                    if given and found.size == size and found.attributes == given:
                        return
                raise

        self._tried(ask)

    def delete(self, keys: Sequence[str]) -> None:
        def ask() -> None:
            with suppress(FileNotFoundError):
                self._api.delete(self._store, list(keys))

        if keys:
            self._tried(ask)

    def _tried(self, ask: Callable[[], T]) -> T:
        """The result of a request, repeated if the connection broke. Raises OSError with a reason of one line."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return ask()
            except StoreError as error:
                if attempt == _ATTEMPTS:
                    raise
                problem: OSError = error
            except Exception as error:
                problem = _problem(error)
                if attempt == _ATTEMPTS or not _is_passing(error):
                    raise problem from error
            time.sleep(0.2 * 2**attempt)
        raise problem


def _is_plain(scheme: str) -> bool:
    """Whether an endpoint without TLS is set, as for a server on this machine."""
    names = {
        "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "gs": ("GOOGLE_BASE_URL", "STORAGE_EMULATOR_HOST"),
        "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    }[scheme]
    return any(os.environ.get(name, "").startswith("http://") for name in names)


def _s3_options() -> dict[str, Any]:
    """What obstore does not take from the environment: an endpoint of S3 alone, and credentials of a profile."""
    found: dict[str, Any] = {}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3"):
        found["endpoint"] = endpoint
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"):
        return found
    profile = os.environ.get("AWS_PROFILE")
    names = ("AWS_CONFIG_FILE", ".aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")
    files = [Path(os.environ.get(name) or Path.home() / place) for name, place in names]
    if not profile and not any(file.is_file() for file in files):
        return found
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        if profile:
            raise UsageError(f"the profile {profile} (AWS_PROFILE) is read by boto3. Fix: pip install boto3") from None
        return found
    try:
        session = boto3.Session()
        if session.get_credentials() is not None:
            found["credential_provider"] = Boto3CredentialProvider(session)
    except Exception as error:
        raise UsageError(f"AWS credentials: {shown(str(error), 200)}") from error
    return found


def _version(meta: Mapping[str, Any]) -> str:
    """The ETag; with an `@` before it, the time of the last change of an object that has none."""
    return str(meta.get("e_tag") or f"@{meta['last_modified'].timestamp()}")


def _status(error: Exception) -> str:
    """The HTTP status in an error's message, `bucket` if it is the bucket that is missing, "" if there is none."""
    text = str(error)
    if any(name in text for name in ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")):
        return "bucket"
    found = re.search(r"status code: (\d{3})", text)
    return found[1] if found else ""


def _is_passing(error: Exception) -> bool:
    """Whether another attempt may succeed: the connection broke, or the store could not answer."""
    status = _status(error)
    return type(error).__name__ in ("GenericError", "JoinError") and not (status == "bucket" or status.startswith("4"))


def _problem(error: Exception) -> OSError:
    """The error as an OSError without addresses, headers and debug output."""
    name, text, status = type(error).__name__, str(error), _status(error)
    if status == "bucket":
        return StoreError("there is no such bucket")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(2, "there is no such object")
    if name == "PreconditionError":
        return ChangedObject("was changed while it was read. Fix: run the same command again")
    if "169.254.169.254" in text or "redential" in text or "metadata.google" in text or "oauth2" in text:
        return StoreError(
            "no credentials were found that work. Fix: set them in the environment, as the cloud's own tools"
        )
    if name in ("PermissionDeniedError", "UnauthenticatedError") or status in ("401", "403"):
        return StoreError(_DENIED)
    if status in ("301", "307") or "PermanentRedirect" in text or "without LOCATION" in text:
        return StoreError("the bucket is in another region. Fix: AWS_REGION")
    if status:
        return StoreError(f"the store answered {status} again and again")
    plain = re.sub(r"https?://\S+", "the store", text.splitlines()[0] if text else name)
    return StoreError(f"the store does not answer ({shown(plain.rpartition(' - ')[2], 160)})")
