"""Only the beginning of a very long text is tokenized, and its ids are those of the whole."""

import random

import pytest
from tiny import PARITY

from rerank_cli.models.prompts.tokens import load_tokenizer

WORDS = [
    "the",
    "giant",
    "panda",
    "is",
    "a",
    "bear",
    "that",
    "lives",
    "in",
    "china",
    "unbelievably",
    "naïve",
    "Αθήνα",
    "привет",
    "東京",
    "🐼🎋",
    "مرحبا",
    "co-operate",
]
ENOUGH = 512


def words(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count))


TEXTS = {
    "words": lambda rng: words(rng, 80_000),
    "lines": lambda rng: "\n".join(words(rng, 9) for _ in range(9_000)),
    "no spaces in Chinese": lambda rng: "".join(rng.choice("東京大熊猫住在中国的山里吃竹子") for _ in range(400_000)),
    "one word without end": lambda _: "ab1" * 150_000,
    "spaces before": lambda rng: " " * 300_000 + words(rng, 2_000),
    "spaces between": lambda rng: ("   " + words(rng, 3) + " \t ") * 20_000,
    "emoji": lambda rng: "".join(rng.choice("🐼🎋👩‍👩‍👧🇫🇷é") for _ in range(300_000)),
    "right to left": lambda rng: " ".join(rng.choice(["مرحبا", "بالعالم", "שלום"]) for _ in range(60_000)),
}


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("kind", TEXTS)
def test_the_ids_are_those_of_the_whole_text(family, kind):
    text = TEXTS[kind](random.Random(kind))
    tokenizer = load_tokenizer(PARITY / family)
    whole, beginning = tokenizer.encode([text])[0], tokenizer.encode([text], ENOUGH)[0]
    assert beginning[:ENOUGH].tolist() == whole[:ENOUGH].tolist()
    assert min(len(whole), ENOUGH + 1) <= len(beginning)


def test_a_text_of_a_hundred_megabytes_is_not_tokenized_to_its_end():
    text = words(random.Random(1), 1000) * 18_000
    assert len(text) > 100_000_000
    assert len(load_tokenizer(PARITY / "bert").encode([text], ENOUGH)[0]) < 100_000
