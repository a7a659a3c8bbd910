"""Options that only some families of models have, and long documents: what stands in the output, what is refused."""

import json
from pathlib import Path

import pytest
from shell import PANDA, is_one_line, json_lines, rerank, write_lines

pytestmark = pytest.mark.slow

MODELS = Path(__file__).parents[1] / "models" / "parity"
BERT, GEMMA, LAYERWISE = (str(MODELS / name) for name in ("bert", "gemma", "minicpm-layerwise"))
LONG = " ".join(f"Number {n} is a bear that lives in the mountains of China and eats bamboo." for n in range(40))
REQUESTS = [
    {"id": "a", "query": "what is panda?", "documents": ["hi", PANDA, LONG, "capital of France"]},
    {"id": "b", "query": "capital of France", "documents": ["Berlin", "Paris is the capital.", f"Paris. {LONG}"]},
]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("families") / "in.jsonl", REQUESTS)


@pytest.fixture
def broken(tmp_path):
    """Many good records, and a bad one behind them that ends a run in its middle."""
    good = ({"id": n, "query": f"panda {n}", "documents": ["hi", PANDA]} for n in range(1500))
    return write_lines(tmp_path / "broken.jsonl", [*good, "{ broken"])


def good(*args, **settings):
    ended = rerank("run", *args, "-q", **settings)
    assert (ended.code, ended.err) == (0, "")
    return ended


def refused(code, *args):
    """The one line that a run says before it fails so."""
    ended = rerank("run", *args, "-q")
    assert ended.code == code
    assert is_one_line(ended.err)
    assert ended.err.startswith("rerank: ")
    assert ended.out == b""
    return ended.err


def by_index(answer, field):
    return {result["index"]: result[field] for result in answer["results"]}


@pytest.fixture(scope="module")
def layered(given):
    """Scores of three layers, named in no order and one of them twice."""
    return good(given, "-m", LAYERWISE, "--cutoff-layers", "6,2,4,2", "--mark-truncated").records


def test_several_layers_give_a_score_each_in_their_order(layered):
    for answer in layered:
        for result in answer["results"]:
            assert list(result["scores"]) == ["2", "4", "6"]
            assert len(set(result["scores"].values())) == 3
            assert all(0 < score < 1 for score in result["scores"].values())


def test_the_deepest_layer_is_the_score_and_the_order(layered):
    for answer in layered:
        scores = [result["relevance_score"] for result in answer["results"]]
        assert scores == [result["scores"]["6"] for result in answer["results"]]
        assert scores == sorted(scores, reverse=True)
    by_layer = [[r["scores"][layer] for r in layered[1]["results"]] for layer in ("2", "4")]
    assert any(scores != sorted(scores, reverse=True) for scores in by_layer), "this input tells no order from another"


def test_marks_tell_which_pairs_were_truncated(layered):
    assert by_index(layered[0], "truncated") == {0: False, 1: False, 2: True, 3: False}
    assert by_index(layered[1], "truncated") == {0: False, 1: False, 2: True}


def test_the_best_passage_of_a_long_document_is_a_part_of_its_text(given):
    flags = ["--max-length", "128", "--query-max-length", "24", "--mark-truncated", "--long-documents", "max"]
    answers = good(given, "-m", BERT, *flags, "--stride", "40").records
    for record, answer in zip(REQUESTS, answers, strict=True):
        for result in answer["results"]:
            text, passage = record["documents"][result["index"]], result["passage"]
            assert 0 <= passage["start"] < passage["end"] <= len(text)
            assert text[passage["start"] : passage["end"]].strip()
            assert (passage == {"start": 0, "end": len(text)}) == (LONG not in text)
            assert not result["truncated"]


def test_stride_without_passages_is_exit_2(given):
    said = refused(2, given, "-m", "/no/such/model", "--stride", "20")
    assert "--stride needs --long-documents max, first or mean-top3" in said


@pytest.mark.parametrize(
    ("model", "flag", "value"),
    [
        (BERT, "--prompt", "Is it so?"),
        (LAYERWISE, "--compress-ratio", "2"),
    ],
)
def test_an_option_that_a_family_lacks_is_exit_2_and_named(given, tmp_path, model, flag, value):
    said = refused(2, given, "-m", model, flag, value, "-o", tmp_path / "out.jsonl")
    assert said.startswith(f"rerank: {flag}: {model} (")
    assert "has no such option (it has: --" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "part"),
    [("3,99", "heads for layers 2 to 6"), ("a", "numbers"), ("3,", "numbers")],
)
def test_a_bad_layer_is_exit_2_and_told_what_there_is(given, value, part):
    said = refused(2, given, "-m", LAYERWISE, "--cutoff-layers", value)
    assert said.startswith(f"rerank: --cutoff-layers {value.removeprefix('3,') or value}")
    assert part in said


