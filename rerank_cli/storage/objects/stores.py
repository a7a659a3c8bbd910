"""Which store a remote path belongs to. A library is imported with the first path that needs it."""

from __future__ import annotations

from functools import lru_cache
from typing import cast

from rerank_cli.storage.objects.store import Store, WritableStore
from rerank_cli.storage.remote import BUCKETS, split


def store_of(path: str) -> tuple[Store, str]:
    """The store of a remote path, and the key in it. UsageError for a scheme that is not known or lacks its library."""
    scheme, bucket, key = split(path)
    if scheme in BUCKETS:
        return _bucket(scheme, bucket), key
    if scheme == "hf":
        from rerank_cli.storage.objects.hub import HubStore

        return HubStore(), path.partition("://")[2]
    from rerank_cli.storage.objects.web import WebStore

    return WebStore(), path


def writable(path: str) -> tuple[WritableStore, str]:
    """As `store_of`, for a path in a bucket."""
    store, key = store_of(path)
    return cast("WritableStore", store), key


@lru_cache(maxsize=64)
def _bucket(scheme: str, bucket: str) -> WritableStore:
    from rerank_cli.storage.objects.buckets import ObjectStore

    return ObjectStore(scheme, bucket)
