"""The command line's surroundings: standard streams, the pager, shell completion.

Knows no command.
"""
