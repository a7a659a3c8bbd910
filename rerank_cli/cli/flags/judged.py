"""Judgements from a file or from a set of ir_datasets."""

from __future__ import annotations

from rerank_cli.errors import UsageError


def judgements(qrels: str | None, dataset: str | None) -> str:
    """The file of judgements: `--qrels`, else those of the set. Raises UsageError if there are none."""
    if qrels is not None:
        return qrels
    if dataset is None:
        raise UsageError("--qrels is missing. Fix: --qrels FILE, or --dataset ID for a set of ir_datasets")
    from rerank_cli.formats.corpus.dataset import dataset_files

    return dataset_files(dataset, qrels=True).qrels
