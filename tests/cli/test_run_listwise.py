"""A listwise model as the command runs it: whole lists, the same bytes however they are divided, what is refused."""

import json
import random

import pytest
from jina import make_jina
from processes import TINY
from shell import is_one_line, json_lines, rerank, started, until, write_lines

from rerank_cli.api import Reranker

pytestmark = pytest.mark.slow

WORDS = ["the", "giant", "panda", "is", "a", "bear", "that", "lives", "in", "china", "and", "eats", "bamboo", "!"]


@pytest.fixture(scope="module")
def jina(tmp_path_factory):
    return str(make_jina(tmp_path_factory.mktemp("jina")))


def records(count=30):
    """Lists of different lengths, one of them in two windows, one empty, and the same list twice."""
    rng = random.Random(4)
    sizes = [rng.randint(1, 9) for _ in range(count)]
    sizes[20], sizes[21] = 130, 0
    found = [
        {
            "id": number,
            "query": " ".join(rng.choices(WORDS, k=3)),
            "documents": [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(size)],
        }
        for number, size in enumerate(sizes)
    ]
    return [*found, found[3] | {"id": "again"}]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("given") / "in.jsonl", records())


@pytest.fixture(scope="module")
def run(jina):
    def call(*args, **settings):
        return rerank("run", *args, "-m", jina, "--threads", "1", **settings)

    return call


@pytest.fixture(scope="module")
def whole(given, run):
    ended = run(given, "--chunk-pairs", "40", "-q")
    assert (ended.code, ended.err) == (0, "")
    return ended.out


def test_answers_do_not_depend_on_chunks_workers_or_a_limit(given, run, whole):
    answers = json_lines(whole)
    assert [len(answer["results"]) for answer in answers] == [len(record["documents"]) for record in records()]
    assert answers[3]["results"] == answers[-1]["results"]
    scores = [result["relevance_score"] for answer in answers for result in answer["results"]]
    assert -1 <= min(scores) < 0 < max(scores) <= 1
    for flags in (["--chunk-pairs", "7"], ["--chunk-pairs", "30", "--devices", "cpu,cpu"]):
        assert run(given, *flags, "-q").out == whole, flags
    assert json_lines(run(given, "-q", "--limit", "9").out) == answers[:9]


def test_shards_are_the_bytes_of_one_run(given, run, whole, tmp_path):
    for index in range(2):
        assert run(given, "--shard", f"{index}/2", "--chunk-pairs", "40", "-q", "-o", tmp_path / "part.jsonl").code == 0
    merged = rerank("merge", *sorted(tmp_path.glob("part-*")), "-o", tmp_path / "whole.jsonl")
    assert merged.code == 0
    assert (tmp_path / "whole.jsonl").read_bytes() == whole


def test_a_killed_run_goes_on_with_the_same_bytes(given, run, jina, whole, tmp_path):
    output, checkpoint = tmp_path / "out.jsonl", tmp_path / "out.jsonl.checkpoint"
    flags = ["--chunk-pairs", "40", "--commit-interval", "0", "-q", "-o", output]
    with started("run", given, "-m", jina, "--threads", "1", *flags) as process:
        until(lambda: process.poll() is not None or checkpoint.exists())
        process.kill()
        process.wait()
    assert checkpoint.exists(), "the run was over before it could be killed"
    ended = run(given, *flags, "--resume", "require")
    assert (ended.code, ended.err) == (0, "")
    assert output.read_bytes() == whole


def test_a_cache_holds_whole_lists(given, run, whole, tmp_path):
    flags = ["--cache", tmp_path / "cache.db", "--chunk-pairs", "40"]
    first, second = (run(given, *flags, "-o", tmp_path / name) for name in ("1.jsonl", "2.jsonl"))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes() == whole
    assert "(100.0%)" in second.err
    # The same candidates in another order, or without one of them, are other lists.
    changed = [records()[0], records()[2]]
    changed[0]["documents"].reverse()
    changed[1]["documents"].pop()
    path = write_lines(tmp_path / "changed.jsonl", [*changed, records()[1]])
    third = run(path, *flags, "-o", tmp_path / "3.jsonl")
    hits, every = len(records()[1]["documents"]), sum(len(one["documents"]) for one in [*changed, records()[1]])
    assert f"{hits} scores from the cache ({hits / every:.1%})" in third.err
    assert (tmp_path / "3.jsonl").read_bytes() == run(path, "-q").out


def test_the_run_says_what_its_scores_are_and_verifies_whole_lists(given, run, tmp_path):
    ended = run(given, "--verify", "200", "-o", tmp_path / "out.jsonl")
    assert ended.code == 0, ended.err
    assert "whole lists: a score depends on the other passages of its query and on their order" in ended.err
    assert "scores are cosines, −1 to 1 (--scores sigmoid: 0 to 1)" in ended.err
    assert "200 pairs verified" in ended.err


def refused(*args):
    ended = rerank(*args)
    assert ended.code == 2
    assert is_one_line(ended.err) or ended.err.splitlines()[-1].startswith("rerank: ")
    assert not ended.out
    return ended.complaint


def test_what_does_not_apply_is_refused(given, jina, tmp_path):
    output = tmp_path / "out.jsonl"
    for flags in (["--batch-tokens", "4096"], ["--long-documents", "max"], ["--compile"], ["--no-share-prefix"]):
        assert flags[0] in refused("run", given, "-m", jina, "-o", output, *flags)
    assert "--profile" in refused("run", given, "-m", jina, "-o", output, "--profile", "qwen3")
    assert "scores whole lists" in refused("run", given, "-m", jina, "-o", output, "--cascade", f"{TINY}:2")
    assert "scores whole lists" in refused("run", given, "-m", TINY, "-o", output, "--cascade", f"{jina}:2")
    assert "no pair alone" in refused("inspect", given, "-m", jina)
    assert not output.exists()
    trained = rerank("train", given, "-m", jina, "-o", tmp_path / "model")
    assert trained.code != 0
    assert not (tmp_path / "model").exists()


def test_other_commands(given, jina):
    shown = json.loads(rerank("models", jina, "--json").out)
    assert (shown["family"], shown["profile"], shown["max_length"]) == ("listwise", "jina-list", 2048)
    assert shown["list"].endswith("a score depends on the other passages and their order")
    assert "listwise" in rerank("models").out.decode()
    checked = json.loads(rerank("check", given, "-m", jina, "--max-length", "20", "--json").out)
    assert checked["records"] == 31
    assert checked["truncated_pairs"] > 10
    scored = rerank("score", "panda", "a bear", "hi", "-m", jina).records
    assert {one["index"] for one in scored} == {0, 1}
    measured = rerank("bench", given, "-m", jina, "--seconds", "1", "--json", "--threads", "1")
    assert measured.code == 0, measured.err


def test_the_python_class_gives_the_same_scores(jina, whole):
    with Reranker(jina, device="cpu", threads=1) as reranker:
        answers = json_lines(whole)
        lists = [record for record in records() if record["documents"]]
        ranked = list(reranker.rank_many((record["query"], record["documents"]) for record in lists))
        expected = {answer["id"]: [result["relevance_score"] for result in answer["results"]] for answer in answers}
        for record, documents in zip(lists, ranked, strict=True):
            assert [one.score for one in documents] == expected[record["id"]]
        record = lists[0]
        pairs = [(record["query"], document) for document in record["documents"]]
        found = reranker.score(pairs)  # adjacent pairs of a query are a list
        assert sorted(map(str, found), key=float, reverse=True) == [str(one.score) for one in ranked[0]]
