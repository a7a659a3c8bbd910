"""Reranking from Python: `Reranker` for texts in memory, `run_file` for whole files.

Keywords are the flags of the command without their dashes, declared and checked once, in `cli/flags/`. Importing this
package imports neither torch nor transformers. `rerank_cli` exports the same names.
"""

from rerank_cli.api.files import run_file
from rerank_cli.api.reranker import RankedDocument, Reranker

__all__ = ["RankedDocument", "Reranker", "run_file"]
