"""A cross-encoder for MTEB's reranking tasks. Needs the extra `mteb`: pip install 'rerank-cli[mteb]'."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from mteb.models.model_meta import ModelMeta

from rerank_cli.api.reranker import Reranker


class RerankCrossEncoder:
    """A `Reranker` as a `CrossEncoderProtocol` of mteb, for `mteb.evaluate(model, tasks)`.

    `name` is the name of the model in results, `organisation/model`; by default that of the reranker's model.
    """

    def __init__(self, reranker: Reranker, name: str | None = None) -> None:
        self._reranker = reranker
        found = name or reranker.facts.name.rstrip("/")
        if "/" not in found or found.count("/") > 1:
            found = f"rerank/{found.rpartition('/')[2]}"
        self._meta: Any = ModelMeta.create_empty(
            overwrites={"name": found, "revision": reranker.facts.revision, "model_type": ["cross-encoder"]}
        )

    @property
    def mteb_model_meta(self) -> Any:
        """Name and kind of the model."""
        return self._meta

    def predict(self, inputs1: Any, inputs2: Any, **_: Any) -> npt.NDArray[np.float32]:
        """The logit of each pair of a query in `inputs1` and a document in `inputs2`, which are batches with `text`.

        Raises ValueError for inputs without a text, such as images, and the errors of `Reranker.score`.
        """
        queries, documents = _texts(inputs1), _texts(inputs2)
        pairs = list(zip(queries, documents, strict=True))
        return np.asarray(self._reranker.score(pairs, scores="raw"), dtype=np.float32)


def _texts(batches: Any) -> list[str]:
    found: list[str] = []
    for batch in batches:
        if "text" not in batch:
            raise ValueError(f"reranking needs texts (got {', '.join(batch)}). Fix: a task of texts")
        found += batch["text"]
    return found
