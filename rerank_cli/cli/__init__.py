"""The command line: turns flags into option objects, calls the product once, reports results and exit codes.

A module per command; `flags/` has shared flags, `terminal/` the streams, the pager and shell completion. Imports
nothing heavy before a command runs. Entry point: `main.main`.
"""
