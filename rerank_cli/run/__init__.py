"""A complete run: records are cut into chunks, scored, ranked and committed to an output, with checkpoints.

Uses the public interfaces of `formats` and `engine`, and does not import typer. `recovery/` makes a run resumable,
`scoring/` turns pairs into scores, `figures/` counts and tells. Entry point: `job.run` with `options.RunConfig`.
"""
