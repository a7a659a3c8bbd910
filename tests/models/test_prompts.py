"""Ids of whole sequences against the reference's recipes, written out here with transformers' tokenizers."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
from qwen import write_tokenizer
from transformers import PreTrainedTokenizerFast

from rerank_cli.choices import TruncationRule
from rerank_cli.engine.limits import open_tokenizer
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts, PairTokenizer, prepare
from rerank_cli.errors import UsageError
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles
from rerank_cli.models.reading.answers import Answers

PARITY = Path(__file__).parent / "parity"
TEXT = " ".join(passage for _, passage in json.loads((PARITY / "expected.json").read_text())["cases"][0]["pairs"])
LONG = TEXT[:20_000]
QUERIES = [
    "what is panda?", "", " leading space", "ends in a dot. ", "two\nlines\n", "¿qué? 我 是 谁", "🐼👩‍👩‍👧 emoji",
    "שלום עולם ما هذا",
    "1908: 3.14", LONG[:6000],
]  # fmt: skip
PASSAGES = [
    "hi", "", " ", "\n", "7 bears", "?!", "\u0308 begins with a combining mark", "🐼 naïve cafe\u0301", "مرحبا بالعالم",
    "tab\tand\r\nreturn", "<bos> <|im_end|> </s> as text", LONG,
]  # fmt: skip
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]


def our_ids(folder, max_length=None, instructions=(), **family):
    opened = open_tokenizer(ModelOptions(str(folder), max_length=max_length, family=FamilyOptions(**family)))
    reader = PairTokenizer(opened.tokenizer, opened.reading.rule, opened.limits, share=True)
    queries, passages = zip(*PAIRS, strict=True)
    ready = prepare(PairTexts(queries, passages, [0] * len(PAIRS), instructions), reader, 4096)
    sequences = {}
    for planned in ready.rows:
        row = planned.row.unshared()
        for pair, start, length in zip(planned.pairs.tolist(), row.starts, row.lengths, strict=True):
            sequences[pair] = row.ids[start : start + length].tolist()
    return [sequences[pair] for pair in ready.distinct.tolist()], opened


def compare(found, expected):
    for pair, ours, theirs in zip(PAIRS, found, expected, strict=True):
        assert ours == theirs, pair


def only_second(first, second, specials, limit):
    over = len(first) + len(second) + specials - limit
    return second[: len(second) - over] if 0 < over < len(second) else second


@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
@pytest.mark.parametrize("max_length", [None, 64])
def test_encoders(name, max_length):
    found, _ = our_ids(PARITY / name, max_length)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(PARITY / name)
    limit = max_length or 512
    before, between, after = ([2], [3], [3]) if name == "bert" else ([0], [2, 2], [2])

    def reference(query, passage):
        first = tokenizer(query, add_special_tokens=False)["input_ids"][: limit * 3 // 4]
        second = tokenizer(passage, add_special_tokens=False)["input_ids"][:limit]
        second = only_second(first, second, len(before + between + after), limit)
        return [*before, *first, *between, *second, *after]

    compare(found, [reference(*pair) for pair in PAIRS])


@pytest.mark.parametrize("rule", [TruncationRule.FLAGEMBEDDING, TruncationRule.MODELCARD])
@pytest.mark.parametrize("name", ["gemma", "minicpm-layerwise", "gemma2-lightweight"])
@pytest.mark.parametrize("max_length", [None, 96])
def test_bge_decoders(name, max_length, rule):
    found, opened = our_ids(PARITY / name, max_length, truncation_rule=rule)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(PARITY / name)
    limit = max_length or 512

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    long = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing "
        "a prediction of either 'Yes' or 'No'."
    )
    prompt = "Predict whether passage B contains an answer to query A." if "lightweight" in name else long
    separator, question = ids("\n"), ids(prompt)
    room = limit + len(separator) + len(question) if rule is TruncationRule.FLAGEMBEDDING else limit

    def reference(query, passage):
        first = [tokenizer.bos_token_id, *ids("A: " + query)[: limit * 3 // 4]]
        second = only_second(first, separator + ids("B: " + passage)[:limit], 0, room)
        return first + second + separator + question

    compare(found, [reference(*pair) for pair in PAIRS])
    assert opened.reading.answers == (Answers((ids("Yes")[0],)) if name == "gemma" else None)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A folder with a small tokenizer of Qwen's make and a config."""
    folder = tmp_path_factory.mktemp("qwen")
    write_tokenizer(folder, TEXT)
    config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": 32768}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


QWEN_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
QWEN_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
WEB = "Given a web search query, retrieve relevant passages that answer the query"


