"""Checkpoints and images on a hub, a web server and in memory, as a user names them."""

import json

import pytest
from huggingface_hub import constants

from tests.archives import files_of, write_parquet
from tests.hub_server import COMMIT, serving


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on this machine, with a cache of its own."""
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)  # HF_ENDPOINT is read on import
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture
def repo(hub, checkpoint):
    """A repository with the tiny tokenizer in a file and, with others, in a folder."""
    model, config = checkpoint.read_bytes(), checkpoint.with_name("config.json").read_bytes()
    hub.files["ORG/vq"] = {
        "config.json": config,
        "tiny.safetensors": model,
        "README.md": b"# vq",
        "folder/config.json": config,
        "folder/model.safetensors": model,
        "folder/pytorch_model.bin": b"another copy",
    }
    return hub


def last(err):
    return err.splitlines()[-1]


def test_a_checkpoint_of_the_hub(cli, estimate, baseline, images, repo, tmp_path):
    options = ("--data", images, "--batch-size", 4)
    got = estimate(*options, "--ckpt", "hf://ORG/vq/tiny.safetensors")
    assert got["scales"] == baseline["scales"] and got["settings"] == baseline["settings"]
    origin = got["provenance"]
    assert origin["checkpoint_commit"] == COMMIT
    assert origin["checkpoint_address"] == f"hf://ORG/vq@{COMMIT}/tiny.safetensors"
    assert origin["checkpoint"].startswith(str(tmp_path / "hub")) and "README.md" not in str(repo.served)
    repo.served.clear()
    again = estimate(*options, "--ckpt", f"hf://ORG/vq@{COMMIT}/folder")
    assert again["scales"] == baseline["scales"]
    assert not any("pytorch_model" in path for path in repo.served)
    repo.served.clear()
    assert cli("estimate", *options, "--ckpt", "hf://ORG/vq@main/folder/", "--explain")[0] == 0
    assert not any("resolve" in path for path in repo.served)  # all is in the cache


def test_the_python_api_takes_addresses(images, repo):
    from entropy_cli import estimate, load_tokenizer

    tokenizer = load_tokenizer("hf://ORG/vq/folder")
    assert tokenizer.spec.family == "var"
    repo.files["datasets/ORG/tiny"] = {
        path: (images / path).read_bytes() for path, _ in files_of(images)[:3]
    }
    result = estimate("hf://datasets/ORG/tiny", tokenizer, temperature=1, workers=0)
    assert result.data.images_used == 3


def test_inspect_show_and_slurm_take_addresses(cli, images, repo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = "hf://ORG/vq/tiny.safetensors"
    code, out, _ = cli(*("slurm", "--array", 2, "-o", "jobs", "--", "--data", images, "--ckpt", address))
    assert code == 0 and not any("resolve" in path for path in repo.served)  # the jobs fetch
    assert any(address in path.read_text() for path in (tmp_path / "jobs").iterdir() if path.is_file())
    code, out, _ = cli("inspect", address, "--json")
    assert code == 0 and json.loads(out)["family"] == "var"
    image = next(images.rglob("*.jpg"))
    assert cli("show", image, "--ckpt", address, "-o", tmp_path / "x.png")[0] == 0


def test_a_dry_run_says_what_it_would_fetch(cli, images, repo):
    argv = ("estimate", "--data", images, "--ckpt", "hf://ORG/vq/tiny.safetensors", "--dry-run")
    code, out, _ = cli(*argv)
    assert code == 0 and out.startswith("would fetch ") and "tiny.safetensors" in out
    assert not any("resolve" in path for path in repo.served)
    assert cli("inspect", "hf://ORG/vq/tiny.safetensors")[0] == 0
    code, out, _ = cli(*argv)
    assert code == 0 and "would fetch" not in out and "ms to decode" in out


@pytest.mark.parametrize(
    "address, words",
    [
        ("hf://ORG/nothing/x.pt", "no such repository, or a private one"),
        ("hf://ORG/vq/x.pt", "no such file there, or none that can be used. There are config.json, "),
        ("hf://ORG/vq/folder/x.pt", "There are folder/config.json, folder/model.safetensors"),
        ("hf://ORG/vq@v9/tiny.safetensors", "no such revision. There are main."),
        ("hf://ORG/vq@../tiny.safetensors", "expected hf://ORG/REPO"),
        ("hf://ORG/vq@%2e%2e%2f%2e%2e/tiny.safetensors", "expected hf://ORG/REPO"),
        ("hf://ORG/vq/../../x.pt", "expected hf://ORG/REPO"),
        ("hf://ORG", "expected hf://ORG/REPO"),
        ("hf://ORG/$(touch x)/y", "expected hf://ORG/REPO"),
        ("memory://nothing/x.pt", "no such file"),
        ("s3://bucket/x.pt", "s3:// needs another package: pip install s3fs"),
        ("gs://bucket/x.pt", "gs:// needs another package: pip install gcsfs"),
    ],
)
def test_what_is_wrong_with_an_address_is_one_line(cli, repo, address, words):
    code, out, err = cli("inspect", address)
    assert code == 3 and not out and words in last(err), err
    assert "Traceback" not in err and len(last(err)) < 500


def test_without_access_or_connection(cli, repo, monkeypatch):
    address = "hf://ORG/vq/tiny.safetensors"
    repo.gated.add("ORG/vq")
    code, _, err = cli("inspect", address)
    assert code == 3 and "no access: ask for it on the repository's page" in last(err)
    repo.gated.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = cli("inspect", address)
    assert code == 3 and "is not in the cache" in last(err)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert cli("inspect", address)[0] == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cli("inspect", address)[0] == 0  # of the cache
    code, _, err = cli("inspect", "hf://ORG/vq/folder")
    assert code == 3 and "is not in the cache" in last(err)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    code, _, err = cli("inspect", address)
    assert code == 0 and "no connection" in err and "what is cached is used" in err


def test_images_of_the_hub(estimate, cli, images, checkpoint, hub, tmp_path, monkeypatch):
    files, parquet = files_of(images), hub.files.setdefault("datasets/ORG/tiny", {"README.md": b"#"})
    for i in range(2):
        rows = [(name, path.read_bytes(), 5) for name, path in files[i::2]]
        path = write_parquet(tmp_path / f"local/data/train-{i}.parquet", rows)
        parquet[f"data/train-{i}.parquet"] = path.read_bytes()
    options = ("--ckpt", checkpoint, "--batch-size", 4)
    want = estimate("--data", tmp_path / "local", *options)
    got = estimate("--data", "hf://datasets/ORG/tiny", *options)
    assert got["scales"] == want["scales"] and got["data"] == want["data"]
    assert got["provenance"]["data_commit"] == COMMIT and "README.md" not in str(hub.served)
    for address, used in (("data/train-1.parquet", 35), ("data/train-*.parquet", 70), ("data", 70)):
        part = estimate("--data", f"hf://datasets/ORG/tiny/{address}", *options)
        assert part["data"]["images_used"] == used
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, err = cli("estimate", "--data", "hf://datasets/ORG/tiny", *options)
    assert code == 0 and "the 2 files of it in the cache are used, which may not be all" in err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    code, _, err = cli("estimate", "--data", "hf://datasets/ORG/tiny/other", *options)
    assert code == 3 and "There are README.md, data/train-0.parquet" in last(err)


@pytest.mark.parametrize("kind", ["web", "memory"])
def test_files_on_the_web_and_in_memory(cli, hub, estimate, baseline, images, checkpoint, kind):
    model, config = checkpoint.read_bytes(), checkpoint.with_name("config.json").read_bytes()
    if kind == "web":
        hub.files["plain"] = {"my tiny.safetensors": model}
        address = f"{hub.url}/plain/my%20tiny.safetensors?signature=secret".replace("//", "//me:secret@")
        more = ("--image-size", 32, "--patch-nums", "1,2,4,8")
    else:
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.pipe({"/models/tiny.safetensors": model, "/models/config.json": config})
        address, more = "memory://models/tiny.safetensors", ()
    got = estimate("--data", images, "--batch-size", 4, "--ckpt", address, *more)
    assert got["scales"] == baseline["scales"]
    public = address.partition("?")[0].replace("me:secret@", "")
    assert got["provenance"]["checkpoint_address"] == public and public in got["provenance"]["command"]
    assert "secret" not in json.dumps(got)
    served = len(hub.served)
    assert cli("inspect", address, *more)[0] == 0 and len(hub.served) == served  # kept
    if kind == "web":
        hub.status = 503
        code, _, err = cli("inspect", address, *more)
        assert code == 0 and f"warning: {public}: can't be reached: status 503; what is cached" in err
        hub.status, hub.files["plain"]["my tiny.safetensors"] = 200, model + b"x"
        dry_run = cli("estimate", "--data", images, "--ckpt", address, "--dry-run")[1]
        assert dry_run.startswith("would fetch ") and f" from {public}\n" in dry_run
        err = cli("inspect", address)[2]  # fetched again
        assert len(hub.served) == served + 1 and f"error: {public}: a damaged" in err
        err += cli("inspect", checkpoint, f"https://host/x?{'secret' * 300}")[2]  # cut in the middle
        assert "secret" not in err + dry_run


def test_a_folder_of_images_in_a_bucket_is_read_at_any_depth(cli, estimate, images, checkpoint):
    import fsspec

    memory = fsspec.filesystem("memory")
    held = {name: path.read_bytes() for name, path in files_of(images)}
    first = next(iter(held))
    held[f"with a space/(1)/{first.rpartition('/')[2]}"] = held.pop(first)
    memory.pipe({f"/photos/{name}": content for name, content in held.items()})
    memory.pipe({"/photos/.hidden/x.png": b"", "/photos/notes.txt": b"x", "/empty/notes.txt": b"x"})
    got = estimate("--data", "memory://photos", "--ckpt", checkpoint)
    assert got["data"]["images_found"] == got["data"]["images_used"] == len(held)
    memory.rm(f"/photos/{list(held)[1]}")
    again = estimate("--data", "memory://photos", "--ckpt", checkpoint)
    assert again["data"]["images_found"] == len(held) - 1
    code, _, err = cli("estimate", "--data", "memory://empty", "--ckpt", checkpoint)
    assert code == 3 and "no file that can be used there: got notes.txt" in last(err)


def test_without_a_connection_only_all_of_a_folder_is_taken_from_the_cache(
    cli, images, checkpoint, monkeypatch
):
    import fsspec

    memory = fsspec.filesystem("memory")
    a, b = (path.read_bytes() for _, path in files_of(images)[:2])
    memory.pipe({"/two/a.jpg": a, "/two/b.jpg": b})
    fetch = ("estimate", "--data", "memory://two", "--ckpt", checkpoint)

    def failing(path, *_, **__):
        raise OSError(f"{path}: the server is down")

    with monkeypatch.context() as patch:
        get_file = memory.get_file

        def one(path, *args, **more):
            return (failing if "b.jpg" in path else get_file)(path, *args, **more)

        patch.setattr(memory, "get_file", one)
        assert cli(*fetch)[0] == 3
    with monkeypatch.context() as patch:
        patch.setattr(memory, "info", failing)
        code, _, err = cli(*fetch)
        assert code == 3 and "An earlier run has fetched only a part of it" in last(err)
    assert cli(*fetch)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(memory, "info", failing)
        code, _, err = cli(*fetch)
        assert code == 0 and "what is cached is used" in err


def test_a_file_that_may_have_changed_on_a_plain_web_server_is_fetched_again(cli, hub, checkpoint):
    address, held = f"{hub.url}/plain/tiny.safetensors", checkpoint.read_bytes()
    hub.files["plain"] = {"tiny.safetensors": held}
    shas = []
    for modified, fetched in (
        ("Mon, 01 Jan", 1),
        ("Mon, 01 Jan", 1),
        ("Tue, 02 Jan", 2),
        ("", 3),
        ("", 4),
    ):
        hub.modified = modified
        _, out, _ = cli("inspect", "--full", "--json", address, "--patch-nums", "1,2,4,8")
        assert len(hub.served) == fetched
        shas.append(json.loads(out)["file"]["sha256"])
        hub.files["plain"]["tiny.safetensors"] = held[:-1] + bytes([len(shas)])  # of the same size
    assert shas[0] == shas[1] and len(set(shas)) == 4


@pytest.mark.parametrize(
    "status, words",
    [
        (401, "no access (status 401)."),
        (403, "no access (status 403)."),
        (404, "no such file."),
        (429, "can't be reached: status 429. It is not in the cache"),
        (500, "can't be reached: status 500. It is not in the cache"),
        (None, "can't be reached: Cannot connect to host 127.0.0.1:1 ssl:default"),
    ],
)
def test_what_a_web_server_answers(cli, hub, status, words):
    hub.status = status
    url = f"{hub.url}/plain" if status else "http://127.0.0.1:1"
    code, _, err = cli("inspect", f"{url}/x.pt?signature=secret".replace("//", "//me:secret@"))
    assert code == 3 and last(err).startswith(f"error: {url}/x.pt: {words}") and "secret" not in err


def test_a_cache_that_can_not_be_written_to(cli, hub, checkpoint, monkeypatch):
    hub.files["plain"] = {"tiny.safetensors": checkpoint.read_bytes()}
    monkeypatch.setenv("XDG_CACHE_HOME", str(checkpoint))
    code, _, err = cli("inspect", f"{hub.url}/plain/tiny.safetensors")
    assert code == 3 and "can't be written to: Not a directory. Set XDG_CACHE_HOME" in last(err)


def test_a_download_that_breaks_off_is_no_checkpoint(cli, hub, checkpoint):
    hub.files["plain"] = {"tiny.safetensors": checkpoint.read_bytes()}
    hub.short.add("/plain/tiny.safetensors")
    for _ in range(2):
        code, _, err = cli("inspect", f"{hub.url}/plain/tiny.safetensors")
        assert code == 3 and ("can't be fetched" in last(err) or "expected" in last(err))
    hub.short.clear()
    assert "fetching" in cli("inspect", f"{hub.url}/plain/tiny.safetensors")[2]
    assert "fetching" not in cli("inspect", f"{hub.url}/plain/tiny.safetensors")[2]
    hub.files["plain"].clear()
    assert "no such file" in cli("inspect", f"{hub.url}/plain/tiny.safetensors")[2]
