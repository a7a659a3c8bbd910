"""Checkpoints saved by sentence-transformers: the settings in their files give the scores that its `predict` gives."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers as tf
from tiny import PARITY, configs, decoders

from rerank_cli import Reranker
from rerank_cli.engine.limits import open_tokenizer
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.reading.answers import Answers

sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")
pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
PANDA = "The giant panda is a bear that lives in the mountains of China and eats bamboo."
LONG_QUERY = "what is the panda that eats bamboo in China? " * 30
PAIRS = [
    ("what is panda?", "hi"),
    ("what is panda?", PANDA),
    ("What is  Panda?\n", f"\n {PANDA}  "),
    ("what is panda?", PANDA * 9),
    (LONG_QUERY, PANDA),
    (LONG_QUERY, "hi"),
    (LONG_QUERY, PANDA * 9),
    ("Où est le panda ? {x} %s", "中国 🐼 <b>panda</b> 'quoted' \\n"),
    ("capital of France", "Paris is the capital of France. " * 30),
]
RERANKING = (
    "<bos>{% for m in messages %}{% if m.role == 'system' %}Task: {{ m.content }}\n{% elif m.role == 'query' %}"
    "Query: {{ m.content }}\n{% elif m.role == 'document' %}Document: {{ m.content }}\n{% endif %}"
    "{% endfor %}Relevant?\n"
)
CONSTANT = (
    "{%- set q = messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first -%}"
    "{%- set d = messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first -%}"
    "<bos>Is it an answer?\nA: {{ q | trim }}\nB: {{ d | trim }}\nAnswer:\n"
)


def base_model(folder, name, auto, config, tokenizer):
    """A tiny model with random weights, as transformers saves it."""
    torch.manual_seed(1)
    model = auto.from_config(config).eval()
    for weight in model.requires_grad_(False).parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight, weight.mean().item(), 0.1)
    model.save_pretrained(folder / name)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(PARITY / tokenizer / file, folder / name)
    return str(folder / name)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A function: name of an encoder to a checkpoint of one label without settings of sentence-transformers."""
    folder, made = tmp_path_factory.mktemp("plain"), {}

    def make(name, auto=tf.AutoModelForSequenceClassification, **changes):
        config, tokenizer = configs()[name] if name in configs() else (decoders()[name], "gemma")
        config.update(changes)
        key = f"{name}-{auto.__name__}-{len(changes)}"
        if key not in made:
            made[key] = base_model(folder, key, auto, config, tokenizer)
        return made[key]

    return make


@pytest.fixture
def saved(tmp_path):
    """A function: saves a CrossEncoder and loads it again; (its folder, it)."""

    def save(model, **changes):
        folder = tmp_path / "saved"
        model.save_pretrained(str(folder))
        for file, values in changes.items():
            path = folder / f"{file}.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return folder, sentence_transformers.CrossEncoder(str(folder), device="cpu")

    return save


def expect_equal(saved, pairs=PAIRS, **flags):
    """The largest difference to `predict`, which is below the tolerance; the scores tell the pairs apart."""
    folder, theirs = saved
    expected = theirs.predict(pairs, batch_size=1, show_progress_bar=False)
    with Reranker(folder, device="cpu", dtype="fp32", **flags) as reranker:
        found = reranker.score(pairs)
    assert np.ptp(expected) > 100 * TOLERANCE
    difference = np.abs(found - expected).max()
    print(f"largest difference {difference:.2e}, scores {expected.min():.3f} to {expected.max():.3f}")
    assert difference <= TOLERANCE
    return found


def cross_encoder(*args, **settings):
    return sentence_transformers.CrossEncoder(*args, device="cpu", **settings)


def causal(path, true_id=100, false_id=200, template=None, **settings):
    """A causal reranker with a LogitScore, and this chat template."""
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    more = {"processor_kwargs": {"chat_template": template}} if template else {}
    reader = Transformer(path, transformer_task="text-generation", **more)
    return cross_encoder(modules=[reader, LogitScore(true_id, false_id)], **settings)


