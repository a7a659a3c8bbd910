"""Training data: every form gives the same groups; draws depend on seed, epoch and place; bad records are named."""

import csv
import gzip
import hashlib
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_records import PAIRS, RECORDS, batches, kept, lines, opened

from rerank_cli.choices import TrainFormat
from rerank_cli.errors import InputError
from rerank_cli.formats import InputOptions
from rerank_cli.formats.options import ById
from rerank_cli.formats.writing.training import Example, example_rows
from rerank_cli.training.data.open import BadRecords, DataOptions, open_data
from rerank_cli.training.data.rules import GroupRules
from rerank_cli.training.data.store import BatchPlan


def _json(path, records):
    path.write_text(json.dumps(records, indent=1))


def _spread(path, records):
    path.write_text("\n".join(json.dumps(record, indent=1) for record in records))


def _marked(path, records):
    lines(path, records)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def _gzip(path, records):
    with gzip.open(path, "wt") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))


def _parquet(path, records):
    pq.write_table(pa.Table.from_pylist(records), path)


def _csv(path, records, delimiter=","):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(records)


TRIPLETS = [{"anchor": r["query"], "positive": r["pos"][0], "negative": n} for r in RECORDS for n in r["neg"]]
TUPLES = [
    {"anchor": r["query"], "positive": r["pos"][0], **{f"negative_{k}": n for k, n in enumerate(r["neg"], 1)}}
    for r in RECORDS
]
LISTS = [{"query": r["query"], "documents": r["pos"] + r["neg"], "labels": [1, 0, 0, 0]} for r in RECORDS]
SENTENCES = [{"sentence1": p["query"], "sentence2": p["passage"], "label": p["label"]} for p in PAIRS]


@pytest.mark.parametrize(
    ("name", "write", "records"),
    [
        ("a.json", _json, RECORDS),
        ("spread.json", _spread, RECORDS),
        ("mark.jsonl", _marked, RECORDS),
        ("a.jsonl.gz", _gzip, RECORDS),
        ("a.parquet", _parquet, RECORDS),
        ("triplets.jsonl", lines, TRIPLETS),
        ("triplets-mark.jsonl", _marked, TRIPLETS),
        ("triplets.json", _json, TRIPLETS),
        ("triplets.parquet", _parquet, TRIPLETS),
        ("tuples.jsonl", lines, TUPLES),
        ("lists.jsonl", lines, LISTS),
        ("pairs.jsonl", lines, PAIRS),
        ("pairs.csv", _csv, PAIRS),
        ("sentences.tsv", lambda path, records: _csv(path, records, "\t"), SENTENCES),
    ],
)
def test_every_form_and_format_gives_the_same_groups(tmp_path, name, write, records):
    write(tmp_path / name, records)
    expected = batches(opened(lines(tmp_path / "expected.jsonl", RECORDS)))
    assert batches(opened(tmp_path / name)) == expected
    assert sorted(group.place for batch in expected for group in batch) == list(range(7))


@pytest.mark.parametrize("format", TrainFormat)
def test_what_mine_writes_is_read_as_the_same_groups(tmp_path, format):
    examples = [Example(record["query"], record["pos"], record["neg"]) for record in RECORDS]
    rows = [row for example in examples for row in example_rows(example, format)]
    expected = batches(opened(lines(tmp_path / "expected.jsonl", RECORDS)))
    assert batches(opened(lines(tmp_path / "mined.jsonl", rows))) == expected


def test_unsorted_pairs_are_grouped_by_sort(tmp_path):
    shuffled = random.Random(1).sample(PAIRS, len(PAIRS))
    data = opened(lines(tmp_path / "pairs.jsonl", shuffled), sort=True)
    assert len(data.groups) == 7
    drawn = {group.query: sorted(group.passages) for batch in batches(data) for group in batch}
    assert drawn == {record["query"]: sorted(record["neg"] + record["pos"]) for record in RECORDS}
    _csv(tmp_path / "pairs.csv", shuffled)
    for name in ("pairs.jsonl", "pairs.csv"):
        with pytest.raises(InputError, match="Fix: --sort, if rows of one query are apart, or --loss bce"):
            opened(tmp_path / name)


@pytest.mark.parametrize("records", [RECORDS, PAIRS, TRIPLETS, LISTS], ids=["groups", "pairs", "triplets", "lists"])
def test_a_label_field_that_is_not_there_is_no_positive(tmp_path, records):
    options = DataOptions(InputOptions((lines(tmp_path / "a.jsonl", records),)), label_field="gain")
    with pytest.raises(InputError, match=r"a.jsonl:1: there is no `gain` \(got "):
        open_data(options, GroupRules(4), BatchPlan(2), None, lambda _: None)


