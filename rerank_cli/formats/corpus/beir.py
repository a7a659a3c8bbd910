"""A data set in BEIR's layout, or FlagEmbedding's variant of it: where its corpus, queries and judgements lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rerank_cli.display import shown
from rerank_cli.errors import InputError

_FORMS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".jsonl.lz4", ".parquet", ".tsv", ".tsv.gz", "")


@dataclass(frozen=True, slots=True)
class BeirFolder:
    """Paths of its parts; `qrels` is None where there are no judgements for the split."""

    corpus: str
    queries: str
    qrels: str | None


def beir_folder(path: str, split: str = "test") -> BeirFolder:
    """The parts of a folder. InputError if it has no corpus or no queries."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{shown(path, 300)}: is no folder (expected BEIR's layout: corpus.jsonl, queries.jsonl)")
    qrels = [folder / "qrels" / f"{split}.tsv", *_forms(folder, f"{split}_qrels")]
    return BeirFolder(
        _part(folder, "corpus"),
        _part(folder, f"{split}_queries", "queries"),
        next((str(file) for file in qrels if file.exists()), None),
    )


def _part(folder: Path, *names: str) -> str:
    found = next((file for name in names for file in _forms(folder, name) if file.exists()), None)
    if found is None:
        raise InputError(f"{shown(str(folder), 300)}: has no {names[-1]}.jsonl (nor .parquet, .tsv or compressed ones)")
    return str(found)


def _forms(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}{form}" for form in _FORMS]
