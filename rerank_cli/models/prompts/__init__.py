"""Texts of a pair to token ids: prompt profiles, tokenizer, templates and truncation.

Knows tokenizers and strings; no weights. Face: `profiles.read_profile`, `tokens.load_tokenizer`, `pairs.PairRule`.
"""
