"""`python -m rerank_cli` is the command `rerank`."""

from rerank_cli.cli.main import main

main()
