"""Write a trained student as a plain Hugging Face folder in float16, and refuse one over the size limit.

`save` fills a temporary folder beside the target and then moves each file in, so a reader never meets half a
file. Run as a script it repeats that for an existing folder: `python export.py --from … --to …`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

LIMIT = 19_500_000
TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "model_max_length": 512,
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def save(state: dict[str, torch.Tensor], config: dict, tokenizer: Tokenizer, target: Path) -> int:
    """Write the folder and return its size in bytes; a README already in `target` stays."""
    target.mkdir(parents=True, exist_ok=True)
    local = ("_name_or_path", "output_attentions", "output_hidden_states", "return_dict")
    config = {key: value for key, value in config.items() if key not in local}
    config = {**config, "architectures": ["BertForSequenceClassification"], "dtype": "float16"}
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        half = {key: value.detach().to(torch.float16).contiguous().clone() for key, value in state.items()}
        save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        for file, body in (("config.json", config), ("tokenizer_config.json", TOKENIZER_CONFIG)):
            (folder / file).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        size = sum(f.stat().st_size for f in folder.iterdir())
        if size > LIMIT:
            raise ValueError(f"{size} bytes, over {LIMIT}")
        for file in folder.iterdir():
            file.chmod(0o644)
            file.replace(target / file.name)
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="source", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--card", type=Path, help="README.md to copy in")
    args = parser.parse_args()
    config = json.loads((args.source / "config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(args.source / "tokenizer.json"))
    size = save(load_file(args.source / "model.safetensors"), config, tokenizer, args.to)
    if args.card:
        shutil.copy(args.card, args.to / "README.md")
    print(f"{args.to}: {size} bytes")


if __name__ == "__main__":
    main()
