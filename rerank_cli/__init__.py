"""rerank: reranks files of queries and candidate passages with cross-encoder models.

`Reranker`, `RankedDocument` and `run_file` are imported from `rerank_cli.api` when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerank_cli.api import RankedDocument, Reranker, run_file

__version__ = "0.1.0"
__all__ = ["RankedDocument", "Reranker", "__version__", "run_file"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("rerank_cli.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
