import random
import sqlite3
import subprocess
import sys

import numpy as np
import orjson
import pytest
from instant import InstantSession, config, go, kill, names

from rerank_cli.choices import OnError, ScoreKind
from rerank_cli.engine.contract import ModelFacts
from rerank_cli.engine.results import PairScores
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.errors import OutputError, RefusedError, UsageError
from rerank_cli.formats import AnswerOptions
from rerank_cli.run.options import Cascade
from rerank_cli.run.recovery.fingerprint import fingerprint, score_settings
from rerank_cli.run.scoring import cache_file
from rerank_cli.run.scoring.cache import ScoreCache
from rerank_cli.run.scoring.cache_file import CacheFile

RECORDS = 40


def write(path, records):
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    return path


def some_records(seed=5, count=RECORDS):
    rng = random.Random(seed)
    return [
        {"id": i, "query": f"query {i}", "documents": [f"document {rng.random()}" for _ in range(rng.randint(1, 5))]}
        for i in range(count)
    ]


@pytest.fixture
def given(tmp_path):
    return write(tmp_path / "in.jsonl", some_records())


@pytest.fixture
def told():
    return []


@pytest.fixture
def job(given, tmp_path, told):
    """Makes a run with a cache, whatever else it is given."""

    def make(name="out.jsonl", given=given, **options):
        return config(given, tmp_path / name, **{"cache": str(tmp_path / "cache.db"), "notify": told.append} | options)

    return make


class CountingSession(InstantSession):
    """Counts the pairs it is given."""

    def __init__(self, *args):
        super().__init__(*args)
        self.pairs = 0

    def prepare(self, pairs):
        self.pairs += len(pairs)
        return super().prepare(pairs)


def complaints(told):
    return [line for line in told if line.startswith("--cache")]


def use(summary):
    return summary.cache.hits, summary.cache.misses, summary.cache.entries


def test_a_second_run_scores_nothing_and_writes_the_same_bytes(job, given, tmp_path):
    go(config(given, tmp_path / "plain.jsonl"))
    first, filling = go(job("first.jsonl"), CountingSession())
    second, sparing = go(job("second.jsonl"), CountingSession())
    assert (filling.pairs, sparing.pairs) == (first.stats.pairs, 0)
    assert use(first) == (0, first.stats.pairs, first.stats.pairs)
    assert use(second) == (first.stats.pairs, 0, first.stats.pairs)
    assert first.stats.tokens == second.stats.tokens
    expected = (tmp_path / "plain.jsonl").read_bytes()
    assert [(tmp_path / name).read_bytes() for name in ("first.jsonl", "second.jsonl")] == [expected, expected]
    assert set(names(tmp_path)) == {"in.jsonl", "plain.jsonl", "first.jsonl", "second.jsonl", "cache.db"}


