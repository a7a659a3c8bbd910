"""Runs `rerank` with the arguments given, then prints the names of all imported modules on stderr."""

import atexit
import sys

from rerank_cli.__main__ import main

atexit.register(lambda: print(*sys.modules, file=sys.stderr))
main()