def test_rows_of_a_query_have_labels_or_none(tmp_path):
    _csv(tmp_path / "pairs.csv", [PAIRS[0], {**PAIRS[1], "label": ""}, *PAIRS[4:]])
    for labelled in (True, False):
        with pytest.raises(InputError, match=r"pairs.csv:2: some rows of this query have a label and others have none"):
            opened(tmp_path / "pairs.csv", labelled=labelled)
    data = opened(tmp_path / "pairs.csv", bad=BadRecords(skip=True))
    assert (len(data.groups), data.rejected) == (6, 1)


def test_labelled_pairs_need_no_positive_and_no_order(tmp_path):
    shuffled = random.Random(1).sample(PAIRS, len(PAIRS))
    data = opened(lines(tmp_path / "pairs.jsonl", shuffled), labelled=True, size=2)
    seen = [
        (g.query, p, v) for batch in batches(data) for g in batch for p, v in zip(g.passages, g.labels, strict=True)
    ]
    assert set(seen) <= {(p["query"], p["passage"], float(p["label"])) for p in PAIRS}
    assert len(seen) == len(set(seen))


def test_draws_depend_on_seed_epoch_and_place_alone(tmp_path):
    records = [{"query": f"q{i}", "pos": ["a", "b", "c"], "neg": [f"n{j}" for j in range(30)]} for i in range(12)]
    path = lines(tmp_path / "a.jsonl", records)
    first = {group.place: group for batch in batches(opened(path)) for group in batch}
    for data in (opened(path, batch=5), opened(path, shuffle=False), opened(path, batch=1)):
        assert {group.place: group for batch in batches(data) for group in batch} == first
    resumed = opened(path)
    assert resumed.groups.batch(9) == batches(opened(path), count=10)[9]  # of the second epoch, without the first
    second = {group.place: group for batch in batches(opened(path), first=6) for group in batch}
    assert second.keys() == first.keys()
    assert second != first
    assert {group.place: group for batch in batches(opened(path, seed=1)) for group in batch} != first
    assert len({group.passages for group in first.values()}) > 1  # the place counts


def test_the_order_changes_with_the_epoch_unless_it_is_the_files(tmp_path):
    path = lines(tmp_path / "a.jsonl", RECORDS * 3)
    orders = [[g.place for b in batches(opened(path), first=epoch * 11) for g in b] for epoch in range(2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(21))
    assert [g.place for b in batches(opened(path, shuffle=False), first=11) for g in b] == list(range(21))


def test_too_few_negatives_are_repeated_as_evenly_as_flagembedding_does(tmp_path):
    data = opened(lines(tmp_path / "a.jsonl", [{"query": "q", "pos": ["p"], "neg": ["a", "b"]}]), size=6)
    (group,) = data.groups.batch(0)
    assert group.passages[0] == "p"
    assert len(group.passages) == 6
    assert {group.passages.count("a"), group.passages.count("b")} == {2, 3}
    assert "1 of 1 groups have fewer than 5 negatives" in data.remarks[0]


def test_a_group_without_negatives_takes_positives_of_other_queries(tmp_path):
    records = [{"query": f"q{i}", "answer": f"p{i}"} for i in range(9)]
    data = opened(lines(tmp_path / "a.jsonl", records))
    for batch in batches(data):
        for group in batch:
            assert group.passages[0] == f"p{group.place}"
            assert len(set(group.passages)) == 4
            assert {text[0] for text in group.passages} == {"p"}
    assert data.groups.batch(1) == opened(tmp_path / "a.jsonl").groups.batch(1)
    with pytest.raises(InputError, match="no other query has a passage"):
        opened(lines(tmp_path / "one.jsonl", records[:1])).groups.batch(0)


def test_a_negative_that_equals_a_positive_is_left_out(tmp_path):
    record = {"query": "q", "pos": ["p"], "neg": ["a", "p", "b"], "pos_scores": [3], "neg_scores": [1, 2, 0]}
    (group,) = opened(lines(tmp_path / "a.jsonl", [record]), size=3).groups.batch(0)
    assert (group.passages, group.teacher) == (("p", "a", "b"), (3, 1, 0))


def test_teacher_scores_follow_the_draw(tmp_path):
    texts = [f"n{j}" for j in range(9)]
    record = {"query": "q", "pos": ["p"], "neg": texts, "pos_scores": [50], "neg_scores": list(range(9))}
    (group,) = opened(lines(tmp_path / "a.jsonl", [record])).groups.batch(0)
    assert group.teacher == (50, *(float(text[1:]) for text in group.passages[1:]))
    margins = lines(tmp_path / "m.jsonl", [{"anchor": "q", "positive": "p", "negative": "n", "score": 3.5}])
    (group,) = opened(margins, size=2).groups.batch(0)
    assert group.teacher == (3.5, 0)


def test_a_group_of_one_passage_needs_no_negatives(tmp_path):
    data = opened(lines(tmp_path / "a.jsonl", [{"query": "q", "pos": ["p"]}, RECORDS[0]]), size=1)
    assert [group.passages for group in data.groups.batch(0)] == [("p",), ("p0",)][
        :: 1 if data.groups.batch(0)[0].place == 0 else -1
    ]
    assert data.remarks == []


def test_labels_above_one_need_a_loss_for_them(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"query": "q", "documents": ["a", "b"], "labels": [3, 0]}])
    (group,) = opened(path, labelled=True).groups.batch(0)
    assert (group.passages, group.labels) == (("a", "b"), (3, 0))
    with pytest.raises(InputError, match=r"a.jsonl:1: the label is no probability \(got 3, expected 0 to 1\)"):
        opened(path, labelled=True, unit=True)


