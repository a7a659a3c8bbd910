import gzip
import itertools
import json
from contextlib import closing

import pytest

from rerank_cli.benchmarking.input_sample import take_sample
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.records import Request

QUICK = 0.05


def write(path, count, candidates=4, length=20):
    """Documents grow along the file: the last are twice as long as the first."""
    rows = [
        {
            "id": number,
            "query": f"query {number}",
            "documents": ["x" * (length + length * number // count) for _ in range(candidates)],
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sampled(path, pairs, patience=QUICK):
    options = InputOptions((str(path),))
    with closing(open_source(options)) as source:
        return take_sample(source, iter(source), options, pairs, patience)


def ids(sample):
    return [record.id for record in sample.read()]


def test_a_sample_comes_from_all_over_a_file(tmp_path):
    sample = sampled(write(tmp_path / "in.jsonl", 4000), 64)
    found = ids(sample)
    assert len(sample.stretches) == 8
    assert sample.pairs == 64
    assert found[:2] == [0, 1]
    assert found == sorted(found)
    assert found[-1] > 3400
    assert not sample.whole


def test_its_text_to_a_byte_tells_the_text_of_the_file(tmp_path):
    path = write(tmp_path / "in.jsonl", 4000, length=500)
    sample = sampled(path, 64)
    text = sum(stretch.all_characters for stretch in sample.measured) / sum(s.bytes for s in sample.measured)
    with closing(open_source(InputOptions((str(path),)))) as source:
        truth = sum(len(r.query) + len(c.text) for r in source for c in r.candidates) / path.stat().st_size
    assert text == pytest.approx(truth, rel=0.01)


def test_a_sample_is_read_again_as_it_was(tmp_path):
    sample = sampled(write(tmp_path / "in.jsonl", 4000), 64)
    assert ids(sample) == ids(sample)
    assert sum(len(record.candidates) for record in sample.read()) == sample.pairs


def test_a_file_no_larger_than_the_sample_is_taken_whole(tmp_path):
    path = write(tmp_path / "in.jsonl", 10)
    sample = sampled(path, 64)
    assert sample.whole
    assert sample.pairs == 40
    assert sample.stretches[0].bytes == path.stat().st_size


def test_long_lists_of_candidates_are_cut_in_the_sample_and_counted_whole(tmp_path):
    sample = sampled(write(tmp_path / "in.jsonl", 400, candidates=1000), 64)
    assert sample.pairs == 64
    assert sum(s.all_characters for s in sample.stretches) > 100 * sample.characters
    assert all(len(record.candidates) == 8 for record in sample.read())


def test_several_files_are_one_input(tmp_path):
    paths = [write(tmp_path / f"{name}.jsonl", 1000) for name in "ab"]
    options = InputOptions(tuple(map(str, paths)))
    with closing(open_source(options)) as source:
        sample = take_sample(source, iter(source), options, 64, QUICK)
    assert {stretch.place.file for stretch in sample.stretches} == {0, 1}
    assert sample.pairs == 64


def test_of_a_compressed_file_the_beginning_is_taken_and_reading_goes_on(tmp_path):
    plain = write(tmp_path / "in.jsonl", 4000)
    packed = tmp_path / "in.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    sample = sampled(packed, 64, patience=60)
    assert len(sample.stretches) == 1
    assert sample.beyond.ended
    assert sample.stretches[0].records + sample.beyond.records == 4000
    assert sample.stretches[0].bytes + sample.beyond.bytes == packed.stat().st_size


def test_rows_of_pairs_are_taken_from_the_beginning(tmp_path):
    path = tmp_path / "in.jsonl"
    rows = [{"query_id": n // 4, "query": f"q{n // 4}", "docid": n, "text": "x" * 20} for n in range(4000)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sample = sampled(path, 64)
    assert len(sample.stretches) == 1
    assert sample.pairs == 64
    assert ids(sample) == list(range(16))


def test_a_source_that_cannot_go_to_a_place_is_sampled_from_its_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr("rerank_cli.formats.reading.sources.RowSource.go_to", lambda *_: False)
    sample = sampled(write(tmp_path / "in.jsonl", 4000), 64)
    assert len(sample.stretches) == 1
    assert sample.beyond.records
    assert ids(sample) == list(range(16))


def test_rows_of_parquet_are_found_by_their_number(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [json.loads(line) for line in write(tmp_path / "in.jsonl", 4000).read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=500)
    sample = sampled(tmp_path / "in.parquet", 64)
    assert ids(sample) == [start + n for start in range(0, 4000, 500) for n in (0, 1)]


def test_what_can_be_read_once_only_is_held(tmp_path):
    options = InputOptions((str(write(tmp_path / "in.jsonl", 100)),))
    with closing(open_source(options)) as source:
        stream = Once(source)
        records = iter(source)
        first = list(itertools.islice(records, 3))
        sample = take_sample(stream, itertools.chain(first, records), options, 40, QUICK)
    assert sample.total_bytes is None
    assert ids(sample) == ids(sample) == list(range(10))
    assert not sample.whole


class Once:
    """A source whose size is not known."""

    total_bytes = None

    def __init__(self, source):
        self.shape = source.shape


def test_bad_records_are_counted_and_read_on(tmp_path):
    path = write(tmp_path / "in.jsonl", 10)
    path.write_bytes(b'{"query": 3}\n' + path.read_bytes())
    options = InputOptions((str(path),), shape="rerank")
    with closing(open_source(options)) as source:
        sample = take_sample(source, iter(source), options, 64, QUICK)
    assert sample.rejected == 1
    assert sum(isinstance(record, Request) for record in sample.read()) == 10
