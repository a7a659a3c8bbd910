"""Files of repositories on the Hugging Face Hub: `hf://datasets/OWNER/NAME/file`, with `@REVISION` after NAME.

Found with huggingface_hub, which also finds the token; a revision is resolved to a commit, whose files never change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rerank_cli.display import shown
from rerank_cli.errors import UsageError
from rerank_cli.storage.objects.store import Facts, StoreError
from rerank_cli.storage.objects.web import WebStore

_TYPES = {"datasets": "dataset", "spaces": "space"}


class HubStore:
    """Keys are paths after `hf://`. A version is that of the file's content, with the commit it was found in."""

    def facts(self, key: str) -> Facts:
        from huggingface_hub import get_hf_file_metadata

        repository, kind, revision, path = _parts(key)
        if not path:
            raise FileNotFoundError(2, "there is no such file")
        url = self._url(repository, kind, revision, path)
        try:
            found = get_hf_file_metadata(url)
        except Exception as error:
            raise _problem(error) from error
        if found.size is None or not found.etag:
            raise StoreError("the Hub does not say how large the file is")
        return Facts(found.size, f"{found.etag} {found.commit_hash}")

    def read(self, key: str, start: int, length: int, version: str) -> bytes:
        from huggingface_hub.utils._headers import build_hf_headers

        repository, kind, _, path = _parts(key)
        store = WebStore(build_hf_headers())
        url = self._url(repository, kind, version.rpartition(" ")[2], path)
        return store.read(url, start, length, None)

    def listed(self, folder: str) -> Iterator[tuple[str, Facts]]:
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        repository, kind, revision, path = _parts(folder)
        base = folder[: len(folder) - len(path)].rstrip("/")
        try:
            items = HfApi().list_repo_tree(
                repository, path.rstrip("/") or None, recursive=True, revision=revision, repo_type=kind
            )
            for item in items:
                if isinstance(item, RepoFile):
                    yield f"{base}/{item.path}", Facts(item.size, item.blob_id)
        except Exception as error:
            if type(error).__name__ == "EntryNotFoundError":
                return
            raise _problem(error) from error

    @staticmethod
    def _url(repository: str, kind: str, revision: str | None, path: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(repository, path, repo_type=kind, revision=revision)


def _parts(key: str) -> tuple[str, str, str | None, str]:
    """Repository, its type, revision and the path in it. Raises UsageError for a path that names no repository."""
    first, _, rest = key.partition("/")
    kind = _TYPES.get(first, "model")
    owner, _, rest = (rest if first in _TYPES else key).partition("/")
    name, _, path = rest.partition("/")
    if not owner or not name:
        raise UsageError(f"hf://{shown(key)}: names no file (expected hf://datasets/OWNER/NAME/FILE)")
    name, _, revision = name.partition("@")
    return f"{owner}/{name}", kind, revision or None, path


def _problem(error: Any) -> OSError:
    name = type(error).__name__
    if name in ("RemoteEntryNotFoundError", "EntryNotFoundError", "RevisionNotFoundError"):
        return FileNotFoundError(2, "there is no such file")
    if name in ("RepositoryNotFoundError", "GatedRepoError"):
        return StoreError("there is no such repository, or it needs a token. Fix: hf auth login, or HF_TOKEN")
    if name in ("OfflineModeIsEnabled", "LocalEntryNotFoundError"):
        return StoreError("the Hub cannot be reached (HF_HUB_OFFLINE is set, or there is no network)")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 404:
        return FileNotFoundError(2, "there is no such file")
    if status in (401, 403):
        return StoreError(f"access is denied ({status}). Fix: hf auth login, or HF_TOKEN")
    return StoreError(f"the Hub answered {status}" if status else f"the Hub does not answer ({name})")