def test_longest_groups_come_first_with_their_longest_passages(tmp_path):
    records = [{"query": "q", "pos": ["p" * i], "neg": ["n" * i, "n", "m" * (9 * i)]} for i in range(1, 6)]
    data = opened(lines(tmp_path / "a.jsonl", records), size=2)
    found = data.groups.longest(2)
    assert [group.place for group in found] == [4, 3]
    assert found[0].passages == ("m" * 45, "p" * 5)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"query": "x", "pos": [], "neg": ["a"]}, "no positive"),
        ({"query": "x", "neg": ["a"]}, "no positive"),
        ({"pos": ["a"]}, "there is no query (got pos;"),
        ({"query": "x", "pos": ["a"], "neg": ["b"], "pos_scores": [1]}, "`neg_scores` does not have one number"),
        ({"query": "x", "passage": "a", "label": "yes"}, "`label` is not a finite number (got 'yes')"),
        ({"query": "x"}, "there is no passage (got query;"),
        ({"query": "x", "pos": [None]}, "document 0 is null"),
        ({"query": " ", "pos": ["a"]}, "`query` is empty"),
        ({"query": "x", "documents": ["a"]}, "there are no labels"),
        ({"query": "x", "pos": ["a"], "prompt": 3}, "`prompt` is not a string"),
        ('{"query": "x", "pos": ["a"', "the last line is cut off"),
        ("3", "the record is a number"),
    ],
)
def test_a_bad_record_is_one_line_or_left_out(tmp_path, record, message):
    path = tmp_path / "a.jsonl"
    good = json.dumps(RECORDS[0]) + "\n"
    path.write_text(good + (record if isinstance(record, str) else json.dumps(record)))
    with pytest.raises(InputError) as raised:
        opened(path)
    assert str(raised.value).startswith(f"{path}:2: ")
    assert message in str(raised.value)
    assert "Fix: " in str(raised.value)
    data = opened(path, bad=BadRecords(skip=True, errors=str(tmp_path / "errors.jsonl")))
    assert (len(data.groups), data.rejected) == (1, 1)
    (written,) = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    assert written["line"] == 2
    with pytest.raises(InputError, match="more than --max-errors 0"):
        opened(path, bad=BadRecords(skip=True, most=0))


def test_bad_rows_inside_a_group_are_left_out_when_it_is_read_again(tmp_path):
    rows = [json.dumps(row) for row in PAIRS[:4]]
    (tmp_path / "a.jsonl").write_text("\n".join([rows[0], "{", "", rows[1], '{"query": "q0"}', rows[2], rows[3]]))
    data = opened(tmp_path / "a.jsonl", bad=BadRecords(skip=True))
    assert (len(data.groups), data.rejected) == (1, 2)
    assert data.groups.batch(0)[0].passages == ("p0", "n00", "n01", "n02")


