"""The Python face as a type checker sees it from a user's program."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROGRAM = """
from pathlib import Path
from rerank_cli import Reranker, run_file

with Reranker("mini", dtype="fp32", cutoff_layers=(8, 28)) as reranker:
    texts: list[str] = ["a"]
    pages: list[dict[str, str]] = [{"text": "a"}]
    asked: list[tuple[str, list[str]]] = [("q", texts)]
    reveal_type(reranker.score([("q", "a")]))
    reveal_type(reranker.rank("q", pages, top_n=2))
    reveal_type(reranker.rank("q", (text for text in texts)))
    reveal_type(reranker.rank_many(asked))
    reranker.rank_many({"query": query, "documents": texts} for query in texts)
reveal_type(run_file(Path("in.jsonl"), "out.jsonl", model="mini", top_n=10, on_error="skip"))
Reranker("mini", dtype="half")
Reranker("mini", max_lenght=3)
run_file("in.jsonl", "out.jsonl", top_n="3")
"""


def test_results_have_their_types_and_wrong_keywords_are_errors(tmp_path):
    """With this project's settings, which are strict, and its cache of mypy, which otherwise takes a minute."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--hide-error-context", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    ranked = "list[rerank_cli.api.reranker.RankedDocument]"
    revealed = re.findall(r'Revealed type is "(.*)"', ended.stdout)
    assert "floating" in revealed[0]
    summaries = "rerank_cli.run.summary.Summary | rerank_cli.run.folders.figures.FolderSummary"
    assert revealed[1:] == [ranked, ranked, f"typing.Iterator[{ranked}]", summaries]
    wrong = [PROGRAM.splitlines()[int(line) - 1] for line in re.findall(r":(\d+): error", ended.stdout)]
    assert wrong == PROGRAM.splitlines()[-3:], ended.stdout
