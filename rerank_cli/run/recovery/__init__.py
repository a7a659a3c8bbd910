"""Files beside an output that make a run resumable: checkpoint, journal, lock; and the receipt of a finished output.

Does not know how pairs are scored. Entry point: `output_state.OutputState`.
"""
