"""A model of any family under autograd: the same rows and the same code path as for scoring, with trained tensors.

The stock model is loaded first, then adapters are put on, then the family's own class takes it apart for packed rows.
Stored names of tensors are noted in between, so that a checkpoint can be written whatever was renamed since.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.adapters import LoraSettings, StoredTensor, add_lora, stored_tensors
from rerank_cli.models.answer_head import head_of_model
from rerank_cli.models.families import Recipe
from rerank_cli.models.inputs import Placement
from rerank_cli.models.known import CLASSIFIER, DECODER, LAYERWISE, LIGHTWEIGHT, MODULAR, SEQ2SEQ
from rerank_cli.models.loading import load_stock, merge_adapter, stock_config
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.reading.answers import Answers

_ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")
# Attention without rotary or relative positions: a key's bias adds the same to all products of one query.
_KEYS = {"BertSelfAttention": "key", "RobertaSelfAttention": "key", "XLMRobertaSelfAttention": "key",
         "CamembertSelfAttention": "key", "ElectraSelfAttention": "key", "DistilBertSelfAttention": "k_lin",
         "MultiHeadSelfAttention": "k_lin"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainedPart:
    """What of a model is trained, and how it computes.

    With `lora` low-rank adapters, and heads that only a reranker has; without it all weights. `dropout` replaces the
    configuration's probabilities; `attention_dropout` is that of attention, which packed rows compute faster without.
    `layers` are those of a layered model that are trained, None for all that have a head. With `recompute`, activations
    inside the blocks are computed again for the backward pass. `autocast` is the dtype of matrix products, None for
    that of the weights.
    """

    lora: LoraSettings | None = None
    dropout: float | None = None
    attention_dropout: float = 0.0
    layers: tuple[int, ...] | None = None
    recompute: bool = False
    autocast: torch.dtype | None = None


class Differentiable(Protocol):
    """A model of a family, see `families.CrossEncoder`, whose scores have gradients."""

    packed: bool
    max_positions: int
    layers: tuple[int, ...]

    def logits(self, row: TokenRow) -> Tensor:
        """fp32 [n], or [n, layers] if several layers give a score each."""
        ...


@dataclass(slots=True)
class Trainable:
    """A model under autograd.

    `modules` are all its parts. `stored` are all tensors that a checkpoint has, and `rebuild` makes an empty model that
    saves them as transformers does; None if their names are those of the files. `adapter` is the PeftModel, if there is
    one. `named` are the parameters that may be trained, by names that do not depend on how the model was taken apart.
    If parameters are divided over processes, `gathering` computes the model's logits and gathers them meanwhile.
    """

    model: Differentiable
    modules: nn.ModuleList
    stored: list[StoredTensor]
    rebuild: Callable[[], PreTrainedModel] | None
    adapter: Any
    named: Mapping[str, nn.Parameter]
    device: torch.device
    autocast: torch.dtype | None = None
    gathering: Callable[[TokenRow], Tensor] | None = None

    def logits(self, row: TokenRow) -> Tensor:
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            return (self.gathering or self.model.logits)(row)

    def train(self, on: bool = True) -> None:
        self.modules.train(on)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Those of `named` that are not frozen."""
        return {name: weight for name, weight in self.named.items() if weight.requires_grad}


def load_trainable(recipe: Recipe, placement: Placement, part: TrainedPart) -> Trainable:
    """Load the model with its trained tensors. Without `placement.attention` it computes padded batches.

    Types that are not known to take packed rows get padded ones. Raises ModelError and UsageError, one line.
    """
    if recipe.family == SEQ2SEQ:
        raise ModelError(f"{recipe.checkpoint.name}: an encoder-decoder is scored but not trained")
    if recipe.reading.label is not None:
        what = f"{recipe.checkpoint.name}: a classifier with several labels is scored but not trained"
        raise ModelError(f"{what}. Fix: --model with one label, or the encoder that it was made of")
    if recipe.checkpoint.own_type is not None:
        what = f"{recipe.checkpoint.name}: type {recipe.checkpoint.own_type} is scored but not trained"
        raise ModelError(f"{what}. Fix: --model of a type that transformers has")
    if recipe.family in {LAYERWISE, LIGHTWEIGHT}:
        made = _layered(recipe, placement, part)
    elif recipe.family in {DECODER, CLASSIFIER}:
        made = _decoder(recipe, placement, part)
    elif recipe.family == MODULAR:
        made = _modular(recipe, placement, part)
    else:
        made = _encoder(recipe, placement, part)
    made.autocast = part.autocast
    made.train()
    return made


def freeze_without_gradient(made: Trainable, shift_invariant: bool) -> None:
    """Freeze biases whose gradient is zero but for rounding, which an optimizer such as Adam would amplify.

    These are key biases, which softmax cancels, and under a `shift_invariant` loss the bias of the last linear layer,
    which adds the same to all scores.
    """
    for module in made.modules.modules():
        if shift_invariant and isinstance(module, nn.Linear) and module.out_features == 1 and module.bias is not None:
            module.bias.requires_grad_(False)
        key = getattr(module, _KEYS.get(type(module).__name__, ""), None)
        bias = getattr(getattr(key, "base_layer", key), "bias", None)
        if isinstance(bias, Tensor):
            bias.requires_grad_(False)


