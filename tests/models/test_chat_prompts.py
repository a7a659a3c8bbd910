"""Chat templates with the document before the query, and templates that cannot be followed or do not end."""

import numpy as np
import pytest
import qwen
import transformers as tf
from hard import PAIRS, expect, scored
from test_prompts import TEXT

from rerank_cli.engine.limits import open_tokenizer
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError
from rerank_cli.models.prompts import rendering

pytestmark = pytest.mark.slow
GET = (
    "{%- set task = messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first | default('') -%}"
    "{%- set q = messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first -%}"
    "{%- set d = messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first -%}"
)
TEMPLATES = {
    "after the query": "Does it {help}?\n<Document> {{ d }}\n<Query> {{ q }}{{ ' ' + task if task }} ??",
    "before the query": "Does it {help}?\n<Document> {{ d }}\n{{ 'Task: ' + task + '\n' if task }}<Query> {{ q }} ??",
    "before the document": "{{ task + '\n' if task }}<Document> {{ d }}\n<Query> {{ q }} ??",
    "turns": "<|im_start|>user\n{{ d | trim }}<|im_end|>\n<|im_start|>user\n{{ q | trim }}\n{{ task }}<|im_end|>\n",
    "the query first": "<Query> {{ q }}\n{{ 'Task: ' + task + '\n' if task }}<Document> {{ d }} ??",
}
TASK = "Find {all} texts that answer."
SHORT = [(query, passage) for query, passage in PAIRS if len(passage) < 1000]


def saved(folder, template, task=None):
    made = qwen.written(folder, TEXT, "<Document> <Query> Task: " * 60, template=template)
    prompts = {"prompts": {"own": task}, "default_prompt_name": "own"} if task else {}
    qwen.saved_by_sentence_transformers(made, 300, 400, **prompts)
    return made


def rendered(folder, query, passage, task=None):
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": task}] if task else []
    messages += [{"role": "query", "content": query}, {"role": "document", "content": passage}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


@pytest.mark.parametrize("task", [None, TASK])
@pytest.mark.parametrize("place", TEMPLATES)
def test_a_pair_is_read_as_the_template_writes_it(tmp_path, place, task):
    sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")
    folder = saved(tmp_path / "saved", GET + TEMPLATES[place], task)
    found = scored(folder, SHORT)
    ids = [rendered(folder, *pair, task) for pair in SHORT]
    logits = qwen.last_logits(folder, ids)
    expect(found, ids, logits[:, 300] - logits[:, 400], SHORT)
    theirs = sentence_transformers.CrossEncoder(str(folder), device="cpu")
    expected = theirs.predict(SHORT, batch_size=1, show_progress_bar=False)
    assert np.abs(found.scores - expected).max() <= 1e-5


@pytest.mark.parametrize("place", ["after the query", "before the query", "turns", "the query first"])
def test_an_instruction_of_a_user_replaces_that_of_the_files(tmp_path, place):
    folder = saved(tmp_path / "saved", GET + TEMPLATES[place], "Another.")
    found = scored(folder, SHORT, query_instruction=TASK)
    assert found.ids == [rendered(folder, *pair, TASK) for pair in SHORT]


def test_a_truncated_pair_keeps_the_query_if_the_document_comes_first(tmp_path):
    """sentence-transformers cuts the end, and with it the query: here the document gives way up to its line end."""
    folder = saved(tmp_path / "saved", GET + TEMPLATES["after the query"])
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    query, passage = "what is panda?", TEXT[:5000]
    start, line, closing = (
        tokenizer(text)["input_ids"] for text in ("Does it {help}?\n<Document>", "\n", f"<Query> {query} ??")
    )
    kept = 100 - len(start) - len(line) - len(closing)
    expected = [*start, *tokenizer(f" {passage}")["input_ids"][:kept], *line, *closing]
    assert scored(folder, [(query, passage)], max_length=100).ids == [expected]


@pytest.mark.parametrize(("template", "message"), [
    ("{{ q }}\n{{ d }}\n{{ q }}\n", "does not write a pair as one query and one document"),
    ("{{ d }}\n", "does not write a pair as one query and one document"),
    ("{{ d | lower }}\n<Query> {{ q }}\n", "changes the texts of a pair"),
    ("{{ d[:10000] }}\n<Query> {{ q }}\n", "changes the texts of a pair"),
    ("{{ d }}\n<Query> {{ q | replace('a', 'b') }}\n", "changes the texts of a pair"),
    ("{{ d }}{{ q }}", "the tokenizer joins the words of the chat template"),
    ("{{ ''.__class__.__mro__ }}{{ d }}\n{{ q }}\n", "cannot write a pair"),
    ("{{ messages.append(1) }}{{ d }}\n{{ q }}\n", "cannot write a pair"),
    ("{% for n in range(90000) %}......{% endfor %}{{ d }}\n{{ q }}\n", "it writes more than 200,000 characters"),
    ("{# " + "." * 200_000 + " #}{{ d }}\n{{ q }}\n", "the chat template has more than 200,000 characters"),
])  # fmt: skip
def test_a_template_that_cannot_be_followed_is_one_line(tmp_path, template, message):
    folder = saved(tmp_path / "saved", GET + template)
    with pytest.raises(ModelError, match=message) as caught:
        open_tokenizer(ModelOptions(str(folder)))
    assert "\n" not in str(caught.value)


def test_a_writer_of_permutations_is_refused_by_its_name(tmp_path):
    folder = tmp_path / "rank_zephyr_7b_v1_full"
    qwen.written(folder, TEXT)
    with pytest.raises(ModelError, match="writes a permutation of a list of passages"):
        open_tokenizer(ModelOptions(str(folder)))


def test_a_template_without_an_end_is_refused_and_its_loop_stops(tmp_path, monkeypatch):
    import threading

    monkeypatch.setattr(rendering, "SECONDS", 0.3)
    loops = "{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}{% endfor %}"
    folder = saved(tmp_path / "saved", GET + loops + "{% endfor %}{% endfor %}{{ d }}\n{{ q }}\n")
    before = set(threading.enumerate())
    with pytest.raises(ModelError, match=r"cannot write a pair \(it takes more than 0.3 seconds\)"):
        open_tokenizer(ModelOptions(str(folder)))
    for thread in set(threading.enumerate()) - before:
        thread.join()