@pytest.mark.parametrize("max_length", [None, 3000])
@pytest.mark.parametrize("instruction", [None, "Find the panda.\n"])
def test_qwen3(qwen, max_length, instruction):
    """The model card tokenizes instruction, query and document as one string, and cuts that on the right."""
    found, opened = our_ids(qwen, max_length, query_instruction=instruction)
    assert opened.reading.profile.name == "qwen3"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(qwen)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    room = (max_length or 8192) - len(ids(QWEN_PREFIX)) - len(ids(QWEN_SUFFIX))

    def reference(query, passage):
        text = f"<Instruct>: {instruction or WEB}\n<Query>: {query}\n<Document>: {passage}"
        return ids(QWEN_PREFIX) + ids(text)[:room] + ids(QWEN_SUFFIX)

    compare(found, [reference(*pair) for pair in PAIRS])
    assert opened.reading.answers == Answers((ids("yes")[0],), (ids("no")[0],))


def test_a_query_that_is_clipped_keeps_the_words_behind_it(qwen):
    found, opened = our_ids(qwen, 400)
    tail = opened.tokenizer.ids("\n<Document>:").tolist()
    clipped = found[PAIRS.index((LONG[:6000], "hi"))]
    assert len(clipped) == 400
    assert any(clipped[place : place + len(tail)] == tail for place in range(len(clipped)))


@pytest.mark.parametrize("instruction", [None, "Find the panda."])
def test_mxbai(qwen, instruction):
    found, opened = our_ids(qwen, 300, profile=profiles.MXBAI, query_instruction=instruction)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(qwen)

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    prefix = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment "
        "(0 for not relevant, 1 for relevant).\nRelevance:"
    )

    def reference(query, passage):
        first = f"instruction: {instruction}\nquery: {query}" if instruction else f"query: {query}"
        first = ids(first)[:225]
        second = only_second(first, ids("\n") + ids(f"document: {passage}")[:300], 0, 300)
        return ids(prefix) + first + second + ids("\n") + ids(task) + ids("<|im_end|>\n<|im_start|>assistant\n")

    compare(found, [reference(*pair) for pair in PAIRS])
    assert opened.reading.answers == Answers((ids("1")[0],), (ids("0")[0],))


def test_a_records_own_instruction_wins(qwen):
    instructions = [random.Random(3).choice([None, "Mine."]) for _ in PAIRS]
    found, _ = our_ids(qwen, instructions=instructions)
    plain, _ = our_ids(qwen)
    own, _ = our_ids(qwen, query_instruction="Mine.")
    for instruction, ours, without, with_it in zip(instructions, found, plain, own, strict=True):
        assert ours == (with_it if instruction else without)


def test_special_tokens_are_told_by_the_tokenizers_configuration(tmp_path, qwen):
    """Qwen's has no first token, although its config.json names one."""
    found, _ = our_ids(qwen, profile=profiles.BGE)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(qwen)
    assert found[0][: len(tokenizer("A: what")["input_ids"]) - 1] == tokenizer("A: what")["input_ids"][:-1]
    for bos, expected in (("<|im_start|>", [1]), ("<|endoftext|>", [])):
        folder = tmp_path / bos.strip("<|>")
        folder.mkdir()
        for file in qwen.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "tokenizer_config.json").read_text()) | {"bos_token": bos}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        with_bos, _ = our_ids(folder, profile=profiles.BGE)
        assert with_bos[0] == expected + found[0]  # one that is the padding token too is left out


def test_the_share_of_a_query_is_counted_from_its_own_tokens(qwen):
    found, _ = our_ids(qwen, profile=profiles.BGE, max_length=64)
    lengths = np.array([len(ids) for ids in found])
    assert (
        lengths.max()
        <= 64 + 2 * len(PreTrainedTokenizerFast.from_pretrained(qwen)("\n" + profiles.BGE.prompt)["input_ids"]) + 2
    )


def test_control_tokens_that_the_tokenizer_lacks_are_refused():
    with pytest.raises(UsageError, match=r"no token <\|im_start\|>"):
        our_ids(PARITY / "gemma", profile=profiles.QWEN3)


def test_an_instruction_without_a_place_is_refused(qwen):
    plain = dataclasses.replace(profiles.QWEN3, name="plain", query="{query}")
    with pytest.raises(UsageError, match="instruction"):
        our_ids(qwen, profile=plain, instructions=["Mine."] * len(PAIRS))


def test_a_profile_may_have_any_name(qwen):
    found, opened = our_ids(qwen, profile=dataclasses.replace(profiles.QWEN3, name="encoder"))
    assert found == our_ids(qwen)[0]
    assert opened.reading.answers