def test_new_pairs_alone_are_scored(job, tmp_path):
    go(job())
    records = some_records()
    for record in records[::10]:
        record["documents"].insert(1, f"new for {record['id']}")
    grown = write(tmp_path / "grown.jsonl", records)
    summary, session = go(job("grown-out.jsonl", grown), CountingSession())
    assert session.pairs == summary.cache.misses == 4
    go(config(grown, tmp_path / "plain.jsonl"))
    assert (tmp_path / "grown-out.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_pairs_that_come_twice_count_once_and_are_answered_twice(job, tmp_path):
    twice = write(tmp_path / "twice.jsonl", [{"query": "q", "documents": ["a", "b", "a"]}])
    for name in ("first.jsonl", "second.jsonl"):
        summary, _ = go(job(name, twice))
        assert summary.cache.hits + summary.cache.misses == 2
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()


def test_a_request_cut_into_slices_is_known_too(job, tmp_path):
    large = write(tmp_path / "large.jsonl", [{"query": "q", "documents": [f"d{i % 30}" for i in range(50)]}])
    first, _ = go(job("first.jsonl", large))
    second, _ = go(job("second.jsonl", large))
    assert (use(first), use(second)) == ((0, 30, 30), (30, 0, 30))
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()


@pytest.mark.parametrize("changed", ["instruction", "max_tokens_per_doc"])
def test_what_a_record_says_of_its_reading_makes_other_pairs(job, tmp_path, changed):
    record = {"query": "q", "documents": ["a"]}
    for number, value in enumerate((None, 7, 8)):
        value = value if changed == "max_tokens_per_doc" or value is None else str(value)
        new = write(tmp_path / f"{number}.jsonl", [record | ({changed: value} if value else {})])
        assert use(go(job(f"{number}-out.jsonl", new))[0]) == (0, 1, number + 1)


def test_texts_are_kept_apart_where_they_meet(job, tmp_path):
    for number, (query, document) in enumerate([("ab", "c"), ("a", "bc")]):
        new = write(tmp_path / f"{number}.jsonl", [{"query": query, "documents": [document]}])
        assert use(go(job(f"{number}-out.jsonl", new))[0]) == (0, 1, number + 1)


def facts(**changes):
    kept = InstantSession.facts
    values = {name: getattr(kept, name) for name in ModelFacts.__slots__}
    return ModelFacts(**values | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": "r2"},
        {"dtype": "bf16"},
        {"max_length": 8},
        {"query_max_length": 8},
        {"by_files": ("truncation_rule",)},  # older versions did not apply what files state
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_model_or_length_or_dtype_finds_nothing(job, changes):
    first, _ = go(job())
    session = InstantSession()
    session.facts = facts(**changes)
    second, _ = go(job("second.jsonl"), session)
    assert use(second) == (0, first.stats.pairs, 2 * first.stats.pairs)


def test_logits_that_a_checkpoint_states_are_the_same_scores(job):
    first, _ = go(job(answers=AnswerOptions("instant", ScoreKind.AUTO)))
    session = InstantSession()
    session.facts = facts(scores="raw")
    second, _ = go(job("second.jsonl", answers=AnswerOptions("instant", ScoreKind.AUTO)), session)
    assert (second.cache.hits, second.cache.misses) == (first.stats.pairs, 0)


def test_the_order_of_answers_and_the_size_of_chunks_change_no_score(job):
    first, _ = go(job())
    second, _ = go(job("second.jsonl", top_n=1, chunk_pairs=3))
    assert second.cache.misses == 0
    assert second.cache.hits == first.stats.pairs


class LayeredSession(InstantSession):
    """Two scores a pair."""

    facts = facts(layers=(4, 8))

    def score(self, prepared, *_):
        logits = super().score(prepared)
        return np.stack([logits, logits + 1], axis=1)


def test_several_layers_keep_all_their_scores(job, tmp_path):
    go(job("first.jsonl"), LayeredSession())
    second, _ = go(job("second.jsonl"), LayeredSession())
    assert second.cache.misses == 0
    assert (tmp_path / "first.jsonl").read_bytes() == (tmp_path / "second.jsonl").read_bytes()


class UnsureSession(InstantSession):
    """Has no finite score for one pair in three."""

    def score(self, prepared, *_):
        logits = super().score(prepared)
        logits[prepared.distinct % 3 == 0] = np.nan
        return logits


def test_a_score_that_is_no_number_is_not_kept(job):
    first, _ = go(job(on_error=OnError.SKIP), UnsureSession())
    assert 0 < first.stats.rejected < RECORDS
    second, session = go(job("second.jsonl"), CountingSession())
    assert session.pairs == second.cache.misses == first.stats.pairs - first.cache.entries
    assert second.stats.rejected == 0


@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_run_that_was_killed_goes_on_with_its_cache(job, given, tmp_path, at):
    go(config(given, tmp_path / "whole.jsonl"))
    kill(job(), at)
    summary, _ = go(job())
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert summary.cache.entries == summary.stats.pairs


def test_a_run_killed_again_and_again_pays_for_no_pair_twice(job):
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        kill(job(name), 3)
    _, session = go(job(), CountingSession())
    summary, sparing = go(job("again.jsonl"), CountingSession())
    assert session.pairs < summary.stats.pairs
    assert sparing.pairs == 0


def check(path):
    """The number of entries of a file that is sound."""
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (counted,) = connection.execute("SELECT count(*) FROM scores").fetchone()
        assert connection.execute("SELECT entries FROM about").fetchone() == (counted,)
    connection.close()
    return counted


FILL = """
import sys
from rerank_cli.run.scoring.cache_file import CacheFile
from rerank_cli.choices import OnError
told = []
file = CacheFile(sys.argv[1], told.append, wait=60)
for start in range(0, 500, 10):
    file.add([(b"%08d%08d" % (int(sys.argv[2]), start + i), b"value") for i in range(10)])
file.close()
sys.exit(bool(told))
"""


def test_processes_that_make_the_same_file_at_once_leave_a_sound_one(tmp_path):
    path = str(tmp_path / "cache.db")
    children = [subprocess.Popen([sys.executable, "-c", FILL, path, str(side)]) for side in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert check(path) == 3 * 500


FILL_FOR_EVER = """
import itertools, os, sys
from rerank_cli.run.scoring.cache_file import CacheFile
file = CacheFile(sys.argv[1])
for start in itertools.count(0, 50):
    file.add([(os.urandom(16), b"value") for i in range(50)])
    if start == 2000:
        print("on its way", flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_sound_file(tmp_path):
    path = str(tmp_path / "cache.db")
    with subprocess.Popen([sys.executable, "-c", FILL_FOR_EVER, path], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        child.kill()
    assert check(path) >= 2000
    file = CacheFile(path)
    file.add([(b"k" * 16, b"v")])
    assert file.find([b"k" * 16]) == {b"k" * 16: b"v"}
    file.close()


@pytest.mark.parametrize(
    "content", [b"dear to somebody", b"SQLite format 3\0 or so" * 100, b"\0" * 8192], ids=["text", "torn", "zeros"]
)
def test_a_file_that_is_something_else_is_refused_and_left_alone(job, tmp_path, content):
    (tmp_path / "cache.db").write_bytes(content)
    with pytest.raises(RefusedError, match=r"cache.db: not a score cache of rerank.* Fix: another --cache"):
        go(job())
    assert (tmp_path / "cache.db").read_bytes() == content
    assert names(tmp_path) == ["cache.db", "in.jsonl"]


def test_a_database_of_somebody_else_is_refused_and_left_alone(job, tmp_path):
    with sqlite3.connect(tmp_path / "cache.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = (tmp_path / "cache.db").read_bytes()
    with pytest.raises(RefusedError, match="not a score cache of rerank"):
        go(job())
    assert (tmp_path / "cache.db").read_bytes() == before


def test_a_cache_of_another_version_is_refused(job, tmp_path):
    go(job())
    with sqlite3.connect(tmp_path / "cache.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RefusedError, match="another version of rerank"):
        go(job("second.jsonl"))


def test_a_cut_file_is_refused(job, tmp_path):
    go(job(given=write(tmp_path / "many.jsonl", some_records(count=300))))
    content = (tmp_path / "cache.db").read_bytes()
    (tmp_path / "cache.db").write_bytes(content[: len(content) // 2])
    with pytest.raises(RefusedError, match=r"damaged\. Fix: another --cache, or delete it"):
        go(job("second.jsonl"))


def test_a_flipped_bit_in_a_score_never_reaches_an_answer(job, tmp_path, told):
    go(job("first.jsonl"))
    with sqlite3.connect(tmp_path / "cache.db") as connection:
        key, value = connection.execute("SELECT key, value FROM scores").fetchone()
        flipped = bytes([value[0] ^ 1]) + value[1:]
        connection.execute("UPDATE scores SET value = ? WHERE key = ?", (flipped, key))
    connection.close()
    go(job("second.jsonl"))
    assert (tmp_path / "second.jsonl").read_bytes() == (tmp_path / "first.jsonl").read_bytes()
    assert len(complaints(told)) == 1
    assert "damaged, the run continues without it. Fix: delete it" in complaints(told)[0]


def test_damage_that_shows_in_the_midst_of_a_run_costs_the_cache_and_not_the_run(job, tmp_path, told):
    many = write(tmp_path / "many.jsonl", some_records(count=300))
    go(job("first.jsonl", many))
    content = bytearray((tmp_path / "cache.db").read_bytes())
    for page in range(4096 * 4, len(content), 4096):
        content[page : page + 64] = b"\xff" * 64
    (tmp_path / "cache.db").write_bytes(content)
    go(job("second.jsonl", many))
    assert (tmp_path / "second.jsonl").read_bytes() == (tmp_path / "first.jsonl").read_bytes()
    assert complaints(told)
    assert all("Fix: delete it" in line for line in complaints(told))


@pytest.mark.parametrize("folder", ["takes locks", "takes nothing"])
def test_a_cache_that_cannot_be_written_to_is_read(job, tmp_path, told, monkeypatch, folder):
    go(job("first.jsonl"))
    monkeypatch.setattr(cache_file, "_may_write", lambda _: False)
    if folder == "takes nothing":
        connect = cache_file._connect
        monkeypatch.setattr(cache_file, "_connect", lambda *args: connect(*refuse_locks(*args)))
    before = check(tmp_path / "cache.db")
    grown = write(tmp_path / "grown.jsonl", [*some_records(), {"query": "new", "documents": ["new"]}])
    summary, session = go(job("second.jsonl", grown), CountingSession())
    assert session.pairs == 1
    assert summary.cache.entries == check(tmp_path / "cache.db") == before
    assert len(complaints(told)) == 1
    assert "new scores will not be stored in it" in complaints(told)[0]


def refuse_locks(name, wait):
    if name.endswith("mode=ro"):
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error
    return name, wait


def test_a_full_disk_loses_no_score_of_the_run(job, tmp_path, told, monkeypatch):
    connect = cache_file._connect

    def tight(*args):
        connection = connect(*args)
        connection.execute("PRAGMA max_page_count = 5")  # a file that may not grow fails as a full disk does
        return connection

    monkeypatch.setattr(cache_file, "_connect", tight)
    many = write(tmp_path / "many.jsonl", some_records(count=300))
    go(config(many, tmp_path / "plain.jsonl"))
    summary, _ = go(job(given=many))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert len(complaints(told)) == 1
    assert "database or disk is full, new scores will not be stored in it" in complaints(told)[0]
    assert 0 < summary.cache.entries == check(tmp_path / "cache.db") < summary.stats.pairs


def test_a_writer_that_keeps_the_file_to_itself_is_waited_for_and_then_left_alone(tmp_path):
    told = []
    file = CacheFile(str(tmp_path / "cache.db"), told.append, wait=0.05)
    other = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    file.add([(b"a" * 16, b"1")])
    file.add([(b"b" * 16, b"2")])
    other.execute("COMMIT")
    other.close()
    file.add([(b"c" * 16, b"3")])
    assert file.find([b"a" * 16, b"b" * 16, b"c" * 16]) == {b"c" * 16: b"3"}
    file.close()
    assert len(told) == 1
    assert "locked by another process" in told[0]
    assert file.entries == 1


def test_a_folder_that_takes_no_file_costs_the_cache_and_not_the_run(job, tmp_path, told, monkeypatch):
    def refuse(*_, **__):
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(cache_file, "_connect", refuse)
    summary, _ = go(job())
    assert summary.stats.finished
    assert use(summary) == (0, summary.stats.pairs, 0)
    assert complaints(told) == [
        f"--cache {tmp_path}/cache.db: unable to open database file, the run continues without it"
    ]


def test_the_first_score_of_a_pair_stays(tmp_path):
    file = CacheFile(str(tmp_path / "cache.db"))
    file.add([(b"k" * 16, b"first")])
    file.add([(b"k" * 16, b"later")])
    assert file.find([b"k" * 16]) == {b"k" * 16: b"first"}
    file.close()
    assert file.entries == 1


def test_an_empty_file_is_as_good_as_none(job, tmp_path):
    (tmp_path / "cache.db").touch()
    assert go(job())[0].cache.entries > 0


@pytest.mark.parametrize("cache", ["out.jsonl", "in.jsonl", "summary.json"])
def test_a_file_that_is_something_else_of_this_run_is_refused(job, tmp_path, cache):
    with pytest.raises((UsageError, RefusedError), match=r"same file|read as an input"):
        go(job(cache=str(tmp_path / cache), summary=str(tmp_path / "summary.json")))


@pytest.mark.parametrize("cache", ["", "-", "/dev/null", "/tmp"])
def test_what_is_no_file_is_a_usage_error(job, cache):
    with pytest.raises(UsageError, match="--cache"):
        go(job(cache=cache))


def test_a_folder_that_does_not_exist_is_told(job, tmp_path):
    with pytest.raises(OutputError, match="its folder does not exist"):
        go(job(cache=str(tmp_path / "none" / "cache.db")))


def test_the_share_of_hits_is_in_the_last_line_and_in_the_figures(job, tmp_path):
    go(job("first.jsonl"))
    summary, _ = go(job("second.jsonl", summary=str(tmp_path / "summary.json")))
    assert f"{summary.stats.pairs} scores from the cache (100.0%)" in summary.line()
    figures = orjson.loads((tmp_path / "summary.json").read_bytes())["cache"]
    assert figures == {
        "hits": summary.stats.pairs,
        "misses": 0,
        "file": str(tmp_path / "cache.db"),
        "entries": summary.stats.pairs,
    }


def texts(*passages):
    return PairTexts(["q"] * len(passages), passages, [0] * len(passages))


def scores(*logits):
    count = len(logits)
    spans = np.arange(2 * count).reshape(count, 2)
    return PairScores(np.array(logits, np.float32), np.arange(count) + 7, np.arange(count) % 2 == 1, spans, 0)


def test_everything_known_of_a_pair_is_kept(tmp_path):
    cache = ScoreCache(CacheFile(str(tmp_path / "cache.db")), {}, passages=True)
    before = scores(1.5, -2.5)
    cache.put(cache.look_up(texts("a", "b")), before)
    known = cache.look_up(texts("b", "new", "a", "b"))
    assert list(known.rest.passages) == ["new"]
    found = cache.merged(known, scores(9.0))
    assert found.logits.tolist() == [-2.5, 9.0, 1.5, -2.5]
    assert found.tokens.tolist() == [8, 7, 7, 8]
    assert found.truncated.tolist() == [True, False, False, True]
    assert found.passages.tolist() == [[2, 3], [0, 1], [0, 1], [2, 3]]
    assert found.duplicates == 1


def test_a_slice_is_marked_by_what_is_left_of_it(tmp_path):
    cache = ScoreCache(CacheFile(str(tmp_path / "cache.db")), {})
    whole = cache.look_up(texts("a", "b", "c"))
    assert whole.mark == ""
    cache.put(cache.look_up(texts("a")), scores(1.0))
    marks = [cache.look_up(texts(*given)).mark for given in ("abc", "acb", "abd")]
    assert len({*marks, ""}) == 4
    assert cache.look_up(texts("a", "b", "c")).mark == marks[0]


def test_settings_of_answers_make_no_other_scores(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    other = config(given, tmp_path / "out.jsonl", top_n=1, on_error=OnError.SKIP, cascade=Cascade(plan.model, 3))
    marks = [score_settings(fingerprint(plan, InstantSession.facts, pairs)) for plan, pairs in ((plan, 8), (other, 9))]
    assert marks[0] == marks[1]
    assert set(marks[0]) == {"long documents", "model revision", "dtype", "max length", "query max length"}