def modular(path, modes, head=(), prompts=None, include_prompt=True):
    """A bare encoder, a pooling, and dense layers."""
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(3)
    reader = Transformer(path)
    pooling = Pooling(reader.get_embedding_dimension(), pooling_mode=modes, include_prompt=include_prompt)
    width = pooling.get_embedding_dimension()
    last = Dense(width, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    named = {"default_prompt_name": next(iter(prompts))} if prompts else {}
    return cross_encoder(modules=[reader, pooling, *(part(width) for part in head), last], prompts=prompts, **named)


ENCODERS = ("bert", "xlm-roberta", "modernbert-mean", "deberta-v2")


@pytest.mark.parametrize("name", ENCODERS)
def test_the_default_prompt(plain, saved, name):
    prompts = {"web": "find: ", "other": "another prompt: "}
    expect_equal(saved(cross_encoder(plain(name), prompts=prompts, default_prompt_name="web")))


def test_prompts_without_a_default_are_not_used(plain, saved):
    expect_equal(saved(cross_encoder(plain("bert"), prompts={"web": "find: "})))


@pytest.mark.parametrize("name", ENCODERS)
def test_the_max_length_of_the_tokenizer(plain, saved, name):
    made = saved(cross_encoder(plain(name), max_length=64))
    expect_equal(made)
    assert json.loads((made[0] / "tokenizer_config.json").read_text())["model_max_length"] == 64


@pytest.mark.parametrize(
    "settings",
    [{"max_seq_length": 48},
     {"processor_kwargs": {"model_max_length": 40}},
     {"tokenizer_args": {"model_max_length": 40}},
     {"processing_kwargs": {"text": {"max_length": 30, "truncation": True}}}],
    ids=["max_seq_length", "processor_kwargs", "tokenizer_args", "processing_kwargs"],
)  # fmt: skip
def test_the_max_length_of_sentence_bert_config(plain, saved, settings):
    made = saved(cross_encoder(plain("bert")), sentence_bert_config=settings)
    expect_equal(made)
    assert opened(made).sources["max_length"] == "file sentence_bert_config.json"


def test_prompt_and_length_together(plain, saved):
    prompts = {"web": "find what is asked for: "}
    expect_equal(saved(cross_encoder(plain("bert"), prompts=prompts, default_prompt_name="web", max_length=64)))


@pytest.mark.parametrize("activation", ["Identity", "Sigmoid"])
def test_the_activation(plain, saved, activation):
    scores = expect_equal(saved(cross_encoder(plain("bert"), activation_fn=getattr(torch.nn, activation)())))
    assert (scores.max() > 1 or scores.min() < 0) == (activation == "Identity")


@pytest.mark.parametrize(
    "settings",
    [{"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
     {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}],
    ids=["version 4", "version 3"],
)  # fmt: skip
def test_the_activation_in_config_json_of_older_versions(plain, saved, settings):
    folder = saved(cross_encoder(plain("bert")), config=settings)[0]
    for file in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (folder / file).unlink()
    scores = expect_equal((folder, cross_encoder(str(folder))))
    assert scores.max() > 1 or scores.min() < 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padding_side_changes_no_score(plain, saved, side):
    made = saved(cross_encoder(plain("modernbert-mean")), tokenizer_config={"padding_side": side})
    assert made[1].tokenizer.padding_side == side
    batched = made[1].predict(PAIRS, batch_size=4, show_progress_bar=False)
    assert np.abs(batched - expect_equal(made)).max() <= TOLERANCE


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_the_truncation_side(plain, saved, name, side):
    model = cross_encoder(plain(name), max_length=48)
    model.tokenizer.truncation_side = side
    expect_equal(saved(model))


@pytest.mark.parametrize("strategy", ["longest_first", "only_second"])
def test_the_truncation_strategy(plain, saved, strategy):
    settings = {"processing_kwargs": {"text": {"truncation": strategy, "max_length": 60}}}
    pairs = [pair for pair in PAIRS if pair[0] != LONG_QUERY or strategy == "longest_first"]
    expect_equal(saved(cross_encoder(plain("bert")), sentence_bert_config=settings), pairs)


def test_lower_case(plain, saved):
    made = saved(cross_encoder(plain("xlm-roberta")), sentence_bert_config={"do_lower_case": True})
    expect_equal(made, [*PAIRS, ("WHAT IS PANDA?", PANDA.upper())])


def test_a_length_beyond_512_is_reported_and_used_only_if_asked_for(plain, saved):
    made = saved(
        cross_encoder(plain("modernbert-cls", max_position_embeddings=8192)),
        tokenizer_config={"model_max_length": 8192},
    )
    assert made[1].max_seq_length == 8192
    known = opened(made)
    assert known.limits.max_length == 512
    assert known.remarks == ("max length 512, the model could read 8,192 (--max-length)",)
    expect_equal(made, max_length=8192)
    made[1].max_seq_length = 512
    expect_equal(made)


@pytest.mark.parametrize("name", ["qwen3", "llama", "gemma"])
@pytest.mark.parametrize("false_id", [200, None])
def test_a_causal_model_without_a_chat_template_reads_the_bare_pair(plain, saved, name, false_id):
    made = saved(causal(plain(name, tf.AutoModelForCausalLM), false_id=false_id))
    made[1].max_seq_length = 512
    expect_equal(made)


@pytest.mark.parametrize("template", [RERANKING, CONSTANT], ids=["system", "constant"])
@pytest.mark.parametrize("prompt", [None, "Find {all} texts that answer."])
@pytest.mark.parametrize("max_length", [64, 512])
def test_a_causal_model_with_a_chat_template_for_reranking(plain, saved, template, prompt, max_length):
    prompts = {"prompts": {"q": prompt}, "default_prompt_name": "q"} if prompt and template is RERANKING else {}
    model = causal(plain("qwen3", tf.AutoModelForCausalLM), template=template, **prompts)
    model.max_seq_length = max_length
    made = saved(model)
    expect_equal(made)
    assert opened(made).reading.profile.name == "chat-template"


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_causal_model_pads_on_either_side(plain, saved, side):
    made = saved(causal(plain("qwen3", tf.AutoModelForCausalLM)), tokenizer_config={"padding_side": side})
    made[1].max_seq_length = 512
    expect_equal(made)


def test_a_classifier_on_a_causal_model(plain, saved):
    expect_equal(saved(cross_encoder(plain("qwen3", num_labels=1), max_length=96)))


POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "max", "mean"))


