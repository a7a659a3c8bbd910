"""Flags that several commands share, each once. Every flag reads `RERANK_NAME` from the environment too."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from rerank_cli.records import Shape

DEFAULT_MODEL = "BAAI/bge-reranker-v2-m3"


class Dtype(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


def flag(*names: str, panel: str | None = None, **settings: Any) -> Any:
    """A typer option that also reads its long name from the environment."""
    long = next(name for name in names if name.startswith("--"))
    variable = "RERANK_" + long.removeprefix("--").replace("-", "_").upper()
    return typer.Option(*names, envvar=variable, show_envvar=False, rich_help_panel=panel, **settings)


Model = Annotated[str, flag("--model", "-m", metavar="MODEL", help="Hub id, folder, or the built-in 'mini'.")]
Revision = Annotated[str | None, flag("--revision", metavar="REV", help="Branch, tag or commit on the Hub.")]
Device = Annotated[str, flag("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[Dtype, flag("--dtype", help="auto is fp16 (bf16 for models stored so) on CUDA, fp32 elsewhere.")]
MaxLength = Annotated[
    int | None,
    flag("--max-length", metavar="N", min=1, help="Tokens of query, passage and specials together [default: 512]."),
]
QueryMaxLength = Annotated[
    int | None,
    flag("--query-max-length", metavar="N", min=1, help="Tokens of the query [default: 3/4 of --max-length]."),
]
BatchTokens = Annotated[
    str,
    flag("--batch-tokens", metavar="N", help="Tokens in a packed row; auto goes by device, model and free memory."),
]
Threads = Annotated[
    int | None, flag("--threads", metavar="N", min=1, help="CPU threads [default: all physical cores].")
]
InputShape = Annotated[Shape | None, flag("--shape", help="Shape of the records [default: told from the first].")]
QueryField = Annotated[str | None, flag("--query-field", metavar="FIELD", help="Field of the query; dots lead inside.")]
DocumentsField = Annotated[
    str | None, flag("--documents-field", metavar="FIELD", help="Field of the list of candidates.")
]
TextField = Annotated[str | None, flag("--text-field", metavar="FIELD", help="Field of a candidate's text.")]
IdField = Annotated[str | None, flag("--id-field", metavar="FIELD", help="Field of the record's (query's) id.")]
DocIdField = Annotated[str | None, flag("--doc-id-field", metavar="FIELD", help="Field of a candidate's id.")]
Given = Annotated[
    list[str] | None,
    flag("--input", metavar="CANDIDATES", help="What was reranked: queries and texts that the output leaves out."),
]
_QRELS = flag("--qrels", metavar="FILE", help="Relevance judgements: TREC, MS MARCO, BEIR, MTEB or JSON lines.")
Qrels = Annotated[str | None, _QRELS]
NeededQrels = Annotated[str, _QRELS]
Overwrite = Annotated[bool, flag("--overwrite", help="Replace an output that exists.")]
Limit = Annotated[int | None, flag("--limit", metavar="N", min=1, help="Stop after so many records.")]
TopN = Annotated[int | None, flag("--top-n", metavar="N", min=1, help="Keep the best N candidates of each query.")]
Quiet = Annotated[bool, flag("--quiet", "-q", help="Not a byte on stderr unless something fails.")]
Verbose = Annotated[bool, flag("--verbose", "-v", help="Say more on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
