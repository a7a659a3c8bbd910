"""Looking without scoring a file: check an input, inspect a pair, status of an output; score a few texts.

Face: `check.check_input`, `pair.inspect_pair`, `status.status_of`, `score.score_documents`.
"""
