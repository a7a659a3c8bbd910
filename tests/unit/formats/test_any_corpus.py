"""Whatever stands in a run, in queries or a corpus: records, rejections, or an error of ours, and never another."""

from contextlib import closing, suppress

import orjson
import pytest
from corpora import TREC, beir_corpus, beir_queries, lines, options, placed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_cli.errors import InputError
from rerank_cli.formats import open_source
from rerank_cli.formats.corpus import building as corpus_building
from rerank_cli.records import Rejection, Request

WHOLE = {
    "run.trec": ["".join(f"{line}\n" for line in TREC).encode(), lines({"query-id": "q1", "corpus-ids": ["d1"]})],
    "queries.jsonl": [lines(*beir_queries()), b"q1\twhat is it?\n2\tand this?\n"],
    "corpus.jsonl": [lines(*beir_corpus()), b"d1\ta text\nd2\tanother\n", b"id\ttitle\ttext\nd1\tt\tx\n"],
}
ATOMS = st.sampled_from(
    ["q1", "d1", "Q0", "\t", " ", "\n", "\r\n", "1", "-1e999", "nan", "\x00", "\ufeff", "é", "{", "}"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["q1", "d1", "", " "]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["_id", "id", "text", "title", "query-id", "corpus-ids", "docid", "score", "q1", "rank"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
CONTENT = (
    st.lists(ATOMS, max_size=30).map(lambda atoms: "".join(atoms).encode())
    | st.lists(VALUES, max_size=5).map(lambda values: b"".join(orjson.dumps(value) + b"\n" for value in values))
    | VALUES.map(orjson.dumps)
    | st.binary(max_size=60)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@st.composite
def spoiled(draw, name):
    """Anything, or a good file with something else in its midst."""
    content = draw(CONTENT)
    if draw(st.booleans()):
        return content
    good = draw(st.sampled_from(WHOLE[name]))
    at = draw(st.integers(0, len(good)))
    return good[:at] + content + good[at + draw(st.integers(0, 9)) :]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("sort", [False, True])
def test_any_content_is_read_or_refused(folder, monkeypatch, name, sort):
    monkeypatch.setattr(corpus_building, "SMALL_BYTES", 1 << 20)

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(spoiled(name))
    def reads(content):
        placed(folder)
        (folder / name).write_bytes(content)
        with suppress(InputError), closing(open_source(options(folder, sort=sort))) as source:
            for record in source:
                assert isinstance(record, Request | Rejection)
                orjson.dumps([record.id, [c.source for c in getattr(record, "candidates", ())]])

    reads()
