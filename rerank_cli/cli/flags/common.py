"""Single flags that several commands share."""

from __future__ import annotations

from rerank_cli.cli.flags.declare import BY_ID, INPUT, PROGRESS, flag
from rerank_cli.cli.terminal import completion

OVERWRITE = flag(False, "Replace an output that exists.")
TOP_N = flag(None, "Keep the best N candidates of each query.", "N", min=1)
LIMIT = flag(None, "Stop after N records.", "N", min=1, panel=INPUT)
GIVEN = flag(None, "What was reranked: queries and texts that the output left out.", "CANDIDATES", long="--input")
QRELS = flag(None, "Relevance judgements (qrels): TREC, MS MARCO, BEIR, MTEB or JSON lines.", "FILE")
DATASET = flag(None, "Set of ir_datasets whose judgements are taken, in place of --qrels.", "ID")
MEASURES = flag(
    None,
    "Measures of ir_measures, in any case [default: nDCG@10,RR@10,AP,R@100,P@10].",
    "M[,M]",
    autocompletion=completion.measures,
)
NORMALIZE = flag(None, "How the scores of a query are scaled before weighting [default: minmax].")
INDEX_DIR = flag(
    None, "Where the index of a large corpus is kept [default: beside it].", "DIR", panel=BY_ID, local=True
)
ID_FIELD = flag(None, "Field of the query id.", "FIELD", panel=INPUT)
DOC_ID_FIELD = flag(None, "Field of a candidate's id.", "FIELD", panel=INPUT)
AS_JSON = flag(False, "Print one JSON object instead of a table.", long="--json")
QUIET = flag(False, "Print nothing on stderr unless something fails.", short="-q")
VERBOSE = flag(False, "Print more on stderr.", short="-v", panel=PROGRESS)
