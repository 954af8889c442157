"""README, the guide and help say what the program does: their commands run, and print what is shown."""

import re
import shutil
from pathlib import Path

import pytest
from rich.text import Text

from entropy_cli.commands.demo.cli import IMAGES, SEED, TOKENIZER
from entropy_cli.commands.guide.cli import PAGES, TOPICS
from entropy_cli.images.synthetic import write_image_folder
from tests import documents
from tests.documents import COMMANDS, DOCUMENTS, ROOT, WIDTH, blocks

pytestmark = pytest.mark.xdist_group("documents")  # they share what has run

README = DOCUMENTS[0].read_text()
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
MOST_README_LINES = 200
HEADLINE = (
    *("estimate", "--data", "build/demo/images", "--temperature", "auto"),
    *("--ckpt", "entropy_cli/assets/model.safetensors", "--output", "build/demo/result.json"),
)
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def outputs():
    """What commands have printed in this folder."""
    return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what a clone of the project has after `entropy-cli demo --output build/demo`."""
    root = tmp_path_factory.mktemp("documents")
    write_image_folder(root / "build/demo/images", IMAGES, size=36, seed=SEED)
    shutil.copytree(TOKENIZER.parent, root / "entropy_cli/assets")
    for name in ("logs", "scaling"):
        source = ROOT.parent / "shared" / name
        if source.is_dir():
            (root / name).symlink_to(source)
    return root


@pytest.fixture
def run(cli, folder, outputs, monkeypatch):
    """Run arguments of the program in that folder, once each; gives what a terminal shows."""
    monkeypatch.chdir(folder)

    def run(argv):
        key = tuple(argv)
        if key not in outputs:
            code, out, err = cli(*argv)
            failure = err.strip().splitlines()[-1:] if code not in (0, 4) else []
            text = "\n".join([*out.splitlines(), *failure]) + "\n"
            outputs[key] = text.replace(f"{folder.resolve()}/", "")
        return outputs[key]

    run(HEADLINE)
    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_in_the_readme_and_have_help_with_an_example(name):
    assert f"entropy-cli {name}" in README or f"`{name}`" in README
    assert "Example: entropy-cli" in COMMANDS[name].help


@each_document
def test_every_command_shown_is_one_that_the_program_accepts(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("result.json").touch()  # of fit --floor, which may also be a number
    for name, value in zip(("ID", "MIN", "MAX", "STEP", "COUNT"), (0, 0, 7, 1, 8), strict=True):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))  # for --shard slurm
    for block in blocks(document):
        assert block.kind in ("console", "sh", "python", "text", "csv", "json"), block
        for argv in documents.command_lines(block) if block.kind in ("console", "sh") else ():
            documents.parse(argv)


@each_document
def test_blocks_run_and_print_what_is_shown(document, run, folder, request):
    text, names = document.read_text(), {"__name__": document.stem}
    for block in blocks(document):
        if block.name:
            (folder / block.name).write_text(block.text)
        elif block.kind == "python":
            exec(compile(block.text, document.name, "exec"), names)
        for command, shown in documents.sessions(block) if block.kind == "console" else ():
            argv = documents.arguments(command.replace("\\\n", " "))
            if any(part.startswith(("logs/", "scaling/")) and not Path(part).exists() for part in argv):
                continue  # public files that are not part of the project
            printed = run(argv)
            if request.config.getoption("--update-docs") and not documents.is_same(shown, printed):
                new = documents.excerpt(shown, printed)
                text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n{new}")
                document.write_text(text)
                shown = new
            assert documents.is_same(shown, printed), f"$ {command}\n{printed}"


@pytest.mark.parametrize(
    "shown, same",
    [
        ("A: 1.9009 ± 0.0157\nT 2\n1.3 s, 40 images/s\n", True),
        ("A: 1.9010 ± 0.0156\n...\n9.0 s, 362.9 images/s\n", True),  # rounding, a gap, times
        ("A: 1.9509 ± 0.0157\n...\n", False),
        ("A: 1.9009 ± 0.0157\nT 3\n...\n", False),
        ("A: 1.9009 ± 0.0157\nT 2\n", False),
        ("B: 1.9009 ± 0.0157\n...\n", False),
        ("...\nT 2\n...\n", True),
        ("...\nT 4\n...\n", False),
    ],
)
def test_an_output_that_differs_is_noticed(shown, same):
    printed = "A: 1.9009 ± 0.0157\nT 2\n0.5 s, 1 images/s\n"
    assert documents.is_same(shown, printed) == same


def test_the_guide_lists_every_page_and_prints_it(cli):
    assert sorted(f"{topic}.md" for topic in TOPICS) == sorted(path.name for path in PAGES.iterdir())
    code, contents, _ = cli("guide")
    assert code == 0
    for topic, line in zip(TOPICS, contents.splitlines(), strict=False):
        code, page, _ = cli("guide", topic)
        assert code == 0 and page == (PAGES / f"{topic}.md").read_text()
        title = page.splitlines()[0].removeprefix("# ")
        assert line.split(maxsplit=1) == [topic, title] and len(line) <= WIDTH
    code, out, err = cli("guide", "nonsense")
    assert code == 2 and out == "" and all(topic in err for topic in TOPICS)


@pytest.mark.parametrize("width", [60, 80])
def test_a_terminal_shows_a_page_in_its_own_width(cli, monkeypatch, width):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    code, page, _ = cli("guide", "checkpoints")
    lines = [line.rstrip() for line in Text.from_ansi(page).plain.splitlines()]
    assert code == 0 and max(map(len, lines)) <= width
    if width == WIDTH:
        (block, *_) = blocks(PAGES / "checkpoints.md")
        assert block.text.rstrip() in "\n".join(lines)


@each_document
def test_documents_are_narrow_and_short(document):
    lines = document.read_text().splitlines()
    if document.stem == "README":
        assert len(lines) <= MOST_README_LINES
    for line in lines if document.parent == PAGES else ():
        assert len(line) <= WIDTH, line


@each_document
def test_links_resolve_and_every_page_is_linked_from_the_readme(document):
    for target in LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), target
    if document.parent == PAGES:
        assert f"({document.relative_to(ROOT)})" in README
