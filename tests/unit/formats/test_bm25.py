"""BM25 over texts, against its formula and against words that mean the same."""

import math

import pytest
from corpora import lines

from rerank_cli.choices import Bm25Language
from rerank_cli.errors import InputError, RefusedError
from rerank_cli.formats import ById, InputOptions, open_source
from rerank_cli.formats.corpus.first_stage import kept_beside
from rerank_cli.formats.options import Bm25
from rerank_cli.formats.runs.bm25 import Bm25Index, is_unspaced

TEXTS = [
    "The giant pandas are bears",
    "Paris is in France",
    "A bear in Paris, a bear in France and a panda",
    "vitamin D",
]


def best(query, texts=TEXTS, **options):
    return list(Bm25Index(texts, Bm25(**options), "corpus").best(query))


def test_scores_are_those_of_the_formula():
    words = [
        ["giant", "panda", "bear"],
        ["pari", "franc"],
        ["bear", "pari", "bear", "franc", "panda"],
        ["vitamin", "d"],
    ]
    mean = sum(map(len, words)) / len(words)

    def score(query, document, k1=0.9, b=0.4):
        total = 0.0
        for word in query:
            holding, count = sum(word in other for other in words), document.count(word)
            idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
            total += idf * count / (count + k1 * (1 - b + b * len(document) / mean))
        return total

    expected = sorted(
        ((n, score(["panda", "bear"], document)) for n, document in enumerate(words)), key=lambda p: -p[1]
    )
    found = best("Which panda is THE bear?")
    assert [number for number, _ in found] == [number for number, value in expected if value > 0] == [2, 0]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected if value > 0], rel=1e-5)
    assert best("bear", k1=0.0) != best("bear")
    assert best("bear", b=1.0) != best("bear")


def test_ties_keep_the_order_of_the_corpus_at_any_depth():
    texts = ["same words here"] * 50 + ["same words here and more same words"] + ["same words here"] * 50
    whole = [number for number, _ in best("same", texts, depth=101)]
    assert whole == [50, *range(50), *range(51, 101)]
    for depth in (1, 2, 7, 60):
        assert [number for number, _ in best("same", texts, depth=depth)] == whole[:depth]


def test_documents_without_a_word_of_the_query_are_no_candidates():
    assert best("nothing of this") == []
    assert best("the and of") == []
    assert best("") == []
    assert [number for number, _ in best("vitamin d")] == [3]


def test_stems_and_stop_words_are_those_of_the_language():
    texts = ["die Häuser am Fluss", "ein Auto"]
    assert [number for number, _ in best("Das Haus", texts, language=Bm25Language.GERMAN)] == [0]
    assert best("Das Haus", texts, language=Bm25Language.NONE) == []
    assert [number for number, _ in best("die", texts, language=Bm25Language.NONE)] == [0]
    assert best("die", texts, language=Bm25Language.GERMAN) == []


@pytest.mark.parametrize("language", Bm25Language)
def test_every_language_that_the_flag_names_is_known(language):
    assert [number for number, _ in best("7 42", ["41", "42 43"], language=language)] == [1]


def test_marks_are_parts_of_words():
    assert [n for n, _ in best("हिन्दी", ["हिन दूसरा", "हिन्दी भाषा"], language=Bm25Language.NONE)] == [1]


def test_scripts_without_spaces_are_recognised():
    assert is_unspaced(["熊猫是一种熊", "a word"])
    assert is_unspaced(["แพนด้าเป็นหมี"])
    assert not is_unspaced(["a panda (熊猫) is a bear", "판다는 곰이다", "1234"])
    assert not is_unspaced([])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus.jsonl").write_bytes(lines(*({"_id": f"d{n}", "text": text} for n, text in enumerate(TEXTS))))
    queries = [{"_id": "q1", "text": "bears"}, {"_id": "q2", "text": "unknown"}, {"_id": "q3", "text": "in France"}]
    (tmp_path / "queries.jsonl").write_bytes(lines(*queries))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td1\t1\nq3\td1\t1\n")
    return tmp_path


