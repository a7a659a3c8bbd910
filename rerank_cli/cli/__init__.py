"""Commands: flags to option objects, one call into the product, an exit code and lines for a person.

Knows typer, terminals and exit codes; holds no logic. One module a command, `flags/` for flags that commands share.
Nothing heavy is imported before a command runs. Face: `main.main`.
"""