@pytest.fixture(scope="module")
def asked_otherwise(given):
    """The answers of a run with another prompt."""
    return good(given, "-m", GEMMA, "--profile", "bge", "--prompt", "Is it so?").out


def test_a_profile_of_ones_own_asks_in_its_own_words(given, asked_otherwise, tmp_path):
    (tmp_path / "mine.toml").write_text('base = "bge"\nprompt = "Is it so?"\n')
    assert good(given, "-m", GEMMA, "--profile", tmp_path / "mine.toml").out == asked_otherwise


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.toml", 'qery = "{query}"', "unknown setting 'qery' (expected name, prefix, query"),
        ("a.toml", None, "No such file or directory"),
        ("nobody", None, "no such profile (expected a TOML or JSON file, or bge, ctxl, monot5, mt5,"),
    ],
)
def test_a_profile_that_cannot_be_used_is_exit_2_and_told_why(given, tmp_path, name, content, part):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    said = refused(2, given, "-m", "/no/such/model", "--profile", path)
    assert part in said
    assert "profile" in said


def test_the_summary_tells_what_was_verified(given, tmp_path):
    good(given, "-m", BERT, "--verify", "5", "--summary", tmp_path / "summary.json")
    verified = json.loads((tmp_path / "summary.json").read_bytes())["verified"]
    assert set(verified) == {"pairs", "worst", "kendall_tau", "tolerance"}
    assert (verified["pairs"], verified["tolerance"]) == (5, 1e-3)
    assert 0 <= verified["worst"] < 1e-3
    assert verified["kendall_tau"] > 0.5


def test_scores_that_cannot_be_verified_are_exit_5_and_no_output(given, tmp_path):
    command = [given, "-m", GEMMA, "--verify", "5", "-o", tmp_path / "out.jsonl"]
    said = refused(5, *command, "--verify-tolerance", "0")
    assert "--verify: 5 pairs verified: worst |Δ| " in said
    assert "beyond the tolerance of 0. Fix: " in said
    assert not (tmp_path / "out.jsonl").exists()
    assert "no score to verify" in refused(5, *command)
    assert not (tmp_path / "out.jsonl").exists()
    good(*command, "--restart")
    assert len(json_lines((tmp_path / "out.jsonl").read_bytes())) == len(REQUESTS)


def test_an_error_that_only_a_restart_mends_is_not_followed_by_other_advice(given, broken, tmp_path):
    failed = rerank("run", given, "-m", GEMMA, "--verify", "5", "--verify-tolerance", "0", "-o", tmp_path / "verified")
    assert (failed.code, "Fix: --restart --dtype fp32" in failed.complaint) == (5, True)
    assert "same command" not in failed.err
    command = ["run", broken, "-m", BERT, "-o", tmp_path / "out", "--commit-interval", "0"]
    stopped = rerank(*command)
    assert (stopped.code, "fix the problem and run the same command to resume" in stopped.err) == (4, True)
    changed = rerank(*command, "--max-length", "100")
    assert (changed.code, "Fix: --restart" in changed.complaint) == (6, True)
    assert "same command" not in changed.err


def test_going_on_with_other_options_is_exit_6_and_names_them(broken, tmp_path):
    output = tmp_path / "out.jsonl"
    command = [broken, "-m", LAYERWISE, "-o", output, "--chunk-pairs", "200", "--commit-interval", "0"]
    assert "broken JSON" in refused(4, *command, "--cutoff-layers", "3")
    kept = (tmp_path / "out.jsonl.partial").read_bytes()
    assert kept
    others = {
        ("--cutoff-layers", "3,4"): "(cutoff layers [3] → [3, 4])",
        ("--cutoff-layers", "3", "--prompt", "So?"): "(prompt None → So?)",
        ("--cutoff-layers", "3", "--mark-truncated"): "(mark truncated False → True)",
        ("--cutoff-layers", "3", "--long-documents", "max"): "(long documents truncate → max)",
    }
    for flags, difference in others.items():
        assert f"started with other settings {difference}. Fix: --restart" in refused(6, *command, *flags)
    assert (tmp_path / "out.jsonl.partial").read_bytes() == kept
    assert rerank("run", *command, "-q", "--cutoff-layers", "3", "--on-error", "skip").code == 3
    assert [answer["id"] for answer in json_lines(output.read_bytes())] == list(range(1500))
