"""`rerank train`: fine-tunes a cross-encoder.

`data` gives the groups of a step, `step` computes it, `run` is the whole run, `export` writes the model. Knows models,
formats and the engine. Entry point: `run.job.train`.
"""
