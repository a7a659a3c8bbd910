"""A run that dies inside a chunk does not score the rows again that it had noted."""

import numpy as np
import orjson
import pytest
from instant import InstantSession, Killed, config, go

from rerank_cli.choices import Resume
from rerank_cli.engine.contract import StopRequested
from rerank_cli.run.recovery import journal as journals
from rerank_cli.run.recovery.journal import Journal

ROW = 7
RECORDS = 40


class RowSession(InstantSession):
    """Scores row by row, as the engine does; dies before the row with the number `dies_at`."""

    rows = 0
    layers = 1

    def score(self, prepared, should_stop, notes):
        count = len(prepared.distinct)
        logits = np.empty((count, self.layers) if self.layers > 1 else count, dtype=np.float32)
        for start in range(0, len(logits), ROW):
            pairs = np.arange(start, min(start + ROW, len(logits)))
            known = notes.known(pairs)
            if known is None:
                if self.rows == self._dies_at:
                    raise Killed
                if should_stop():
                    raise StopRequested
                self.rows += 1
                known = (prepared.distinct[pairs] / 100).astype(np.float32)
                if self.layers > 1:
                    known = np.stack([known - layer for layer in range(self.layers)], axis=1)
                notes.done(pairs, known)
            logits[pairs] = known
        return logits


@pytest.fixture(autouse=True)
def _note_every_row(monkeypatch):
    monkeypatch.setattr(Journal.__init__, "__defaults__", (0.0,))


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "in.jsonl"
    records = [{"query": f"q{i}", "documents": [f"{i} {n}" for n in range(10)]} for i in range(RECORDS)]
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    return path


def plan(given, tmp_path, name="out.jsonl", **more):
    return config(given, tmp_path / name, **({"chunk_pairs": 200} | more))


def kill(options, at):
    session = RowSession(dies_at=at)
    with pytest.raises(Killed):
        go(options, session)
    return session.rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("chunk_pairs", [200, 5])
@pytest.mark.parametrize("layers", [1, 3])
def test_rows_that_were_noted_are_not_scored_again(given, tmp_path, monkeypatch, name, chunk_pairs, layers):
    monkeypatch.setattr(RowSession, "layers", layers)
    whole = RowSession()
    go(plan(given, tmp_path, f"whole-{name}", chunk_pairs=chunk_pairs), whole)
    options = plan(given, tmp_path, name, chunk_pairs=chunk_pairs)
    scored = sum(kill(options, at) for at in (10, 3, 0, 20))
    last = RowSession()
    go(options, last)
    assert scored + last.rows == whole.rows
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.jsonl", name, f"whole-{name}"])


@pytest.mark.parametrize("cut", range(0, 200, 9))
def test_a_torn_journal_gives_what_is_whole(given, tmp_path, cut):
    options = plan(given, tmp_path)
    kill(options, 9)
    journal = tmp_path / "out.jsonl.journal"
    journal.write_bytes(journal.read_bytes()[:-cut] if cut else journal.read_bytes())
    session = RowSession()
    go(options, session)
    go(plan(given, tmp_path, "whole.jsonl"), RowSession())
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (session.rows == 2 * 29 - 9) == (cut == 0)


def test_a_flipped_bit_in_the_journal_costs_a_row_and_no_more(given, tmp_path):
    go(plan(given, tmp_path, "whole.jsonl"), RowSession())
    kill(plan(given, tmp_path), 9)
    journal = tmp_path / "out.jsonl.journal"
    content = journal.read_bytes()
    for at in range(0, len(content), 41):
        journal.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        notes = Journal(journal, {}, lambda: 0)
        assert notes.kept < 9 * ROW
    journal.write_bytes(content)
    go(plan(given, tmp_path), RowSession())
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_entries_of_committed_chunks_are_dropped(tmp_path):
    committed = 0
    journal = Journal(tmp_path / "journal", {}, lambda: committed)
    sizes = []
    for number in range(50):
        notes = journal.notes(f"{number:032x}", 0)
        for row in range(5):
            notes.done(np.arange(row, row + 3), np.zeros(3, dtype=np.float32))
        committed = max(0, number - 1)  # a writer that is behind
        sizes.append((tmp_path / "journal").stat().st_size)
    assert max(sizes[5:]) <= sizes[4]


def test_quick_chunks_write_no_journal(given, tmp_path, monkeypatch):
    monkeypatch.setattr(Journal.__init__, "__defaults__", (60.0,))
    monkeypatch.setattr(journals, "replace_file", lambda *_: pytest.fail("written"))
    session = RowSession(dies_at=50)
    with pytest.raises(Killed):
        go(plan(given, tmp_path), session)
    assert not (tmp_path / "out.jsonl.journal").exists()


def test_a_stream_keeps_no_journal(given, tmp_path):
    class Sink:
        def write(self, data):
            return len(data)

        def flush(self):
            pass

        def fileno(self):
            raise OSError

    go(config(given, "-", stdout=Sink(), chunk_pairs=200), RowSession())
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_request_to_stop_notes_the_rows_of_the_chunk_at_hand(given, tmp_path, monkeypatch):
    monkeypatch.setattr(Journal.__init__, "__defaults__", (60.0,))

    class Stopping(RowSession):
        def score(self, prepared, _, notes):
            return super().score(prepared, lambda: self.rows >= 12, notes)

    options = plan(given, tmp_path)
    summary, _ = go(options, Stopping())
    assert not summary.stats.finished
    session = RowSession()
    go(options, session)
    assert session.rows == 2 * 29 - 12


@pytest.mark.parametrize("how", [{"top_n": 1}, {"resume": Resume.NEVER}])
def test_another_run_or_a_restart_takes_nothing_from_the_journal(given, tmp_path, how):
    kill(plan(given, tmp_path), 9)
    assert (tmp_path / "out.jsonl.journal").exists()
    session = RowSession()
    go(plan(given, tmp_path, **how), session)
    assert session.rows == 2 * 29
