"""Selects the linear layers of a model to quantize, and the number format.

Only layers inside the blocks are quantized. Embeddings and head keep the model's dtype, and so does a trimmed last
layer, which costs little and is next to the score.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from rerank_cli.choices import Quantize
from rerank_cli.errors import UsageError
from rerank_cli.models.last_layer import TrimmedLayer
from rerank_cli.models.quantization.fp8 import quantize_fp8
from rerank_cli.models.quantization.int8 import quantize_int8


def quantize(backbone: nn.Module, how: Quantize) -> None:
    """Replace the linear layers of a loaded backbone in place. Raises UsageError if it has none that are suitable."""
    if how is Quantize.NONE:
        return
    replaced = (quantize_fp8 if how is Quantize.FP8 else quantize_int8)(block_linears(backbone))
    if not replaced:
        what = f"{type(backbone).__name__} has no linear layers that it applies to"
        raise UsageError(f"--quantize {how.value}: {what}. Fix: --quantize none")


def block_linears(backbone: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The linear layers inside the blocks, each once, as (owner, attribute name, layer).

    The caller may replace each layer during the iteration.
    """
    stacks = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for stack in stacks for block in stack if not isinstance(block, TrimmedLayer)]
    for owner in dict.fromkeys(owner for block in blocks for owner in block.modules()):
        for name, child in list(owner.named_children()):
            if type(child) is nn.Linear:
                yield owner, name, child
