"""PEFT adapters of a tiny causal model, against the model that peft itself runs."""

import json

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from test_decoders import TOLERANCE, logits_of, ours, texts

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError
from rerank_cli.models.options import FamilyOptions

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def adapter(decoder, tmp_path_factory):
    torch.manual_seed(2)
    model = tf.AutoModelForCausalLM.from_pretrained(decoder("gemma"), dtype=torch.float32)
    config = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, 0, 0.3)
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    return folder


def expected_scores(base, adapter, prepared, answer):
    plain = tf.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(plain, adapter).eval()
    return logits_of(model, prepared, [answer])


def session_of(model, **options):
    return open_session(ModelOptions(str(model), device="cpu", dtype="fp32", family=FamilyOptions(**options)))


def scores_of(session, prepared_like):
    _, prepared, _ = prepared_like
    return session.score(prepared)


def test_an_adapter_is_merged_at_load(decoder, adapter):
    base = ours(decoder("gemma"))
    session, prepared, plain = base
    adapted = session_of(decoder("gemma"), adapter=str(adapter))
    answer = int(session._tokenizer.tokenizer.ids("Yes")[0])
    expected = expected_scores(decoder("gemma"), adapter, prepared, answer)
    scores = scores_of(adapted, base)
    assert adapted.facts.packed
    assert adapted.facts.revision != session.facts.revision
    assert np.abs(scores - plain).max() > 0.1
    assert np.abs(scores - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


def test_a_folder_that_is_an_adapter_means_its_model_with_it(decoder, adapter):
    named = session_of(decoder("gemma"), adapter=str(adapter))
    alone = session_of(adapter)
    base = ours(decoder("gemma"))
    assert alone.facts.name == str(adapter)
    assert np.array_equal(scores_of(alone, base), scores_of(named, base))


def test_an_adapter_that_names_no_model_says_what_to_do(adapter, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": None}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="--adapter"):
        session_of(tmp_path)


def test_a_folder_without_an_adapter_is_none(decoder):
    with pytest.raises(ModelError, match="not a PEFT adapter"):
        session_of(decoder("gemma"), adapter=str(decoder("qwen2")))


def test_an_adapter_of_another_model_is_one_line(decoder, adapter):
    with pytest.raises(ModelError, match="cannot be merged"):
        session_of(decoder("gpt2"), adapter=str(adapter))


def test_a_rescue_in_fp32_and_a_plain_opinion_have_the_adapter_too(decoder, adapter):
    base = ours(decoder("gemma"))
    session = session_of(decoder("gemma"), adapter=str(adapter))
    queries, passages = zip(*texts(), strict=True)
    plain = session.score_plainly(PairTexts(queries, passages, [0] * len(queries)))
    assert np.abs(plain - scores_of(session, base)).max() <= 1e-4
