import json
from pathlib import Path

import pytest
from shell import rerank

PARITY = Path(__file__).parent.parent / "models" / "parity"
LONG = "The giant panda is a bear. " * 40


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "in.jsonl"
    rows = [
        {"id": "a", "query": "what is a panda", "documents": ["hi", "a bear"]},
        {"id": "b", "query": "who eats bamboo", "documents": [LONG], "instruction": "Q: "},
        {"query": ""},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def inspected(given, *flags):
    ended = rerank("inspect", given, "--json", *flags)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_a_pair_of_an_encoder_is_shown_token_by_token(given):
    found = inspected(given, "--candidate", "1", "-m", PARITY / "bert")
    assert found["id"] == "a"
    assert found["passage"]["text"] == "a bear"
    assert not found["passage"]["truncated"]
    assert found["tokens"][0] == "[CLS]"
    assert found["parts"] == sorted(found["parts"], key=["prefix", "query", "middle", "passage", "suffix"].index)
    assert found["score_at"] == 0


def test_it_says_where_a_passage_is_cut(given):
    found = inspected(given, "--record", "2", "-m", PARITY / "bert", "--max-length", "32")
    passage = found["passage"]
    assert passage["truncated"]
    assert passage["kept"] < passage["tokens"]
    assert len(found["ids"]) == 32
    pieces = [t for t, part in zip(found["tokens"], found["parts"], strict=True) if part == "passage"]
    read = "".join(piece.removeprefix("##") for piece in pieces)
    assert read == LONG[: passage["ends_at"]].replace(" ", "").lower()


def test_a_decoder_is_shown_with_its_prompt_and_a_records_own_instruction(given):
    found = inspected(given, "--record", "2", "-m", PARITY / "gemma", "--prompt", "Is it so?")
    assert found["query"]["text"] == "Q: who eats bamboo"
    assert found["passage"]["text"].startswith("B: The giant")
    assert found["score_at"] == len(found["ids"]) - 1
    suffix = "".join(t for t, part in zip(found["tokens"], found["parts"], strict=True) if part == "suffix")
    assert "so?" in suffix.replace("▁", " ")


def test_the_table_marks_the_place_of_the_score(given):
    ended = rerank("inspect", given, "-m", PARITY / "gemma")
    assert ended.code == 0
    assert ended.out.decode().rstrip().endswith("the score is read here")


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--record", "9"], 4, "fewer records"),
        (["--record", "3"], 4, "query"),
        (["--candidate", "2"], 4, "no candidate 2"),
        (["--prompt", "x"], 2, "--prompt"),
    ],
)
def test_what_cannot_be_shown_is_one_line(given, flags, code, message):
    ended = rerank("inspect", given, "-m", PARITY / "bert", *flags)
    assert ended.code == code
    assert message in ended.err
    assert ended.out == b""


def test_a_model_is_described_with_the_options_it_has():
    ended = rerank("models", PARITY / "gemma2-lightweight", "--json")
    found = json.loads(ended.out)
    assert found["family"] == "lightweight"
    assert found["suffix"] == "\nPredict whether passage B contains an answer to query A."
    assert {"--cutoff-layers", "--compress-ratio", "--softcap"} <= set(found["options"])
    assert "--profile" not in found["options"]
    assert found["dtype"].startswith("bf16")


def test_a_model_that_is_not_there_is_exit_5():
    ended = rerank("models", "./nowhere")
    assert ended.code == 5
    assert "no such model folder" in ended.err
