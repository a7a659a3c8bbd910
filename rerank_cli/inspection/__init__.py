"""Reading without a run: `check.check_input`, `pair.inspect_pair`, `status.status_of`, `score.score_documents`."""