def read(folder, judged=None, said=None, **more):
    ids = ById(
        str(folder / "queries.jsonl"), str(folder / "corpus.jsonl"), answer_unlisted=True, first_stage=Bm25(**more),
        judged=judged and str(folder / judged),
    )  # fmt: skip
    options = kept_beside(InputOptions((), by_id=ids), str(folder / "out.jsonl"))
    source = open_source(options, (lambda _: None) if said is None else said.append)
    try:
        return [(record.id, [c.id for c in record.candidates]) for record in source]
    finally:
        source.close()


def test_the_run_is_made_once_and_again_for_another_corpus_or_other_options(folder):
    run = folder / "out.jsonl.bm25.trec"
    assert read(folder) == [("q1", ["d2", "d0"]), ("q3", ["d1", "d2"]), ("q2", [])]
    begin, made = run.read_bytes(), run.stat().st_ino
    said = []
    read(folder, said=said)
    assert run.stat().st_ino == made
    assert not any("BM25 over" in line for line in said)
    assert read(folder, depth=1) == [("q1", ["d2"]), ("q3", ["d1"]), ("q2", [])]
    assert read(folder, judged="qrels.tsv") == [("q3", ["d1", "d2"]), ("q2", [])]
    assert run.read_bytes().split()[5] != begin.split()[5]
    with (folder / "corpus.jsonl").open("ab") as corpus:
        corpus.write(lines({"_id": "new", "text": "bear bear bear"}))
    assert read(folder)[0] == ("q1", ["new", "d2", "d0"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "corpus.jsonl", "out.jsonl.bm25.trec", "qrels.tsv", "queries.jsonl",
    ]  # fmt: skip


def test_what_a_killed_run_left_is_no_obstacle(folder):
    whole = read(folder)
    run = folder / "out.jsonl.bm25.trec"
    (folder / "out.jsonl.bm25.trec.new").write_bytes(run.read_bytes()[:20])
    run.unlink()
    assert read(folder) == whole
    assert run.read_bytes().count(b"\n") == 4
    assert not (folder / "out.jsonl.bm25.trec.new").exists()


def test_a_file_that_is_something_else_is_not_replaced(folder):
    run = folder / "out.jsonl.bm25.trec"
    for content in (b"q1 Q0 d1 1 2.5 mine\n", b"something\n"):
        run.write_bytes(content)
        with pytest.raises(RefusedError, match="is something else"):
            read(folder)
        assert run.read_bytes() == content


def test_a_corpus_without_spaces_is_warned_of_once(folder):
    rows = [{"_id": "d1", "text": "熊猫是一种熊 panda"}, {"_id": "d2", "text": "巴黎在法国"}]
    (folder / "corpus.jsonl").write_bytes(lines(*rows))
    (folder / "queries.jsonl").write_bytes(lines({"_id": "q1", "text": "panda"}))
    said = []
    assert read(folder, said=said) == [("q1", ["d1"])]
    assert sum("without spaces between words" in line for line in said) == 1


@pytest.mark.parametrize(
    ("corpus", "query", "reason"),
    [
        ({"_id": "d1", "text": "..."}, "panda", "has no words to search for"),
        ({"_id": "d1", "text": "panda"}, "bear", "no query shares a word with"),
        ({"_id": "d 1", "text": "panda"}, "panda", "the document id 'd 1' cannot be used in a TREC run"),
    ],
)
def test_what_gives_no_run_is_one_line(folder, corpus, query, reason):
    (folder / "corpus.jsonl").write_bytes(lines(corpus))
    (folder / "queries.jsonl").write_bytes(lines({"_id": "q1", "text": query}))
    with pytest.raises(InputError, match=reason):
        read(folder)
    assert not list(folder.glob("out*"))


def test_documents_without_a_text_are_left_out(folder):
    with (folder / "corpus.jsonl").open("ab") as corpus:
        corpus.write(lines({"_id": "none", "title": 3}))
    assert read(folder)[0] == ("q1", ["d2", "d0"])
