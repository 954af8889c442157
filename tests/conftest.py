"""What tests share: the shared data if it is there, a tiny tokenizer and a tiny image folder."""

import atexit
import contextlib
import functools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

# Read by libraries when they are imported, also in processes that tests start. OpenBLAS's threads only
# slow down small matrices; of several workers of pytest each has one core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.cli import main
from entropy_cli.images.decode import read_image
from entropy_cli.images.synthetic import write_image_folder
from entropy_cli.tokenizers.layers.var_layout import VARSizes
from entropy_cli.tokenizers.preprocess import var_crop
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests.pretended_gpu import PretendedGPU
from tests.untrained import untrained_weights

PATCH_NUMS, IMAGE_SIZE = (1, 2, 4, 8), 32
SIZES = VARSizes(width=32, width_mult=(1, 1, 2), blocks=1, latent_dim=6, vocab_size=48)


def pytest_addoption(parser):
    """Let test_docs.py write today's output into the documents instead of comparing it."""
    parser.addoption(
        "--update-docs", action="store_true", help="Write README's and the guide's outputs."
    )


def pytest_configure(config):
    """Hide GPUs, also from processes that tests start: results are compared with those of a CPU."""
    if not keeps_gpus(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def keeps_gpus(expression):
    """Whether the tests that `-m` selects are those that need a GPU."""
    return re.search(r"(?<!not )\bgpu\b", expression) is not None


@pytest.fixture(scope="session")
def shared():
    """Folder of golden checkpoints and real photographs, beside the project."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the shared data is not beside the project")
    return folder


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory):
    """Caches of fixtures that several tests share stay in a folder of the session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("MPLCONFIGDIR", str(folder / "matplotlib"))  # its list of fonts, made once
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """States of a test's runs stay in its own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def same_numbers():
    """A test draws the same random numbers in every run, alone or among others."""
    torch.manual_seed(0)


@pytest.fixture
def two_threads():
    """torch computes on two threads."""
    with torch_threads(2):
        yield


@pytest.fixture(params=[1, 2], ids=lambda number: f"threads {number}")
def threads(request):
    """torch computes on one thread, and on two."""
    with torch_threads(request.param):
        yield


@pytest.fixture
def pretended_gpu(monkeypatch):
    """A GPU that torch believes in, and that refuses and counts as one; nothing where there is one."""
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with PretendedGPU().installed(monkeypatch) as gpu:
        yield gpu


@pytest.fixture(params=["pretended", pytest.param("real", marks=pytest.mark.gpu)])
def gpu_device(request):
    """A CUDA device: a pretended one, and a real one where there is one."""
    if request.param == "pretended":
        request.getfixturevalue("pretended_gpu")
    elif not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda", 0)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of 70 pictures: four whole blocks and a part of one."""
    root = tmp_path_factory.mktemp("images")
    write_image_folder(root, images=70, size=44, seed=1)
    return root


@pytest.fixture(scope="session")
def pictures(images):
    """Some of them, as the tiny tokenizer takes them, uint8."""
    paths = sorted(images.rglob("*.jpg"))[::7]
    return torch.stack([read_image(path, var_crop(IMAGE_SIZE).apply) for path in paths])


@pytest.fixture(scope="session")
def weights(pictures):
    """State dict of the tiny tokenizer."""
    return untrained_weights(pictures, SIZES, TokenizerSettings(IMAGE_SIZE, PATCH_NUMS), seed=0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, weights):
    """The tiny tokenizer, with its config.json."""
    path = tmp_path_factory.mktemp("tokenizer") / "tiny.safetensors"
    save_file(weights, path)
    config = {"image_size": IMAGE_SIZE, "patch_nums": PATCH_NUMS}
    path.with_name("config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def cli(capfd):
    """Run a command line; gives its exit code, stdout and stderr."""

    def run(*argv):
        capfd.readouterr()
        code = main([str(part) for part in argv])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def estimate(cli):
    """Run `estimate --json`; gives the result, or the exit code and stderr of a failure."""

    def run(*argv):
        code, out, err = cli("estimate", "--json", "--workers", "0", *argv)
        return json.loads(out) if code in (0, 4) else (code, err)

    return run


@pytest.fixture
def baseline(estimate, images, checkpoint):
    """The result of the tiny tokenizer on the tiny folder."""
    return estimate("--data", images, "--ckpt", checkpoint, "--batch-size", 4)


@pytest.fixture(scope="session")
def ladder_result(tmp_path_factory, images, checkpoint):
    """The file of such a result with the ladder of its hard tokens."""
    path = tmp_path_factory.mktemp("ladder") / "result.json"
    argv = ["estimate", "--data", images, "--ckpt", checkpoint, "--workers", 0, "--batch-size", 4]
    assert main([*map(str, argv), "--ladder", "-o", str(path)]) == 0
    return path


def free_ports(number):
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def torchrun(processes, *, is_real=False):
    """The command that starts so many processes of a module, up to and with its -m.

    Unless it is the real one, they start as torchrun's do, but are forks of one program.
    """
    (port,) = map(str, free_ports(1))
    if not is_real:
        return [*python(), "-m", "tests.launch", str(processes), port, "-m"]
    argv = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    return [*argv, "--master-addr", "127.0.0.1", "--master-port", port, "-m"]


@functools.cache
def python():
    """The command that runs a program as `python` does, but for its imports: forks.py tells how."""
    if sys.platform != "linux":
        return [sys.executable]
    path = str(Path(tempfile.mkdtemp()) / "forks")
    forks = Path(__file__).with_name("forks.py")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        number = listener.fileno()
        argv = [sys.executable, "-m", "tests.forks", str(number)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            cwd=forks.parents[1],
            env=environment,
            pass_fds=[number],
        )
    atexit.register(server.communicate)
    return [sys.executable, "-IS", str(forks), path]


@contextlib.contextmanager
def torch_threads(number):
    """Compute on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread():
    """Compute on one thread, as the processes do that tests compare with."""
    return torch_threads(1)


def estimate_on_one_thread(output, *options):
    """The result of `estimate`, written to a file and read."""
    with one_thread():
        argv = ["estimate", "--workers", 0, "-o", output, *options]
        assert main([str(part) for part in argv]) == 0
    return json.loads(output.read_text())


def subprocess_environment(tmp_path):
    """Environment of a run in its own process, with its cache in the test's folder."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
