"""Run programs as forks of one that has imported what takes long, which saves each of them seconds.

`python -IS forks.py SOCKET -m MODULE ARGUMENTS...` is what a test starts, or -c CODE or a file in place
of -m MODULE. The program runs in a fork of the server at that socket, with its caller's streams,
variables, folder and ignored signals. Signals are passed on to it, it is killed when its caller is, and
the caller ends with its code. Its name in /proc is its caller's number.
"""

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from pathlib import Path

PASSED_ON = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}


def call(path, words):
    """Have the server run a program; return its exit code, or minus the signal that ended it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    streams = [number for number in range(3) if is_open(number)]
    ignored = [number for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    about = {"words": words, "caller": os.getpid(), "streams": streams, "ignored": ignored}
    place = {"folder": str(Path.cwd()), "variables": dict(os.environ)}
    message = json.dumps({**about, **place}).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [len(message).to_bytes(4, "big")], streams)
        server.sendall(message)
        for number in PASSED_ON.difference(ignored):
            signal.signal(number, lambda number, _: server.send(bytes([number])))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        return int(server.makefile().read())


def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def serve(listener):
    """Answer callers until stdin ends, each in a fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return
        caller, _ = listener.accept()
        if not os.fork():
            listener.close()
            answer(caller)
        caller.close()


def answer(caller):
    """Run the caller's program in a fork once more, and tell the caller of its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, _, _ = socket.recv_fds(caller, 4, 3)
    with caller.makefile("rb") as reader:
        about = json.loads(reader.read(int.from_bytes(length, "big")))
    child = os.fork()
    if not child:
        caller.close()
        become(about, files)
        run(about["words"])
    for file in files:
        os.close(file)
    ended = os.pidfd_open(child)
    while ended not in select.select([ended, caller], [], [])[0]:
        os.kill(child, (caller.recv(1) or bytes([signal.SIGKILL]))[0])
    _, status = os.waitpid(child, 0)
    caller.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(about, files):
    """Give this process the streams, the variables, the folder and the ignored signals of a caller."""
    import torch

    for number in range(3):
        os.close(number)
    for number, file in zip(about["streams"], files, strict=True):
        os.dup2(file, number)
        os.close(file)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream, mode = None, "w" if number else "r"
        if number in about["streams"]:
            errors = getattr(sys, name).errors
            is_terminal = os.isatty(number)
            stream = open(number, mode, 1 if is_terminal else -1, "utf-8", errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if sys.stderr:
        sys.stderr.reconfigure(line_buffering=True)
    os.chdir(about["folder"])
    os.environ.clear()
    os.environ.update(about["variables"])
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in about["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    Path("/proc/self/comm").write_text(str(about["caller"]))


def run(words):
    """Run a program as the interpreter does, and end without taking everything apart: a second less."""
    code = 1
    try:
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        elif words[0] == "-m":
            sys.path.insert(0, str(Path.cwd()))
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:  # noqa: BLE001 - what the interpreter would show
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError):  # closed, or its reader has left
                stream.flush()
        os._exit(code)


def main():
    """Serve at the socket of this number, or call the server at this path."""
    if sys.argv[1].isdigit():
        # What takes long to import.

        import entropy_cli.commands.train.train
        import entropy_cli.runs.estimate
        import entropy_cli.runs.merge  # noqa: F401

        serve(socket.socket(fileno=int(sys.argv[1])))
        return
    code = call(sys.argv[1], sys.argv[2:])
    if code < 0:
        if -code in PASSED_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