def freeze(made: Trainable, patterns: Sequence[str]) -> None:
    """Freeze the tensors whose names match one of the patterns, of which `*` stands for any characters.

    Raises UsageError for a pattern without a match, and if no tensor is left to train.
    """
    names = list(made.trained)
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            there = f"there are {names[0]} and {len(names) - 1:,} more"
            raise UsageError(f"--freeze {pattern}: no trained tensor has such a name ({there}). Fix: put * around it")
        for name in found:
            made.named[name].requires_grad_(False)
    if not made.trained:
        raise UsageError(f"--freeze {','.join(patterns)}: nothing is left to train. Fix: fewer patterns")


def _configured(checkpoint: Any, part: TrainedPart) -> Any:
    """The stock configuration with the dropout of training."""
    config = stock_config(checkpoint)
    for name in _ATTENTION_DROPOUT:
        if getattr(config, name, None) is not None:
            setattr(config, name, part.attention_dropout)
    if part.dropout is not None:
        for name in _other_dropouts(config):
            setattr(config, name, part.dropout)
    return config


def _other_dropouts(config: Any) -> list[str]:
    """The settings of a stock configuration that are probabilities of dropout, but for those of attention.

    Their names differ by type: `hidden_dropout_prob`, `resid_pdrop`, `classifier_dropout_prob`. One that is None takes
    its value from another.
    """
    found = {name: value for name, value in config.to_dict().items() if "dropout" in name or name.endswith("_pdrop")}
    numbers = [name for name, value in found.items() if value is None or type(value) in (int, float)]
    return [name for name in numbers if name not in _ATTENTION_DROPOUT]


def _adapted(whole: nn.Module, recipe: Recipe, part: TrainedPart, task: str | None, heads: tuple[str, ...] = ()) -> Any:
    """The PeftModel around the model; None if there are no adapters and all weights are trained."""
    if part.lora is None:
        whole.requires_grad_(True)
        return None
    return add_lora(whole, part.lora, task, heads, recipe.checkpoint.name)


