"""A whole training run: checkpoints, steps, evaluation, the log, the result.

Knows data and steps; not how a step is computed. Entry point: `job.train`.
"""
