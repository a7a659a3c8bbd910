"""Flags that several commands share, as functions that turn them into the product's option objects.

Knows names, help and exclusions of flags, not their meaning. Entry points: `declare.flag`, `declare.command`, bundles.
"""