@pytest.mark.parametrize("modes", POOLINGS, ids=str)
@pytest.mark.parametrize("name", ["bert", "modernbert-cls", "deberta-v2"])
def test_the_pooling(plain, saved, name, modes):
    expect_equal(saved(modular(plain(name, tf.AutoModel), modes)))


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("mode", ["cls", "mean", "weightedmean"])
def test_a_pooling_that_leaves_the_prompt_out(plain, saved, mode, include_prompt):
    prompts = {"web": "find what is asked for: "}
    expect_equal(saved(modular(plain("bert", tf.AutoModel), mode, (), prompts, include_prompt)))


def test_dense_layers_and_norms(plain, saved):
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize

    head = (lambda width: Dense(width, width, activation_function=torch.nn.GELU()), LayerNorm, lambda _: Normalize())
    expect_equal(saved(modular(plain("modernbert-cls", tf.AutoModel), "mean", head)))


def opened(saved, **options):
    return open_tokenizer(ModelOptions(str(saved[0]), **options))


def test_flags_win_over_files(plain, saved):
    prompts = {"web": "find: "}
    made = saved(
        cross_encoder(
            plain("bert"), prompts=prompts, default_prompt_name="web", max_length=64, activation_fn=torch.nn.Identity()
        )
    )
    folder, theirs = made
    theirs.max_seq_length = 100
    expected = theirs.predict(PAIRS, prompt="other: ", activation_fn=torch.nn.Sigmoid(), show_progress_bar=False)
    with Reranker(folder, device="cpu", dtype="fp32", max_length=100, query_instruction="other: ") as reranker:
        found = reranker.score(PAIRS, scores="sigmoid")
    assert np.abs(found - expected).max() <= TOLERANCE
    known = opened(made, max_length=100, family=FamilyOptions(query_instruction="other: "))
    assert {known.sources[name] for name in ("max_length", "query_instruction")} == {"flag"}
    assert known.sources["activation"] == "file config_sentence_transformers.json"
    assert opened(made).sources["max_length"] == "file tokenizer_config.json"
    assert opened(made).sources["query_instruction"] == "file config_sentence_transformers.json"


def test_a_profile_wins_over_a_chat_template(plain, saved):
    from rerank_cli.models.prompts.profile_files import read_profile

    made = saved(causal(plain("qwen3", tf.AutoModelForCausalLM), template=RERANKING))
    assert opened(made).reading.answers == Answers((100,), (200,))
    known = opened(made, family=FamilyOptions(read_profile("bge")))
    assert known.reading.profile.name == "bge"
    assert known.sources["profile"] == "flag"
    assert known.reading.answers != Answers((100,), (200,))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0].content | upper }} {{ messages[1].content }}", "does not write a pair as one query"),
        ("{% for m in messages %}{{ m.content | replace('a', 'b') }}\n{% endfor %}", "changes the texts"),
        ("{{ raise_exception('not for you') }}", "cannot write a pair"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "joins the words"),
    ],
)
def test_a_chat_template_that_cannot_be_followed_is_one_line(plain, saved, template, message):
    folder, _ = saved(causal(plain("qwen3", tf.AutoModelForCausalLM), template=RERANKING))
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=message) as caught:
        opened((folder, None))
    assert "\n" not in str(caught.value)


def test_what_a_prompt_cannot_be_is_one_line(plain, saved):
    changes = {"config_sentence_transformers": {"default_prompt_name": "news"}}
    model = cross_encoder(plain("bert"), prompts={"web": "find: "})
    folder = saved(model)[0]
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes["config_sentence_transformers"]))
    with pytest.raises(ModelError, match=r"has no prompt 'news', its default \(it has: web\)"):
        opened((folder, None))


def test_an_unknown_setting_is_reported(plain, saved):
    made = saved(cross_encoder(plain("bert")))
    path = made[0] / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config_kwargs": {"hidden_act": "relu"}}))
    assert opened(made).remarks == ("sentence_bert_config.json states hidden_act: not applied",)


def test_modules_that_change_the_score_are_refused(plain, saved):
    made = saved(cross_encoder(plain("bert")))
    listed = json.loads((made[0] / "modules.json").read_text())
    (made[0] / "1_Dense").mkdir()
    more = {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.base.modules.dense.Dense"}
    (made[0] / "modules.json").write_text(json.dumps([*listed, more]))
    with pytest.raises(ModelError, match=r"modules\.json lists Transformer, Dense"):
        opened(made)


def test_an_instruction_of_a_record_is_refused_where_the_pooling_leaves_the_prompt_out(plain, saved):
    made = saved(modular(plain("bert", tf.AutoModel), "mean", (), {"web": "find: "}, include_prompt=False))
    with Reranker(made[0], device="cpu") as reranker, pytest.raises(UsageError, match="instruction"):
        reranker.score(PAIRS, instruction="another: ")
