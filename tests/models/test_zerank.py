"""zerank and Qwen3's conversions: whole prompts by transformers' chat templates, logits of the stock model."""

import subprocess

import numpy as np
import pytest
import qwen
import torch
import transformers as tf
from hard import PAIRS, expect, scored
from processes import TIMEOUT, environment, forked_command
from safetensors.torch import load_file, save_file
from test_prompts import QWEN_PREFIX, QWEN_SUFFIX, TEXT, WEB

from rerank_cli import Reranker

pytestmark = pytest.mark.slow
LIMIT, CLOSING = 400, "<|im_end|>\n<|im_start|>assistant\n"
# The messages of Qwen3's own template, without its parts for tools and thoughts.
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Written for messages of these roles, as zerank-2 and the conversions of Qwen3-Reranker have it since 2026.
ZERANK = (
    "{%- set q = messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first -%}"
    "{%- set d = messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first -%}"
    "<|im_start|>system\n{{ q | trim }}<|im_end|>\n<|im_start|>user\n{{ d | trim }}<|im_end|>\n"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{%- set task = messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first"
    f" | default('{WEB}') -%}}"
    "{%- set q = messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first -%}"
    "{%- set d = messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first -%}"
    f"{QWEN_PREFIX}<Instruct>: {{{{ task }}}}\n<Query>: {{{{ q }}}}\n<Document>: {{{{ d }}}}{QWEN_SUFFIX}\n"
)


def made(folder, template=None):
    return qwen.written(folder, TEXT, "Yes yes no system user assistant " * 60, template=template)


@pytest.fixture(scope="module", params=["zerank-1", "zerank-1-small", "zerank-2"])
def zerank(request, tmp_path_factory):
    """As published first: no files of sentence-transformers, but code, which is never run."""
    return made(tmp_path_factory.mktemp("zerank") / request.param)


def whole(tokenizer, query, passage):
    """`format_pointwise_datapoints` of modeling_zeranker.py."""
    messages = [{"role": "system", "content": query.strip()}, {"role": "user", "content": passage.strip()}]
    text = tokenizer.apply_chat_template(messages, chat_template=TURNS, tokenize=False, add_generation_prompt=True)
    return tokenizer(text)["input_ids"]


def cut(tokenizer, query, passage):
    """What keeps to the limit: the passage gives way."""
    ids, closing = whole(tokenizer, query, passage), tokenizer(CLOSING)["input_ids"]
    return ids if len(ids) <= LIMIT else ids[: LIMIT - len(closing)] + closing


def test_zerank_by_its_name(zerank):
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(zerank)
    found = scored(zerank, max_length=LIMIT)
    assert (found.session.facts.profile, found.session.facts.profile_is_guess) == ("zerank", False)
    ids = [cut(tokenizer, *pair) for pair in PAIRS]
    assert max(map(len, ids)) == LIMIT
    expect(found, ids, qwen.last_logits(zerank, ids)[:, tokenizer("Yes")["input_ids"][0]] / 5)


def test_zerank_2_by_the_files_of_sentence_transformers(tmp_path):
    """Since May 2026 its `predict` returns the logit itself, and so does this program, by the same files."""
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")
    folder = made(tmp_path / "zerank-2", ZERANK)
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    qwen.saved_by_sentence_transformers(folder, tokenizer("Yes")["input_ids"][0])
    pairs = [(query, passage) for query, passage in PAIRS if len(passage) < 1000]
    found = scored(folder, pairs)
    assert found.session.facts.profile == "chat-template"
    ids = [whole(tokenizer, *pair) for pair in pairs]
    expect(found, ids, qwen.last_logits(folder, ids)[:, tokenizer("Yes")["input_ids"][0]], pairs)
    theirs = sentence_transformers.CrossEncoder(str(folder), device="cpu")
    expected = theirs.predict(pairs, batch_size=1, show_progress_bar=False)
    assert np.abs(found.scores - expected).max() <= 1e-5
    with Reranker(folder, device="cpu", dtype="fp32") as reranker:
        assert np.abs(reranker.score(pairs[:5]) - expected[:5]).max() <= 1e-5


def test_commands_show_the_prompt(tmp_path):
    folder = made(tmp_path / "zerank-1")
    given = tmp_path / "in.jsonl"
    given.write_text('{"query": "what is it?", "documents": ["A text."]}\n')
    prompt = r"<|im_start|>system\n{query}<|im_end|>\n<|im_start|>user\n{passage}<|im_end|>\n<|im_start|>assistant\n"
    commands = (
        ["models", str(folder)], ["inspect", str(given), "-m", str(folder)],
        ["run", str(given), "-o", str(tmp_path / "out.jsonl"), "-m", str(folder), "--verbose"],
    )  # fmt: skip
    for command in commands:
        shown = subprocess.run(
            [*forked_command(), *command],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        assert prompt in "".join((shown.stdout + shown.stderr).split("\n" + " " * 21)), command


def converted(causal, folder, template=None):
    """One label, whose row is that of "yes" minus that of "no", as the conversions of tomaarsen have it."""
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(causal)
    yes, no = (tokenizer(word)["input_ids"][0] for word in ("yes", "no"))
    tf.Qwen3Config.from_pretrained(
        causal, num_labels=1, architectures=["Qwen3ForSequenceClassification"]
    ).save_pretrained(folder)
    weights = load_file(causal / "model.safetensors")
    embeddings = weights["model.embed_tokens.weight"]
    kept = {name: weight for name, weight in weights.items() if name != "lm_head.weight"}
    kept["score.weight"] = (embeddings[yes] - embeddings[no])[None].clone()
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((causal / file).read_bytes())
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return tokenizer, yes, no


def test_a_conversion_of_qwen3_scores_as_its_causal_model(tmp_path):
    causal, folder = made(tmp_path / "Qwen3-Reranker-0.6B"), tmp_path / "Qwen3-Reranker-0.6B-seq-cls"
    tokenizer, yes, no = converted(causal, folder)
    pairs = [(query, passage) for query, passage in PAIRS if len(passage) < 1000]
    texts = [f"{QWEN_PREFIX}<Instruct>: {WEB}\n<Query>: {q}\n<Document>: {p}{QWEN_SUFFIX}" for q, p in pairs]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    logits = qwen.last_logits(causal, ids)
    for name in (causal, folder):
        found = scored(name, pairs)
        assert (found.session.facts.profile, found.session.facts.profile_is_guess) == ("qwen3", False)
        expect(found, ids, logits[:, yes] - logits[:, no], pairs)


@pytest.mark.parametrize("instruction", [None, "Find {the} panda."])
def test_qwen3_by_its_chat_template_is_the_profile(tmp_path, instruction):
    """The files that sentence-transformers saves with Qwen3-Reranker state what the profile has."""
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")
    plain, folder = made(tmp_path / "Qwen3-Reranker-0.6B"), made(tmp_path / "saved", QWEN3)
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    ids = [tokenizer(word)["input_ids"][0] for word in ("yes", "no")]
    prompts = {"prompts": {"own": instruction}, "default_prompt_name": "own"} if instruction else {}
    qwen.saved_by_sentence_transformers(folder, *ids, **prompts)
    pairs = [(query, passage) for query, passage in PAIRS if len(passage) < 1000]
    found, known = scored(folder, pairs), scored(plain, pairs, query_instruction=instruction)
    assert found.session.facts.profile == "chat-template"
    assert found.ids == known.ids
    assert np.abs(found.scores - known.scores).max() <= 1e-5
    theirs = sentence_transformers.CrossEncoder(str(folder), device="cpu")
    with torch.inference_mode():
        expected = theirs.predict(pairs, batch_size=1, show_progress_bar=False)
    assert np.ptp(expected) > 0.01
    assert np.abs(found.scores - expected).max() <= 1e-5
