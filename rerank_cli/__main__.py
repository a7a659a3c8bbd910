"""The entry point: sets the signal handlers before slow imports, then runs the command line."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Until a run installs its own handler, SIGINT ends the process at once; if it was ignored, it stays ignored."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getpid() == 1:  # the first process of a container, for which the kernel ignores signals without a handler
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os._exit(128 + number))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # requests a progress report; no run has started yet
    from rerank_cli.cli.main import main as run_command

    run_command()


if __name__ == "__main__":
    main()
