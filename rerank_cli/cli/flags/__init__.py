"""Flags that several commands share, as functions from flags to the options that the product takes.

Knows names, help texts and which flags exclude each other; not what an option does. Face: `declare.flag`,
`declare.command`, and one bundle function for each group of flags.
"""
