"""Start the processes of one run as torchrun does, in a third of its time: as forks of one program.

`python -m tests.launch PROCESSES PORT -m MODULE ARGUMENTS...`, or a file in place of -m MODULE. Each
process has torchrun's variables, and its store is the launcher's. When one of them fails the others are
terminated, as torchrun does, and the launcher ends with 1.
"""

import os
import signal
import sys
import time

from torch.distributed import TCPStore

from tests.forks import run

PATIENCE_S = 30  # before what does not end by itself is killed


def run_as_rank(rank, processes, port, words):
    """Become one process of the run."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    store = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
    variables = {**ranks, **store, "TORCHELASTIC_RUN_ID": "none"}
    os.environ.update({name: str(value) for name, value in variables.items()})
    run(words)


def fork(*about):
    """Start one process; return its number."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    return run_as_rank(*about)


def main():
    processes, port, *words = sys.argv[1:]
    alive = {fork(rank, processes, port, words) for rank in range(int(processes))}
    store = TCPStore("127.0.0.1", int(port), is_master=True, wait_for_workers=False)
    failed, deadline = False, None

    def stop(*_):
        nonlocal failed, deadline
        failed, deadline = True, deadline or time.monotonic() + PATIENCE_S
        for child in alive:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    while alive:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if not ended:
            time.sleep(0.02)
            if deadline and time.monotonic() > deadline:
                for child in alive:
                    os.kill(child, signal.SIGKILL)
            continue
        alive.discard(ended)
        if code := os.waitstatus_to_exitcode(status):
            sys.stderr.write(f"exitcode  : {code}\n")
            if not failed:
                stop()
    del store
    sys.exit(failed)


if __name__ == "__main__":
    main()
