"""The entry point: settles what a signal does before anything slow is imported, then hands over."""

from __future__ import annotations

import signal


def main() -> None:
    """Until there is work to save, an interrupt ends the process at once; one that was ignored stays ignored."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # asks a run how far it is; none is yet
    from rerank_cli.cli.main import main as run_command

    run_command()


if __name__ == "__main__":
    main()
