"""Runs the command in a child of a process that has already imported torch and transformers.

An ordinary process of the command spends some three seconds of CPU time on these imports, which would be most of the
time of these tests. The child is a process of its own in every other respect: its own arguments, environment, working
folder and standard streams, the same `main`, the interpreter's own exit. Commands whose start, signals or environment
matter are started afresh.

`python forked.py serve SOCKET` imports and waits for commands; `python forked.py run SOCKET ARGS...` is then one
`rerank ARGS...`: it hands over its standard streams, and ends with the command's exit code or of its signal.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import tempfile

_LIMIT = 1 << 20
PID_TO = "RERANK_TESTS_PID_TO"  # a variable of the client: the file descriptor that gets the process id of the command


def run(path, args):
    """Have the command run by the server; returns its exit code, negative for a signal."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        folder = os.getcwd()  # noqa: PTH109, importing pathlib takes longer than everything else here
        pid_to = os.environ.pop(PID_TO, None)
        order = {"args": ["rerank", *args], "env": dict(os.environ), "cwd": folder}
        socket.send_fds(connection, [json.dumps(order).encode()], [0, 1, 2])
        connection.shutdown(socket.SHUT_WR)
        answers = connection.makefile()
        pid = answers.readline()
        if pid_to:
            os.write(int(pid_to), pid.encode())
            os.close(int(pid_to))
        for descriptor in (0, 1, 2):  # a pipe must end with the command
            os.close(descriptor)
        return int(answers.readline())


def serve(listener):
    """Returns in a child, once for each command, with everything in place. Ends when the server's stdin is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the waiting children below are not waited for
    while True:
        if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
            sys.exit()
        connection, _ = listener.accept()
        if os.fork() == 0:
            break
        connection.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, descriptors, _, _ = socket.recv_fds(connection, _LIMIT, 3)
    while more := connection.recv(_LIMIT):
        message += more
    if child := os.fork():
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(f"{child}\n".encode())
        connection.sendall(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n".encode())
        os._exit(0)
    connection.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    order = json.loads(message)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    tempfile.tempdir = None  # of the server's environment
    if folder := order["env"].get("PYTHONPATH"):
        sys.path.insert(0, folder)
        if os.path.exists(f"{folder}/sitecustomize.py"):  # noqa: PTH110
            runpy.run_path(f"{folder}/sitecustomize.py")
    sys.argv = order["args"]


def import_all():
    """What most commands import. Nothing else is done here: no thread may run before a fork."""
    from rerank_cli.cli.terminal.streams import prepare_environment

    prepare_environment()
    import pandas  # noqa: F401 - pyarrow does when it writes
    import peft.tuners.lora  # noqa: F401
    import scipy.stats  # noqa: F401
    import transformers.models.auto.modeling_auto
    import transformers.models.bert.modeling_bert  # noqa: F401
    import typer._adapters  # noqa: F401
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import rerank_cli

    for module in pkgutil.walk_packages(rerank_cli.__path__, "rerank_cli."):
        if not module.name.startswith(("rerank_cli.api.", "rerank_cli.__main__")):  # adapters to libraries
            importlib.import_module(module.name)
    get_checkpoint_conversion_mapping("bert")  # compiles the patterns of all types
    gc.freeze()  # a collection in a child would copy every page


if __name__ == "__main__":
    if sys.argv[1] == "run":
        code = run(sys.argv[2], sys.argv[3:])
        if code < 0:
            if -code != signal.SIGKILL:
                signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        sys.exit(code)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(sys.argv[2])
        import_all()
        waiting.listen(64)
        print("ready", flush=True)
        serve(waiting)
    from rerank_cli.__main__ import main

    main()
