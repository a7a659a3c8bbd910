"""The answers of a profile: several words for one side, token ids; log Σ exp written out."""

import dataclasses
import math
from pathlib import Path

import pytest
import qwen
import transformers as tf
from hard import PAIRS, expect, scored
from test_prompts import TEXT

from rerank_cli.engine.limits import open_tokenizer
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import UsageError
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles
from rerank_cli.models.prompts.profile_files import read_profile
from rerank_cli.models.reading.answers import Answers, answers_of

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[2] / "docs" / "profiles"
SHORT = [(query, passage) for query, passage in PAIRS if len(passage) < 1000]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return qwen.written(tmp_path_factory.mktemp("answers"), TEXT, "Yes yes YES No no NO " * 60)


def words(folder):
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    return {word: tokenizer(word)["input_ids"][0] for word in (" yes", "Yes", "yes", " no", "No", "no")}


def summed(logits, ids):
    """log Σ exp in Python's floats of 64 bits."""
    return [math.log(math.fsum(math.exp(row[number]) for number in ids)) for row in logits.tolist()]


@pytest.mark.parametrize("against", [(" no", "No", "no"), ("no",), None])
def test_several_answers_count_together(folder, against):
    ids = words(folder)
    assert len(set(ids.values())) == 6
    made = dataclasses.replace(profiles.QWEN3, name="several", yes=(" yes", "Yes", "yes"), no=against)
    found = scored(folder, SHORT, profile=made)
    logits = qwen.last_logits(folder, found.ids)
    expected = summed(logits, [ids[word] for word in (" yes", "Yes", "yes")])
    if against:
        others = summed(logits, [ids[word] for word in against])
        expected = [one - other for one, other in zip(expected, others, strict=True)]
    expect(found, found.ids, expected, SHORT)


def test_an_answer_may_be_a_token_id(folder):
    made = dataclasses.replace(profiles.QWEN3, name="ids", yes=(0, "yes"), no=7, divide_by=2.0)
    found = scored(folder, SHORT, profile=made)
    logits = qwen.last_logits(folder, found.ids)
    expected = [(one - row[7]) / 2 for one, row in zip(summed(logits, [0, words(folder)["yes"]]), logits, strict=True)]
    expect(found, found.ids, expected, SHORT)


@pytest.mark.parametrize(("name", "text"), [
    ("mine.toml", 'base = "qwen3"\nyes = ["yes", "Yes", 12]\nno = 3\nstrips = true\none_string = true\n'
                  'first = "passage"\n'),
    ("mine.json", '{"base": "qwen3", "yes": ["yes", "Yes", 12], "no": 3, "strips": true, "one_string": true, '
                  '"first": "passage"}'),
])  # fmt: skip
def test_a_file_states_them(folder, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    made = read_profile(str(tmp_path / name))
    assert made == dataclasses.replace(
        profiles.QWEN3, name="mine", yes=("yes", "Yes", 12), no=3, strips=True, one_string=True, first="passage"
    )
    known = open_tokenizer(ModelOptions(str(folder), family=FamilyOptions(profile=profiles.QWEN3)))
    ids = words(folder)
    assert answers_of(made, known.tokenizer, whole=False) == Answers((ids["yes"], ids["Yes"], 12), (3,))


def test_the_example_of_the_documentation(tmp_path):
    """System turn, passage first, spellings summed: the whole prompt as one string, and log Σ exp of its answers."""
    made = read_profile(str(DOCS / "several-answers.toml"))
    folder = qwen.written(tmp_path, TEXT, "Yes yes YES No no NO system user assistant " * 60)
    found, ids = scored(folder, SHORT, profile=made), words(folder)
    start = "<|im_start|>system\nDoes the document answer the query? Answer yes or no.<|im_end|>\n<|im_start|>user\n"
    end = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    whole = [tokenizer(f"{start}<Document>: {p}\n<Query>: {q}{end}")["input_ids"] for q, p in SHORT]
    logits = qwen.last_logits(folder, whole)
    sides = [summed(logits, [ids[word] for word in side]) for side in ((" yes", "Yes", "yes"), (" no", "No", "no"))]
    expect(found, whole, [one - other for one, other in zip(*sides, strict=True)], SHORT)


def test_words_with_the_same_first_token_count_once(folder):
    known = open_tokenizer(ModelOptions(str(folder), family=FamilyOptions(profile=profiles.QWEN3)))
    made = dataclasses.replace(profiles.QWEN3, yes=("yes", "yes!", "yes"))
    assert answers_of(made, known.tokenizer, whole=False) == Answers((words(folder)["yes"],), (words(folder)["no"],))


@pytest.mark.parametrize(("changes", "message"), [
    ({"yes": ("yes", "no"), "no": ("no",)}, "answers of `yes` and `no` begin with the same token 'no'"),
    ({"yes": ""}, "no tokens for the answer ''"),
])  # fmt: skip
def test_answers_that_cannot_be_are_one_line(folder, changes, message):
    made = dataclasses.replace(profiles.QWEN3, name="wrong", **changes)
    with pytest.raises(UsageError, match=message) as caught:
        open_tokenizer(ModelOptions(str(folder), family=FamilyOptions(profile=made)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["yes = []", "yes = [true]", "no = -1", "strips = 1", "one_string = 'yes'"])
def test_a_file_with_other_kinds_of_values_is_refused(tmp_path, line):
    (tmp_path / "mine.toml").write_text(f'base = "qwen3"\n{line}\n')
    with pytest.raises(UsageError, match=f"{line.partition(' ')[0]} cannot be"):
        read_profile(str(tmp_path / "mine.toml"))


def test_an_id_beyond_the_vocabulary_is_refused(folder):
    from rerank_cli.errors import ModelError

    made = dataclasses.replace(profiles.QWEN3, name="far", yes=10**6)
    with pytest.raises(ModelError, match="rows"):
        scored(folder, SHORT[:1], profile=made)
