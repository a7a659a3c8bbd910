"""Strategies for input that nobody should send: JSON text, damaged bytes, Parquet columns of every type."""

import bz2
import datetime as dt
import decimal
import gzip
import io
import json
import lzma

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import reject
from hypothesis import strategies as st

from rerank_cli.formats.shapes.fields import DOC_ID, DOCUMENTS, FIRST_SCORE, INSTRUCTION, QUERY, QUERY_ID, TEXT
from rerank_cli.formats.shapes.request_options import NAMES as OPTIONS
from rerank_cli.formats.writing.answers import RESERVED
from rerank_cli.formats.writing.pair_rows import OURS

COMPRESS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "lz4": lz4.frame.compress,
    "xz": lzma.compress,
}
OTHERS = ["pos", "neg", "doc", "title", "url", "input", "hits", "responses", "root", "result", "data", "value", "x"]
NAMES = [
    *QUERY,
    *QUERY_ID,
    *DOCUMENTS,
    *TEXT,
    *DOC_ID,
    *FIRST_SCORE,
    *INSTRUCTION,
    *sorted(RESERVED),
    *OURS,
    *OTHERS,
    *sorted(OPTIONS),
]
RECORDS = [
    {"id": 7, "query": "q", "documents": ["a", {"docid": "d", "title": "t", "text": "b", "score": 1.5}], "top_n": 1},
    {"_id": "q", "question": "q", "pos": ["a"], "neg": ["b"], "prompt": "p", "return_documents": False, "y": {"z": []}},
    {"id": "q", "text_1": "q", "text_2": ["a", "b"], "max_tokens_per_doc": 3},
    {"qid": 1, "query": "q", "docid": 2, "title": "t", "text": "a", "score": 0.5, "rank": 1},
    {"query": {"qid": 1, "text": "q"}, "candidates": [{"docid": 1, "score": 2, "doc": {"title": "t", "body": "a"}}]},
    {"custom_id": "c", "url": "/v1/rerank", "body": {"query": "q", "documents": ["a", {"text": "b"}], "top_n": 0}},
    {"custom_id": "c", "url": "/v1/score", "body": {"text_1": "q", "text_2": "a"}},
    {
        "query": "q",
        "hits": {"hits": [{"_index": "i", "_id": "d", "_score": 1, "_source": {"title": "t", "body": "a"}}]},
    },
    {"queries": ["q", "r"], "responses": [{"hits": {"hits": []}}, {"hits": {"hits": []}}]},
    {"query": "q", "documents": [{"node": {"id_": "d", "text": "a"}, "score": 0.5}], "rank_fields": ["text"]},
]
VALID = [b"".join(json.dumps({**record, "x": n}).encode() + b"\n" for n in (1, 2)) for record in RECORDS]

