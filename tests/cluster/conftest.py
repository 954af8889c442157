"""A real Slurm on this machine for a few tests: one node, two partitions.

Everything is in a temporary folder, munge's key and socket too: a Slurm that the machine has of its own
is left alone, and nothing stays when the daemons end.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.conftest import free_ports

DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = f"{os.environ['PATH']}:/usr/sbin"
# cred_expire is also how long a requeued job waits for its next turn: two minutes, were it left out.
CONFIG = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
GresTypes=gpu
KillWait=20
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:a100:2 State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 State=UP
PartitionName=high Nodes=localhost PriorityTier=10 State=UP
"""


def wait_until(true, seconds, *, what):
    """Poll until it is so; what else goes on matters less than that a hang says where it hung."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.CalledProcessError):
            if true():
                return
        time.sleep(0.1)
    pytest.fail(f"after {seconds} s still not: {what}")


class Cluster:
    """Munge, a controller and a node daemon as children of this process."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        self._daemons = []

    def start(self):
        """Start all three and wait until the node is idle."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        self._start_munge()
        ports = free_ports(2)
        config = CONFIG.format(
            folder=self.folder,
            controller_port=ports[0],
            node_port=ports[1],
            cpus=os.cpu_count(),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 100,
        )
        (self.folder / "slurm.conf").write_text(config)
        # Two GPUs in name only: any device will do.
        gpus = (f"NodeName=localhost Name=gpu Type=a100 File=/dev/{name}\n" for name in ("zero", "full"))
        (self.folder / "gres.conf").write_text("".join(gpus))
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D", "-N", "localhost")
        wait_until(lambda: self("sinfo", "-h", "-o", "%t", "-p", "low") == "idle", 30, what="idle")

    def _start_munge(self):
        key, socket_ = self.folder / "munge.key", self.folder / "munge.socket"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        files = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        names = ("munge.socket", "munge.key", "munge.pid", "munge.log", "munge.seed")
        options = [f"--{file}={self.folder / name}" for file, name in zip(files, names, strict=True)]
        self._daemon("munged", "--foreground", "--force", *options)
        wait_until(socket_.exists, 10, what="munge's socket")

    def _daemon(self, *argv):
        with (self.folder / f"{argv[0]}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(argv, env=self.environment, stdout=out, stderr=out, cwd=self.folder)
            )

    def __call__(self, *argv, **options):
        """Run a command of Slurm's; its stdout."""
        return subprocess.run(
            [str(part) for part in argv],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            **options,
        ).stdout.strip()

    def show(self, job):
        """What the controller says of a job or of each task of an array, by name."""
        lines = self("scontrol", "show", "job", "-o", job).splitlines()
        return [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines]

    def stop(self):
        """Cancel what is left, then stop the daemons in the order of who needs whom."""
        with contextlib.suppress(subprocess.SubprocessError, FileNotFoundError):
            self("scancel", "--user", "root")
            deadline = time.monotonic() + 20
            while self("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@pytest.fixture(scope="session")
def cluster():
    """A running Slurm; skips where there can be none."""
    missing = [name for name in DAEMONS if shutil.which(name, path=PATH) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; make test-cluster installs them")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons start jobs as root only")
    # Not pytest's folder: the path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
