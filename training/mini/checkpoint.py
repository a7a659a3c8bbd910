"""Plain checkpoint folders of the student: written whole, in one dtype, the word embeddings in one of their own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

_TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "model_max_length": 512,
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
WORDS = "bert.embeddings.word_embeddings.weight"
WORDS_DTYPE = torch.float8_e4m3fn  # a byte a weight, 448 the largest
_LOCAL = ("_name_or_path", "output_attentions", "output_hidden_states", "return_dict")


def write(
    target: Path,
    state: Mapping[str, torch.Tensor],
    config: dict[str, Any],
    tokenizer: Tokenizer,
    dtype: torch.dtype,
    limit: int | None = None,
) -> int:
    """Write the folder and return its size in bytes; a README in `target` stays. Raises ValueError above `limit`.

    In fp16, word embeddings that `WORDS_DTYPE` holds exactly are written in it. Files are written beside the target and
    then moved in, so a reader never meets half a file.
    """
    target.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in config.items() if key not in _LOCAL}
    config |= {"architectures": ["BertForSequenceClassification"], "dtype": str(dtype).removeprefix("torch.")}
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        folder = Path(name)
        weights = {key: value.detach().to(dtype).contiguous().clone() for key, value in state.items()}
        if dtype == torch.float16 and torch.equal(words_rounded(state[WORDS]), state[WORDS].float()):
            weights[WORDS] = state[WORDS].detach().to(WORDS_DTYPE).contiguous()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        for file, body in (("config.json", config), ("tokenizer_config.json", _TOKENIZER_CONFIG)):
            (folder / file).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
        size = sum(file.stat().st_size for file in folder.iterdir())
        if limit is not None and size > limit:
            raise ValueError(f"{target}: {size} bytes, over {limit}")
        for file in folder.iterdir():
            file.chmod(0o644)
            file.replace(target / file.name)
    return size


def words_rounded(words: torch.Tensor) -> torch.Tensor:
    """Word embeddings [pieces, size] as they are after a conversion to `WORDS_DTYPE`, in fp32."""
    return words.detach().to(WORDS_DTYPE).float()
