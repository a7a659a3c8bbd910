"""Which linear layers of a model are quantized, and by what.

Those inside the blocks alone: embeddings, head and head keep the model's dtype, and so does a trimmed last layer,
which is nearly free and stands next to the score.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from rerank_cli.choices import Quantize
from rerank_cli.models.last_layer import TrimmedLayer


def quantize(backbone: nn.Module, how: Quantize) -> int:
    """Exchange the linear layers of a loaded backbone, in place; how many there were."""
    if how is Quantize.FP8:
        from rerank_cli.models.quantization.fp8 import quantize_fp8

        return quantize_fp8(block_linears(backbone))
    if how is Quantize.INT8:
        from rerank_cli.models.quantization.int8 import quantize_int8

        return quantize_int8(block_linears(backbone))
    return 0


def block_linears(backbone: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Linear layers inside the blocks, each once, as (module that holds it, name there, layer).

    Each may be exchanged while the walk goes on.
    """
    stacks = [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for stack in stacks for block in stack if not isinstance(block, TrimmedLayer)]
    owners = dict.fromkeys(owner for block in blocks for owner in block.modules())
    for owner in owners:
        for name, child in list(owner.named_children()):
            if type(child) is nn.Linear:
                yield owner, name, child
