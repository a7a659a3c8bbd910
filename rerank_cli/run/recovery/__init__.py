"""What makes a run resumable: checkpoint, fingerprint, journal, receipt.

Knows files beside an output; not how pairs are scored. Face: `output_state.OutputState`.
"""
