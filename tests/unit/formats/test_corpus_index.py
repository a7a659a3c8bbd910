"""The index that is kept beside a large corpus: made once, made again when it must be, never believed blindly."""

import os
import threading
import time
import tracemalloc

import numpy as np
import pytest
from corpora import TREC, beir_corpus, lines, options, placed, read, save, summary

from rerank_cli.errors import InputError, OutputError
from rerank_cli.formats import ById, InputOptions, open_source
from rerank_cli.formats.corpus import building as corpus_building
from rerank_cli.formats.corpus import index as corpus_index
from rerank_cli.records import Rejection

WHOLE = [("q1", ["d2", "d1"]), ("2", ["日本-3", "44"])]


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Every corpus counts as a large one, whose index is kept."""
    monkeypatch.setattr(corpus_building, "SMALL_BYTES", 0)


@pytest.fixture
def said():
    return []


@pytest.fixture
def look(tmp_path, said):
    """Read everything, and say how often an index was made."""

    def look(**more):
        said.clear()
        assert summary(read(tmp_path, said.append, **more)) == WHOLE
        return sum(line.startswith("indexed ") for line in said)

    return look


def index(folder):
    return folder / "corpus.jsonl.rerank-index"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_is_made_once_and_used_again(tmp_path, look, said):
    placed(tmp_path)
    assert look() == 1
    assert said[0].startswith(f"indexing {tmp_path / 'corpus.jsonl'} (0.0 GB), once: {index(tmp_path)}")
    assert look() == 0
    assert names(tmp_path) == ["corpus.jsonl", "corpus.jsonl.rerank-index", "queries.jsonl", "run.trec"]


def test_a_small_corpus_has_none_beside_it(tmp_path, look, monkeypatch):
    monkeypatch.setattr(corpus_building, "SMALL_BYTES", 1 << 20)
    placed(tmp_path)
    assert look() == 0
    assert not index(tmp_path).exists()


@pytest.mark.parametrize("kind", ["c.jsonl.gz", "c.parquet"])
def test_what_cannot_be_read_at_any_place_is_copied_into_it(tmp_path, look, kind):
    placed(tmp_path)
    save(tmp_path / kind, beir_corpus())
    assert [look(corpus=kind), look(corpus=kind)] == [1, 0]


def test_lists_of_numbers_are_not_copied(tmp_path):
    placed(tmp_path)
    save(tmp_path / "c.parquet", [row | {"embedding": [0.5] * 8, "tags": ["a"]} for row in beir_corpus()])
    (record, _) = read(tmp_path, corpus="c.parquet")
    assert record.candidates[0].source.keys() == {"_id", "title", "text", "tags"}


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(lines({"_id": "first", "text": "t"}) + path.read_bytes()),
        lambda path: path.write_bytes(path.read_bytes().replace(b"giant", b"GIANT")),
        lambda path: os.utime(path, ns=(1, 1)),
    ],
    ids=["longer", "other bytes", "other time"],
)
def test_a_corpus_that_changed_is_indexed_again(tmp_path, look, said, change):
    path = tmp_path / "corpus.jsonl"
    placed(tmp_path)
    look()
    change(path)
    assert look() == 1
    assert "was built for other files or fields; building it again" in said[0]
    assert look() == 0


def test_a_folder_with_one_more_file_is_indexed_again(tmp_path, look):
    placed(tmp_path)
    (tmp_path / "c").mkdir()
    save(tmp_path / "c" / "a.jsonl", beir_corpus())
    assert [look(corpus="c"), look(corpus="c")] == [1, 0]
    save(tmp_path / "c" / "b.jsonl", [{"_id": "more", "text": "t"}])
    assert look(corpus="c") == 1
    assert (tmp_path / "c.rerank-index").exists()


def test_another_field_of_ids_needs_another_index(tmp_path, look):
    placed(tmp_path, corpus=[row | {"key": row["_id"]} for row in beir_corpus()])
    assert [look(), look(doc_id_field="key"), look(doc_id_field="key")] == [1, 1, 0]


@pytest.mark.parametrize("at", [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("damage", ["flipped", "cut", "longer"])
def test_a_damaged_one_is_made_again(tmp_path, look, said, at, damage):
    placed(tmp_path)
    look()
    data = bytearray(index(tmp_path).read_bytes())
    place = int(at * len(data))
    data[place] ^= 4
    cut = bytes(data[:place])
    index(tmp_path).write_bytes({"flipped": bytes(data), "cut": cut, "longer": bytes(data) + b"x"}[damage])
    assert look() == 1
    assert "is damaged" in said[0]
    assert look() == 0


@pytest.mark.parametrize("content", [b"", b"something else", b"x" * 5000])
def test_another_file_of_its_name_is_made_one(tmp_path, look, said, content):
    placed(tmp_path)
    index(tmp_path).write_bytes(content)
    assert look() == 1
    assert "is damaged" in said[0]


def test_what_a_killed_run_left_of_it_is_taken_over(tmp_path, look):
    placed(tmp_path)
    (tmp_path / "corpus.jsonl.rerank-index.new").write_bytes(b"half of an index" * 1000)
    assert [look(), look()] == [1, 0]
    assert not (tmp_path / "corpus.jsonl.rerank-index.new").exists()


def test_a_failure_leaves_nothing_of_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    placed(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"corpus.jsonl.rerank-index: cannot be written: No space left on device"):
        read(tmp_path)
    assert not [name for name in names(tmp_path) if "index" in name]


def test_a_second_run_waits_for_the_first_and_takes_its_index(tmp_path, monkeypatch):
    placed(tmp_path)
    said, results, write = [], [], corpus_building._write
    patience = time.monotonic() + 20

    def slow(*args):
        while not any("waiting" in line for line in said) and time.monotonic() < patience:
            time.sleep(0.01)
        return write(*args)

    monkeypatch.setattr(corpus_building, "_write", slow)
    threads = [threading.Thread(target=lambda: results.append(summary(read(tmp_path, said.append)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [WHOLE, WHOLE]
    assert sum(line.startswith("indexed ") for line in said) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_one_line_with_the_flag_that_helps(tmp_path):
    placed(tmp_path)
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="--index-dir DIR"):
        read(tmp_path)
    tmp_path.chmod(0o700)


def test_where_it_cannot_be_written_the_error_names_the_flag_that_helps(tmp_path):
    placed(tmp_path)
    (tmp_path / "corpus.jsonl.rerank-index.new").mkdir()
    with pytest.raises(OutputError, match=r"cannot be written: Is a directory\. Fix: --index-dir DIR"):
        read(tmp_path)


def test_it_may_be_kept_elsewhere(tmp_path, look):
    placed(tmp_path)
    with pytest.raises(OutputError, match="is not a folder"):
        look(index_folder=str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    assert [look(index_folder=str(tmp_path / "cache")), look(index_folder=str(tmp_path / "cache"))] == [1, 0]
    (name,) = names(tmp_path / "cache")
    assert name.startswith("corpus.jsonl-")
    assert not index(tmp_path).exists()


@pytest.mark.parametrize("parts", [1, 2, 64])
def test_many_documents_are_found_however_they_are_sorted(tmp_path, monkeypatch, parts):
    monkeypatch.setattr(corpus_index, "_BLOCK", 100)
    monkeypatch.setattr(corpus_building, "_ONE_PART_BYTES", 0 if parts > 1 else 1 << 30)
    monkeypatch.setattr(corpus_building, "PARTS", parts)
    corpus = [{"_id": f"d{n * 7919 % 2000}", "text": f"text {n}"} for n in range(2000)]
    placed(tmp_path, [f"q1 Q0 d{n} 1 {-n} t" for n in range(2000)], corpus=corpus)
    (record,) = read(tmp_path)
    texts = {row["_id"]: row["text"] for row in corpus}
    assert [c.text for c in record.candidates] == [texts[f"d{n}"] for n in range(2000)]


def test_ids_of_one_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_index, "hashes_of", lambda keys: np.array([len(key) for key in keys], dtype="<u8"))
    placed(tmp_path, [*TREC, "q3 Q0 d9 1 1 t"])
    records = read(tmp_path)
    assert summary(records) == [*WHOLE, ("missing_document", 5)]
    assert [c.source["_id"] for record in records[:2] for c in record.candidates] == ["d2", "d1", "日本-3", "44"]


def test_a_document_that_stands_twice_is_taken_if_both_say_the_same(tmp_path):
    placed(tmp_path, corpus=beir_corpus() * 2)
    assert summary(read(tmp_path)) == WHOLE


def test_a_document_that_stands_twice_with_different_content_is_rejected(tmp_path):
    placed(tmp_path, corpus=[*beir_corpus(), {"_id": "d2", "text": "another"}])
    records = read(tmp_path)
    assert summary(records) == [("ambiguous_document", 1), ("q1", ["d1"]), WHOLE[1]]
    size = len(lines(*beir_corpus()))
    assert "'d2' occurs twice with different content: " in records[0].message
    assert f"corpus.jsonl at byte {size:,}" in records[0].message


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[: len(data) // 4],
        lambda data: b"x" + data[:-1],
        lambda data: data.replace(b'"d', b'"e'),
    ],
    ids=["cut", "moved", "renamed"],
)
def test_a_corpus_that_changes_while_it_is_read_is_one_line(tmp_path, change):
    placed(tmp_path)
    source = open_source(options(tmp_path))
    path = tmp_path / "corpus.jsonl"
    with path.open("r+b") as file:
        data = change(path.read_bytes())
        file.truncate(0)
        file.write(data)
    with pytest.raises(InputError, match=r"corpus.jsonl: was changed while it was read"):
        list(source)
    source.close()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no documents .got an empty file"),
        (b'{"text": "no id"}\n', "holds no documents .1 bad lines, the first: .*:1: there is no id"),
        (b"one column\n", "unknown columns .got 1"),
        (b"[1]", "holds no documents .1 bad lines, the first: .*:1: the record is a number"),
        (b"\xe9\xe9\ta\n", "neither JSON nor text in UTF-8"),
        (b"\xff\xfea\0\n\0", "is text in UTF-16 .*iconv"),
        (b"\x1f\x8b" + b"x" * 30, "gzip data is corrupt"),
    ],
)
def test_a_corpus_that_is_none_is_refused(tmp_path, content, complaint):
    placed(tmp_path)
    (tmp_path / "corpus.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read(tmp_path)
    assert not index(tmp_path).exists()


def test_files_that_are_not_there_or_no_files_are_refused(tmp_path):
    placed(tmp_path)
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for corpus, complaint in (
        ("none.jsonl", "there is no such file"),
        ("empty", "the folder holds no document files"),
        ("pipe", "is a pipe or a device"),
    ):
        with pytest.raises(InputError, match=complaint):
            read(tmp_path, corpus=corpus)
    with pytest.raises(InputError, match="cannot be read from stdin"):
        open_source(InputOptions((str(tmp_path / "run.trec"),), by_id=ById("-", "-")))


def test_bad_lines_anywhere_leave_the_others_where_they_are(tmp_path):
    bad = [b"\xff\xff", b'{"_id": "torn', b"null", b"[]", b'{"_id": [1], "text": "x"}', b""]
    rows = [part for pair in zip(beir_corpus(), bad, strict=False) for part in pair]
    placed(tmp_path, corpus=[*rows, *bad])
    records = read(tmp_path)
    assert not [r for r in records if isinstance(r, Rejection)]
    assert summary(records) == WHOLE


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    placed(tmp_path, [f"q1 Q0 d{n} 1 1 t" for n in range(0, 20_000, 100)], corpus=[])
    with (tmp_path / "corpus.jsonl").open("wb") as file:
        file.writelines(lines({"_id": f"d{n}", "text": "x" * 2000}) for n in range(20_000))
    tracemalloc.start()
    (record,) = read(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(record.candidates) == 200
    assert peak < (tmp_path / "corpus.jsonl").stat().st_size / 3