def test_files_are_named_by_patterns_and_identified_by_their_content(tmp_path):
    for name in "ba":
        lines(tmp_path / f"{name}.jsonl", [{**record, "query": name + record["query"]} for record in RECORDS])
    data = opened(tmp_path / "*.jsonl", shuffle=False)
    assert [group.query for batch in batches(data) for group in batch][::7] == ["aq0", "bq0"]
    digests = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.glob("*.jsonl")}
    assert data.groups.files == digests
    before = data.groups.fingerprint
    assert opened(tmp_path / "a.jsonl", tmp_path / "b.jsonl").groups.fingerprint == before
    assert opened(tmp_path / "b.jsonl", tmp_path / "a.jsonl").groups.fingerprint != before


@pytest.mark.parametrize(
    ("name", "message"), [("gone.jsonl", "no such file"), ("*.gone", "no file matches"), (".", "is a folder")]
)
def test_files_that_cannot_be_read(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        opened(tmp_path / name)


def test_text_without_a_known_format(tmp_path):
    (tmp_path / "a.txt").write_text("hello\nworld\n")
    with pytest.raises(InputError, match=r"a.txt:1: is neither JSON nor a table of training data"):
        opened(tmp_path / "a.txt")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InputError, match=r"nothing to train on \(got no records\)"):
        opened(tmp_path / "empty.jsonl")


def test_a_file_that_changes_after_it_was_read_is_an_error(tmp_path):
    data = opened(lines(tmp_path / "a.jsonl", RECORDS), shuffle=False)
    (tmp_path / "a.jsonl").write_text("x" * 20)
    with pytest.raises(InputError, match=r"was (changed|cut) while it was read"):
        batches(data)


@pytest.fixture
def beir(tmp_path):
    lines(tmp_path / "corpus.jsonl", [{"_id": f"d{i}", "title": f"T{i}", "text": f"text {i}"} for i in range(50)])
    lines(tmp_path / "queries.jsonl", [{"_id": f"q{i}", "text": f"query {i}"} for i in range(6)])
    judged = [(f"q{i}", f"d{i * 3 + k}", grade) for i in range(5) for k, grade in ((0, 1), (1, 2), (2, 0))]
    (tmp_path / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{g}\n" for q, d, g in judged)
    )
    rows = [f"q{i} Q0 d{i * 3 + j} {j} {100 - j} x\n" for i in range(6) for j in range(20)]
    (tmp_path / "run.trec").write_text("".join(rows))
    return tmp_path


def _by_id(folder: Path, bad=None, min_relevance=1, **rules):
    texts = ById(str(folder / "queries.jsonl"), str(folder / "corpus.jsonl"), 10)
    given = InputOptions((str(folder / "run.trec"),), by_id=texts)
    options = DataOptions(given, None, str(folder / "qrels.tsv"), min_relevance, bad or BadRecords())
    return kept(open_data(options, GroupRules(4, **rules), BatchPlan(2), None, lambda _: None))


def test_a_run_with_judgements_needs_no_file_in_between(beir):
    data = _by_id(beir)
    assert data.remarks == ["1 query of the run left out: no document is judged relevant"]
    assert {Path(path).name for path in data.groups.files} == {"run.trec", "queries.jsonl", "corpus.jsonl", "qrels.tsv"}
    for batch in batches(data):
        for group in batch:
            number = group.place
            assert group.query == f"query {number}"
            assert group.passages[0] in (f"T{3 * number} text {3 * number}", f"T{3 * number + 1} text {3 * number + 1}")
            assert len(set(group.passages)) == 4
            negatives = {f"T{3 * number + j} text {3 * number + j}" for j in range(2, 10)}  # of the first ten
            assert set(group.passages[1:]) <= negatives
    (graded,) = {group.labels[0] for batch in batches(_by_id(beir, min_relevance=2)) for group in batch}
    assert graded == 2
    assert {group.labels[0] for batch in batches(_by_id(beir, unit_labels=True)) for group in batch} == {1}


def test_a_run_without_a_judged_query_is_no_empty_file(beir):
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nother\td1\t1\n")
    with pytest.raises(InputError, match=r"to train on \(got 6 queries of the run left out: no document is"):
        _by_id(beir)


def test_ids_without_a_text_are_bad_records(beir):
    with (beir / "run.trec").open("a") as run:
        run.write("q7 Q0 d1 1 1 x\n")
    with (beir / "qrels.tsv").open("a") as qrels:
        qrels.write("q7\td1\t1\nq0\td99\t1\n")
    with pytest.raises(InputError, match=r"run.trec:1: document 'd99' is not in .*corpus.jsonl \(it has 50\)"):
        _by_id(beir)
    data = _by_id(beir, BadRecords(skip=True))
    assert (len(data.groups), data.rejected) == (5, 2)