names = st.sampled_from(NAMES) | st.text(st.characters(), max_size=4)
depths = st.integers(1, 300) | st.integers(300, 6000)
leaves = st.one_of(
    st.sampled_from(["null", "true", "-0", "0.0", "1e308", "1e400", "-1e400", "NaN", "Infinity", "01", "+1", "1."]),
    st.sampled_from(['"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\u001b"', '""', '" "', "{}", "[]"]),
    st.integers(-(2**70), 2**70).map(str),
    st.integers(1, 6000).map("9".__mul__),
    st.floats().map(repr),
    st.text(st.characters(), max_size=8).map(json.dumps),
    st.text(st.characters(), max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
    depths.map(lambda depth: "[" * depth + "]" * depth),
    depths.map(lambda depth: '{"a":' * depth + "1" + "}" * depth),
)


def _around(inner):
    members = st.tuples(names.map(json.dumps), inner).map(":".join)
    return st.one_of(
        st.lists(inner, max_size=4).map(",".join).map("[{}]".format),
        st.lists(members, max_size=6).map(",".join).map("{{{}}}".format),
    )


json_text = st.recursive(leaves, _around, max_leaves=12)


def as_lines(texts):
    return b"".join(text.encode("utf-8", "surrogatepass") + b"\n" for text in texts)


def _places(value):
    """Each container in a value, with each of its keys."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


@st.composite
def spoiled(draw):
    """A valid record as JSON, in which one value is replaced, one key added, or something removed."""
    record = json.loads(json.dumps(draw(st.sampled_from(RECORDS))))
    holder, key = draw(st.sampled_from(list(_places(record))))
    how = draw(st.sampled_from(["replace", "replace", "add", "remove"]))
    if how == "remove":
        del holder[key]
    elif how == "add" and isinstance(holder, dict):
        holder[draw(st.sampled_from(NAMES))] = "@@"
    else:
        holder[key] = "@@"
    return json.dumps(record).replace('"@@"', draw(json_text))


@st.composite
def damaged(draw, contents):
    """Bytes of which up to four places are changed, cut out, filled up or cut off."""
    data = bytearray(draw(contents))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["flip", "flip", "insert", "delete", "cut"]))
        if how == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif how == "delete":
            del data[at : at + draw(st.integers(1, 20))]
        elif how == "cut":
            del data[at:]
    return bytes(data)


ARRAYS = [
    pa.array(["a", "b", None]),
    pa.array(["a", "", " "], pa.large_string()),
    pa.array(["a", "b", None], pa.string_view()),
    pa.array([b"\xff", b"a", None]).view(pa.string()),
    pa.array([b"a", b"\xff\x00", None]),
    pa.array([b"a", b"b", b"\xff"], pa.large_binary()),
    pa.array([b"ab", b"\xff\xff", None], pa.binary(2)),
    pa.array([None] * 3),
    pa.array([True, False, None]),
    pa.array([1, -128, None], pa.int8()),
    pa.array([1, -(2**63), 1]),
    pa.array([1, 2**64 - 1, None], pa.uint64()),
    pa.array([0.5, 1.0, None], pa.float16()),
    pa.array([float("nan"), float("-inf"), 1e308]),
    pa.array([decimal.Decimal("1.5"), None, decimal.Decimal(10) ** 30], pa.decimal256(60, 2)),
    pa.array([1, 2**31 - 1, None], pa.date32()),
    pa.array([1, 2, None], pa.time32("ms")),
    pa.array([1, 86_399_999_999_999, None], pa.time64("ns")),
    pa.array([1, 2**63 - 1, None], pa.duration("ns")),
    pa.array([1, 2**63 - 1, None], pa.duration("s")),
    pa.array([dt.datetime(2020, 1, 1), None, dt.datetime(1, 1, 1)]),
    pa.array([1, 2**62, None], pa.timestamp("ns", tz="Europe/Paris")),
    pa.array([1, -(2**62), None], pa.timestamp("ms", tz="No/Where")),
    pa.array([1, 0, None], pa.timestamp("us", tz="+05:30")),
    pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(range(16)), b"\xff" * 16, None], pa.binary(16))),
    pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", "oops", None])),
]


def lists_of(array):
    return pa.ListArray.from_arrays([0, 1, 2, 3], array)


def objects_of(**arrays):
    return pa.StructArray.from_arrays(list(arrays.values()), names=list(arrays))


def _holding(inner):
    keys = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)
    return st.one_of(
        inner.map(lists_of),
        inner.map(lambda array: pa.ListArray.from_arrays(pa.array([0, None, 1, 3], pa.int32()), array)),
        inner.map(lambda array: pa.LargeListArray.from_arrays(pa.array([0, 0, 3, 3], pa.int64()), array)),
        inner.map(lambda array: pa.FixedSizeListArray.from_arrays(array, 1)),
        inner.map(lambda array: pa.MapArray.from_arrays([0, 1, 1, 3], ["a", "a", "b"], array)),
        st.builds(lambda array, keys: pa.StructArray.from_arrays([array] * len(keys), names=keys), inner, keys),
        st.builds(objects_of, text=inner, id=inner),
    )


def _encoded(array):
    try:
        return array.dictionary_encode()
    except pa.ArrowException:
        return array


arrays = st.recursive(st.sampled_from(ARRAYS) | st.sampled_from(ARRAYS).map(_encoded), _holding, max_leaves=4)
TEXTS = pa.array(["a", "b", "c"])
TABLES = [
    {"query": TEXTS, "documents": lists_of(TEXTS)},
    {"qid": pa.array([1, 1, 2]), "query": pa.array(["a", "a", "b"]), "docid": pa.array([1, 2, 1]), "text": TEXTS},
    {"query": objects_of(qid=TEXTS, text=TEXTS), "candidates": lists_of(objects_of(docid=TEXTS, text=TEXTS))},
    {"text_1": TEXTS, "text_2": lists_of(TEXTS)},
    {"custom_id": TEXTS, "body": objects_of(query=TEXTS, documents=lists_of(TEXTS))},
]


@st.composite
def tables(draw):
    """A table that could be read, with columns of any type beside its own or in their place."""
    names = st.sampled_from(NAMES) | st.text(max_size=3)
    columns = st.dictionaries(names, arrays, max_size=3)
    documents = st.builds(lambda name, array: lists_of(objects_of(**{"text": TEXTS, name: array})), names, arrays)
    table = pa.table({**draw(st.sampled_from(TABLES)), **draw(columns)})
    if draw(st.booleans()):
        table = table.append_column(draw(names | st.just("documents")), draw(documents | arrays))
    return table


def as_parquet(table):
    file = io.BytesIO()
    try:
        pq.write_table(table, file)
    except (pa.ArrowException, OSError):
        reject()
    return file.getvalue()
