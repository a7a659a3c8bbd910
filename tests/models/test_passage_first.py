"""Profiles with the passage before the query, ctxl among them: ids of the whole prompt, logits of the stock model."""

import dataclasses
import json

import numpy as np
import pytest
import qwen
import transformers as tf
from hard import PAIRS, expect, scored
from safetensors.torch import load_file, save_file
from test_prompts import TEXT

from rerank_cli.choices import LongDocuments
from rerank_cli.engine.limits import open_tokenizer
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.prompts import profiles

pytestmark = pytest.mark.slow
TASK = "Check whether a given document contains information helpful to answer the query.\n<Document>"
LIMIT = 400


@pytest.fixture(scope="module")
def ctxl(tmp_path_factory):
    return qwen.written(tmp_path_factory.mktemp("ctxl") / "ctxl-rerank-v2-instruct-multilingual-1b", TEXT, TASK)


def reader(folder):
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    return lambda text: tokenizer(text)["input_ids"]  # with the tokens that it writes around a text: none


def reference(ids, query, passage, instruction=None, limit=LIMIT):
    """`format_prompts` of the model card, as one string; of a longer pair, the passage gives way up to its line end."""
    asked = f"{query} {instruction}" if instruction else query
    whole = ids(f"{TASK} {passage}\n<Query> {asked} ??")
    if len(whole) <= limit:
        return whole
    task, closing = ids(TASK), ids(f"<Query> {asked} ??")
    kept = limit - len(task) - len(closing) - 1
    return task + ids(f" {passage}\n")[:kept] + ids("\n") + closing


@pytest.mark.parametrize("instruction", [None, "Prefer the newest."])
def test_ctxl(ctxl, instruction):
    found = scored(ctxl, max_length=LIMIT, query_instruction=instruction)
    assert (found.session.facts.profile, found.session.facts.profile_is_guess) == ("ctxl", False)
    assert found.session.facts.packed
    ids = [reference(reader(ctxl), *pair, instruction) for pair in PAIRS]
    assert max(map(len, ids)) == LIMIT
    expect(found, ids, qwen.last_logits(ctxl, ids)[:, 0])


def test_pairs_of_a_passage_share_it(ctxl):
    """The same documents are candidates of several queries: each is read once a row."""
    pairs = [(query, passage) for passage in ("One panda.", "Two bears.") for query in ("what?", "where is it?", "who")]
    found = scored(ctxl, pairs)
    ids = [reference(reader(ctxl), *pair) for pair in pairs]
    expect(found, ids, qwen.last_logits(ctxl, ids)[:, 0], pairs)
    row = found.session.prepare(PairTexts(*zip(*pairs, strict=True), [0] * len(pairs))).rows[0].row
    assert np.count_nonzero(np.bincount(row.parents[row.parents >= 0])) == 2
    assert row.tokens < sum(map(len, ids))


def test_a_conversion_with_one_label_is_read_by_the_same_prompt(ctxl, tmp_path):
    """`score.weight` is row 0 of the head, as in sigridjineth/ctxl-rerank-v2-1b-seq-cls."""
    folder = tmp_path / "ctxl-rerank-v2-1b-seq-cls"
    config = tf.Qwen3Config.from_pretrained(ctxl, num_labels=1, architectures=["Qwen3ForSequenceClassification"])
    config.save_pretrained(folder)
    weights = load_file(ctxl / "model.safetensors")
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    kept = {name: weight for name, weight in weights.items() if name != "lm_head.weight"}
    save_file(kept | {"score.weight": head[:1].clone()}, folder / "model.safetensors", metadata={"format": "pt"})
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((ctxl / file).read_bytes())
    found = scored(folder, max_length=LIMIT)
    assert found.session.facts.profile == "ctxl"
    ids = [reference(reader(ctxl), *pair) for pair in PAIRS]
    expect(found, ids, qwen.last_logits(ctxl, ids)[:, 0])


def test_long_documents_are_read_in_passages(ctxl):
    """Every passage is followed by the line end and the query."""
    options = ModelOptions(str(ctxl), device="cpu", dtype="fp32", max_length=100, long_documents=LongDocuments.MAX)
    session = open_session(options)
    text = TEXT[:3000]
    ready = session.prepare(PairTexts(["what is panda?"], [text], [0]))
    ids = reader(ctxl)
    closing, rows = ids("\n") + ids("<Query> what is panda? ??"), [planned.row.unshared() for planned in ready.rows]
    sequences = [row.ids[s : s + n].tolist() for row in rows for s, n in zip(row.starts, row.lengths, strict=True)]
    assert len(sequences) > 10
    assert all(one[: len(ids(TASK))] == ids(TASK) and one[-len(closing) :] == closing for one in sequences)
    assert max(map(len, sequences)) == 100
    logits = qwen.last_logits(ctxl, sequences)[:, 0]
    pooled, _ = ready.windows.pool(session.score(ready))
    assert abs(pooled[0] - logits.max()) <= 1e-5


def test_a_tokenizer_that_joins_the_pieces_is_refused(decoder, tmp_path):
    """One that writes a space before every text, as older ones of Llama and Mistral do."""
    folder = tmp_path / "ctxl-rerank-v2-instruct-multilingual-6b"
    folder.mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((decoder("mistral") / file).read_bytes())
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"]["normalizers"].insert(0, {"type": "Prepend", "prepend": "▁"})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="joins words of the prompt of profile ctxl") as caught:
        open_tokenizer(ModelOptions(str(folder)))
    assert "\n" not in str(caught.value)


def test_first_is_a_text():
    with pytest.raises(UsageError, match="first is 'document' \\(expected query or passage\\)"):
        profiles.Profile("mine", first="document")


def test_a_profile_with_two_turns_and_the_passage_first(ctxl):
    """A system turn with the task, then the document and the query as the user's, and an empty thought."""
    made = dataclasses.replace(
        profiles.QWEN3, name="turned", prefix=("<|im_start|>system\n{prompt}<|im_end|>\n<|im_start|>user\n",),
        prompt='Answer "yes" or "no".', passage="<Document>: {passage}\n", query="<Query>: {query}",
        suffix=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",), first="passage", one_string=True,
    )  # fmt: skip
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% if not enable_thinking %}<think>\n\n</think>\n\n"
        "{% endif %}{% endif %}"
    )
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(ctxl)
    pairs = [(query, passage) for query, passage in PAIRS if len(passage) < 1000]

    def whole(query, passage):
        messages = [
            {"role": "system", "content": 'Answer "yes" or "no".'},
            {"role": "user", "content": f"<Document>: {passage}\n<Query>: {query}"},
        ]
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return tokenizer(text)["input_ids"]

    ids = [whole(*pair) for pair in pairs]
    yes, no = (tokenizer(word)["input_ids"][0] for word in ("yes", "no"))
    logits = qwen.last_logits(ctxl, ids)
    expect(scored(ctxl, pairs, profile=made), ids, logits[:, yes] - logits[:, no], pairs)
