import orjson
import pytest

from rerank_cli.reports.collect import ReportOptions, findings


@pytest.fixture
def lines(tmp_path):
    """Objects as a file of JSON lines; text as it is."""

    def lines(name, records):
        path = tmp_path / name
        path.write_bytes(
            records.encode() if isinstance(records, str) else b"".join(orjson.dumps(r) + b"\n" for r in records)
        )
        return str(path)

    return lines


@pytest.fixture
def found(lines):
    """Findings of some answers."""

    def found(answers, requests=None, qrels=None, baseline=None, summary=None):
        return findings(
            ReportOptions(
                lines("out.jsonl", answers),
                (lines("in.jsonl", requests),) if requests else (),
                lines("qrels.txt", qrels) if qrels else None,
                lines("base.trec", baseline) if baseline else None,
                lines("figures.json", [summary]) if summary else None,
            )
        )

    return found
