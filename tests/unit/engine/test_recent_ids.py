import numpy as np
from fakes import tokenizer
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.models.prompts.tokens import RecentIds

words = st.lists(st.integers(0, 499), max_size=9).map(lambda numbers: " ".join(f"w{number}" for number in numbers))


@given(st.lists(st.lists(words, max_size=8), max_size=8))
def test_ids_are_the_same_however_often_a_text_came_before(batches):
    again = tokenizer()
    for texts in batches:
        expected = [ids.tolist() for ids in tokenizer().encode(texts)]
        assert [ids.tolist() for ids in again.encode(texts)] == expected


def test_a_text_that_was_met_lately_is_not_tokenized_again():
    made = tokenizer()
    first = made.encode(["w1 w2", "w3"])
    second = made.encode(["w3", "w4", "w1 w2"])
    assert second[0] is first[1]
    assert second[2] is first[0]


def held(recent):
    kept = {**recent._old, **recent._young}
    return sum(len(text) + ids.nbytes for text, ids in kept.items())


@given(st.lists(st.integers(0, 60), max_size=300))
def test_it_keeps_to_its_budget_and_remembers_what_is_asked_for_all_the_time(numbers):
    recent = RecentIds(budget=20_000)
    recent.put("always", np.arange(3, dtype=np.int32))
    for number in numbers:
        text = f"text {number}"
        if recent.get(text) is None:
            recent.put(text, np.arange(number, dtype=np.int32))
        assert recent.get("always").tolist() == [0, 1, 2]
        assert recent.get(text).tolist() == list(range(number))
        assert held(recent) <= 20_000


def test_one_huge_text_does_not_drive_out_all_others():
    recent = RecentIds(budget=20_000)
    recent.put("small", np.arange(3, dtype=np.int32))
    recent.put("x" * 19_000, np.arange(3, dtype=np.int32))
    assert recent.get("small") is not None
    assert recent.get("x" * 19_000) is None