def _named(whole: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that may be trained, each once, named as before the model is taken apart."""
    return {name: weight for name, weight in whole.named_parameters() if weight.requires_grad}


def _recomputed(model: PreTrainedModel, part: TrainedPart) -> None:
    if not part.recompute:
        return
    if not model.supports_gradient_checkpointing:
        what = f"--recompute: {type(model).__name__} of transformers cannot compute activations again"
        raise UsageError(f"{what}. Fix: a smaller --batch-tokens instead")
    how = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:  # its name in older versions of transformers
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)


def _empty(model: PreTrainedModel) -> Callable[[], PreTrainedModel]:
    """A function that makes a model of the same class without memory for its weights."""
    stock, config = type(model), model.config

    def build() -> PreTrainedModel:
        with torch.device("meta"):
            return stock(config)

    return build


class _Exact(nn.Module):
    """A head computed in fp32, also within autocast: states [n, H] to scores [n]."""

    def __init__(self, head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.head = head

    def forward(self, states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return self.head(states.float()).reshape(-1)


def _encoder(recipe: Recipe, placement: Placement, part: TrainedPart) -> Trainable:
    from rerank_cli.models.encoders.classifier import PACKED_AND_TESTED, packed_encoder, padded_encoder

    checkpoint = recipe.checkpoint
    config = _configured(checkpoint, part)
    packs = placement.attention is not None and config.model_type in PACKED_AND_TESTED
    attention = placement.attention if packs else None
    model = load_stock(AutoModelForSequenceClassification, checkpoint, placement, attention, config)
    if checkpoint.adapter is not None:
        model = merge_adapter(model, checkpoint)
    adapter = _adapted(model, recipe, part, "SEQ_CLS")
    stored, named = stored_tensors(model), _named(model)
    _recomputed(model, part)
    parts = nn.ModuleList([model])
    if packs:

        def around(head: nn.Module) -> nn.Module:
            parts.append(exact := _Exact(head))
            return exact

        scorer: Differentiable = packed_encoder(model, placement.device, around=around)
    else:
        scorer = padded_encoder(model, placement.device)
    return Trainable(scorer, parts, stored, _empty(model), adapter, named, placement.device)


def _modular(recipe: Recipe, placement: Placement, part: TrainedPart) -> Trainable:
    from rerank_cli.models.encoders.modular import Whole, module_head
    from rerank_cli.models.encoders.scoring import PackedEncoder, PaddedEncoder
    from rerank_cli.models.stated import pooling_modes

    checkpoint = recipe.checkpoint
    config, modes, skip = _configured(checkpoint, part), pooling_modes(checkpoint), recipe.reading.skip
    packs = placement.attention is not None and config.model_type == "modernbert"
    backbone = load_stock(AutoModel, checkpoint, placement, placement.attention if packs else None, config)
    adapter = _adapted(backbone, recipe, part, None)
    head = module_head(checkpoint, placement).requires_grad_(True)
    stored, named = stored_tensors(backbone), _named(backbone)
    for built, module in zip(cast("nn.Sequential", head), checkpoint.modules[2:], strict=False):
        inner = cast("nn.Sequential", built)[0] if module.kind == "Dense" else built
        kind = "linear" if module.kind == "Dense" else "norm"
        tensors = {f"{module.folder.name}/{kind}.{name}": tensor for name, tensor in inner.named_parameters()}
        stored += [StoredTensor(name, tensor) for name, tensor in tensors.items()]
        named |= tensors
    _recomputed(backbone, part)
    exact = _Exact(head)
    if packs:
        scorer: Differentiable = PackedEncoder(backbone, exact, placement.device, modes, skip)
        parts = nn.ModuleList([backbone, exact])
    else:
        whole = Whole(backbone, modes, skip, exact)
        scorer, parts = PaddedEncoder(whole, backbone, placement.device), nn.ModuleList([whole])
    return Trainable(scorer, parts, stored, _empty(backbone), adapter, named, placement.device)


def _decoder(recipe: Recipe, placement: Placement, part: TrainedPart) -> Trainable:
    from rerank_cli.models.decoders.causal import PACKED_AND_TESTED, PackedDecoder, PaddedDecoder

    checkpoint, reading = recipe.checkpoint, recipe.reading
    config = _configured(checkpoint, part)
    packs = placement.attention is not None and config.model_type in PACKED_AND_TESTED
    stock = AutoModelForCausalLM if reading.answers else AutoModelForSequenceClassification
    model = load_stock(stock, checkpoint, placement, placement.attention if packs else None, config)
    if checkpoint.adapter is not None:
        model = merge_adapter(model, checkpoint)
    adapter = _adapted(model, recipe, part, "CAUSAL_LM" if reading.answers else "SEQ_CLS")
    stored, named = stored_tensors(model), _named(model)
    _recomputed(model, part)

    answers = reading.answers

    def answered(answers: Answers, states: Tensor) -> Tensor:
        return head_of_model(model, answers, reading.profile.divide_by)(states)

    exact = _Exact(partial(answered, answers) if answers else cast("Any", model).score)
    backbone = cast("PreTrainedModel", model.base_model)
    scorer = (PackedDecoder if packs else PaddedDecoder)(backbone, placement.device, exact)
    return Trainable(scorer, nn.ModuleList([model]), stored, _empty(model), adapter, named, placement.device)


def _layered(recipe: Recipe, placement: Placement, part: TrainedPart) -> Trainable:
    from rerank_cli.models.decoders.layered import LayeredDecoder, LayeredModel
    from rerank_cli.models.decoders.layerwise import layerwise_parts
    from rerank_cli.models.decoders.lightweight import lightweight_parts

    checkpoint = recipe.checkpoint
    options = replace(recipe.options, cutoff_layers=None, compress_layers=None, compress_ratio=None)
    parts = (layerwise_parts if recipe.family == LAYERWISE else lightweight_parts)(checkpoint, placement, options)
    layers = tuple(parts.known) if part.layers is None else part.layers
    unknown = [layer for layer in layers if layer not in parts.known]
    if unknown or not layers:
        first, last = min(parts.known), max(parts.known)
        raise UsageError(f"--start-layer: {checkpoint.name} has heads for layers {first} to {last} (got {unknown})")
    whole = LayeredModel(parts, checkpoint, placement.of_weights)
    if checkpoint.adapter is not None:
        merge_adapter(whole, checkpoint)
    if parts.scales != (1.0, 1.0):
        _scale_by_hooks(parts.backbone, *parts.scales)
    adapter = _adapted(whole, recipe, part, None, ("linear_head",))
    for layer, head in whole.heads.items():
        if layer not in layers and whole.heads[layers[-1]] is not head:
            head.requires_grad_(False)
    stored, named = stored_tensors(whole), _named(whole)
    _recomputed(parts.backbone, part)
    heads = [whole.heads[layer] for layer in layers]
    cutoffs = replace(parts.cutoffs, layers=layers)
    scorer = LayeredDecoder(parts.backbone, placement.device, cutoffs, heads, packed=placement.attention is not None)
    return Trainable(scorer, nn.ModuleList([whole]), stored, None, adapter, named, placement.device)


def _scale_by_hooks(backbone: Any, embeddings: float, branch: float) -> None:
    """Scale the outputs of the embeddings and of each block's two branches, adapters included.

    For scoring the factors are part of the weights; there, a step of the optimizer would be scaled by them too.
    """

    def scaled(factor: float) -> Callable[..., Any]:
        def hook(_module: nn.Module, _inputs: Any, found: Any) -> Any:
            return (found[0] * factor, *found[1:]) if isinstance(found, tuple) else found * factor

        return hook

    backbone.embed_tokens.register_forward_hook(scaled(embeddings))
    for layer in backbone.layers:
        layer.self_attn.register_forward_hook(scaled(branch))
        layer.mlp.register_forward_hook(scaled(branch))
