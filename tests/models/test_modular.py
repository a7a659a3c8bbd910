"""Checkpoints that sentence-transformers keeps as an encoder and modules, as the ettin rerankers are."""

import json

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import save_file
from test_packed_rows import TOLERANCE, ours, pairs
from tiny import PARITY, configs

from rerank_cli.errors import ModelError

ST = "sentence_transformers.base.modules"
WIDTH = 48


def write(folder, config, module, weights):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors") if weights else None
    return {"idx": int(folder.name[0]), "name": folder.name[0], "path": folder.name, "type": f"{ST}.{module}"}


@pytest.fixture(params=["cls", "mean", "bert-cls"])
def ettin(request, tmp_path):
    """A tiny ModernBERT (or BERT) with Pooling, Dense + GELU, LayerNorm and Dense, and a function that scores ids."""
    torch.manual_seed(7)
    name = "bert" if request.param == "bert-cls" else "modernbert-cls"
    pooling = request.param.removeprefix("bert-")
    backbone = tf.AutoModel.from_config(configs()[name][0]).eval()
    backbone.save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((PARITY / "bert" / file).read_bytes())
    first, norm, last = torch.nn.Linear(WIDTH, WIDTH, bias=False), torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, 1)
    torch.nn.init.normal_(norm.weight, 1, 0.3)
    listed = [
        {"idx": 0, "name": "0", "path": "", "type": f"{ST}.transformer.Transformer"},
        write(tmp_path / "1_Pooling", {"pooling_mode": pooling}, "pooling.Pooling", {}),
        write(
            tmp_path / "2_Dense",
            {"in_features": WIDTH, "out_features": WIDTH, "bias": False,
             "activation_function": "torch.nn.modules.activation.GELU"},
            "dense.Dense",
            {"linear.weight": first.weight.data},
        ),
        write(tmp_path / "3_LayerNorm", {"dimension": WIDTH}, "layer_norm.LayerNorm",
              {"norm.weight": norm.weight.data, "norm.bias": norm.bias.data}),
        write(
            tmp_path / "4_Dense",
            {"in_features": WIDTH, "out_features": 1, "bias": True,
             "activation_function": "torch.nn.modules.linear.Identity"},
            "dense.Dense",
            {"linear.weight": last.weight.data, "linear.bias": last.bias.data},
        ),
    ]  # fmt: skip
    (tmp_path / "modules.json").write_text(json.dumps(listed))

    @torch.inference_mode()
    def score(ids, types):
        more = {"token_type_ids": types} if name == "bert" else {}
        states = backbone(input_ids=ids, attention_mask=torch.ones_like(ids), **more).last_hidden_state[0]
        pooled = states[0] if pooling == "cls" else states.mean(dim=0)
        return last(norm(torch.nn.functional.gelu(first(pooled)))).item()

    return tmp_path, score


def test_scores_are_the_modules_one_after_the_other(ettin):
    folder, score = ettin
    session, prepared, scores = ours(folder, pairs())
    assert session.facts.family == "encoder-modules"
    expected = np.empty(prepared.distinct_pairs)
    for planned in prepared.rows:
        row = planned.row
        for pair, start, length in zip(planned.pairs, row.starts, row.lengths, strict=True):
            ids, types = (torch.from_numpy(part[start : start + length])[None].long() for part in (row.ids, row.types))
            expected[pair] = score(ids, types)
    expected = expected[prepared.distinct]
    assert np.ptp(expected) > 100 * TOLERANCE
    assert np.abs(scores - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


def change(folder, **changes):
    path = folder / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "os.system"}, "not one of torch.nn"),
        ({"activation_function": "torch.nn.functional"}, "not one of torch.nn"),
        ({"activation_function": "torch.nn.Linear"}, "setting"),
        ({"in_features": "wide"}, "setting"),
        ({"use_residual": True}, "residual"),
        ({"out_features": 7}, "cannot be loaded"),
    ],
)
def test_what_cannot_be_built_is_one_line(ettin, changes, message):
    folder, _ = ettin
    change(folder, **changes)
    with pytest.raises(ModelError, match=message):
        ours(folder, pairs())


def test_a_module_outside_the_folder_is_refused(ettin):
    folder, _ = ettin
    listed = json.loads((folder / "modules.json").read_text())
    listed[1]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ModelError, match="outside"):
        ours(folder, pairs())


def test_a_bi_encoder_is_no_reranker(ettin):
    folder, _ = ettin
    listed = json.loads((folder / "modules.json").read_text())[:2]
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(ModelError, match="not a reranker"):
        ours(folder, pairs())
