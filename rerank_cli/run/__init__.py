"""A whole run: records in chunks through a scoring into an output, with checkpoints.

Knows formats and engine by their faces; not typer. `recovery/` is what makes a run resumable, `scoring/` what stands
between chunks and scores. Face: `job.run` with `options.RunConfig`.
"""
