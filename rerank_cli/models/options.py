"""Model options beyond the name, most of which only some families have. Plain data without torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from rerank_cli.choices import LayerHeads, TruncationRule
from rerank_cli.errors import UsageError
from rerank_cli.models.prompts.profiles import Profile


@dataclass(frozen=True, slots=True)
class FamilyOptions:
    """Options of single families. None means the family's default; any other value needs a family with the option."""

    profile: Profile | None = None
    prompt: str | None = None
    query_instruction: str | None = None
    passage_instruction: str | None = None
    truncation_rule: TruncationRule | None = None
    adapter: str | None = None
    label: str | None = None
    cutoff_layers: tuple[int, ...] | None = None
    layer_heads: LayerHeads | None = None
    compress_layers: tuple[int, ...] | None = None
    compress_ratio: int | None = None
    softcap: bool | None = None

    def given(self) -> dict[str, Any]:
        """The options that are set, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}

    def refuse_foreign(self, known: frozenset[str], family: str, where: str) -> None:
        """Raise UsageError if an option is set that this family does not have."""
        for name in self.given():
            if name not in known:
                has = ", ".join(flag_of(known_name) for known_name in sorted(known)) or "none"
                raise UsageError(f"{flag_of(name)}: {where} ({family}) has no such option (it has: {has})")


def flag_of(name: str) -> str:
    """The flag that sets an option."""
    return "--" + name.replace("_", "-")
