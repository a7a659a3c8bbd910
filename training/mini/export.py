"""Write the weights of one checkpoint, or the weighted mean of several of one shape, in fp16.

    python export.py --from trained --to ../../rerank_cli/checkpoints/mini
    python export.py --from first --from second --weights 0.5,0.5 --to mean

`--shift` is added to the bias of the head: a loss of groups leaves open what a score of 0 means.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from checkpoint import write
from safetensors.torch import load_file
from tokenizers import Tokenizer

LIMIT = 19_500_000


def mean(folders: list[Path], weights: list[float]) -> dict[str, torch.Tensor]:
    """The weighted mean of the tensors of checkpoints, computed in fp32; tensors that all have in common stay exact."""
    states = [load_file(folder / "model.safetensors") for folder in folders]
    found: dict[str, torch.Tensor] = {}
    for name in states[0]:
        tensors = [state[name].float() for state in states]
        if all(torch.equal(tensor, tensors[0]) for tensor in tensors):
            found[name] = tensors[0]
        else:
            found[name] = torch.stack([w * tensor for w, tensor in zip(weights, tensors, strict=True)]).sum(0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="sources", type=Path, action="append", required=True, help="may be repeated")
    parser.add_argument("--weights", help="of each --from, which add up to 1 [default: equal]")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--shift", type=float, default=0.0)
    args = parser.parse_args()
    equal = [1 / len(args.sources)] * len(args.sources)
    weights = [float(weight) for weight in args.weights.split(",")] if args.weights else equal
    if len(weights) != len(args.sources) or abs(sum(weights) - 1) > 1e-6:
        parser.error(f"--weights {args.weights}: expected {len(args.sources)} numbers that add up to 1")
    tokenizers = {(folder / "tokenizer.json").read_bytes() for folder in args.sources}
    if len(tokenizers) != 1:
        parser.error("--from: the tokenizers are not the same")
    state = mean(args.sources, weights)
    state["classifier.bias"] += args.shift
    config = json.loads((args.sources[0] / "config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(args.sources[0] / "tokenizer.json"))
    size = write(args.to, state, config, tokenizer, torch.float16, LIMIT)
    print(f"{args.to}: {size} bytes")


if __name__ == "__main__":
    main()
