"""Renders a checkpoint's chat template for a pair: a template is data, in the sandbox of transformers, with limits."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import one_line
from rerank_cli.models.prompts.tokens import TextTokenizer
from rerank_cli.models.stated import Stated

LONGEST = 200_000  # characters of a template, and of what it writes around two short texts
SECONDS = 10.0  # for one pair, which takes milliseconds; a template can loop for ever
Render = Callable[[str, str, str | None], str]
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
_FLAT_TYPES = frozenset(("apertus", "deepseek_v3", "gpt_oss", "seed_oss"))


def renderer(tokenizer: TextTokenizer, stated: Stated, model_type: str, where: str) -> Render:
    """A function of a query, a document, and the system message or None. It raises ModelError, one line."""
    template = getattr(tokenizer.stock, "chat_template", None)
    if not template:
        raise ModelError(
            f"{where}: reads pairs as chat messages, and has no chat template (expected chat_template.jinja)"
        )
    if len(str(template)) > LONGEST:
        raise ModelError(f"{where}: the chat template has more than {LONGEST:,} characters. Fix: --profile FILE")
    structured = stated.structured
    if structured is None:
        marked = not isinstance(template, str) or any(mark in template for mark in _STRUCTURED)
        structured = marked and model_type not in _FLAT_TYPES

    def render(query: str, document: str, system: str | None) -> str:
        texts = {"system": system, "query": query, "document": document}
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if structured else text}
            for role, text in texts.items()
            if text is not None
        ]
        try:
            return _limited(
                lambda: tokenizer.stock.apply_chat_template(messages, tokenize=False, **(stated.chat or {}))
            )
        except Exception as error:  # of Jinja, of the template itself, or of unsuitable arguments
            raise ModelError(f"{where}: the chat template cannot write a pair ({one_line(error)})") from error

    return render


def _limited(call: Callable[[], Any]) -> str:
    """What `call` writes. Raises what it raises, TimeoutError beyond the time, ValueError beyond the length."""
    found: list[str] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(str(call()))
        except BaseException as error:  # handed to the caller
            failed.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(SECONDS)
    if worker.is_alive():
        # Nothing else ends a loop in another thread; its next step raises this.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident or 0), ctypes.py_object(TimeoutError))
        raise TimeoutError(f"it takes more than {SECONDS:g} seconds")
    if failed:
        raise failed[0]
    if len(found[0]) > LONGEST:
        raise ValueError(f"it writes more than {LONGEST:,} characters")
    return found[0]
