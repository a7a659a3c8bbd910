"""How a checkpoint reads a pair: by flags, else as its own files state, else by the rule of its family.

Entry points: `rules.read_pairs`, `choosing.is_guess`. Loads no weights.
"""
