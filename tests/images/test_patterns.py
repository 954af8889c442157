"""Patterns of tars, as bash expands them."""

import subprocess

import pytest

from entropy_cli.images.patterns import expand_braces, expand_pattern

RANGES = ["v-{000..003}.tar", "{8..11}", "{08..11}", "{3..1}", "{0..10..4}", "{-1..01}", "{1..1}"]
STEPS = ["{5..1..2}", "{001..10..3}", "{a..e..2}", "{c..a}", "{0..3..0}", "{-05..5..5}"]
COMMAS = ["{a,b}{1,2}x{3..4}", "{a,{b,c}d,}e", "{{1..2},x}", "{,}", "{{a,b}}"]
LITERAL = [f"{{0..{'9' * 5000}}}", "{a}", "{}", "a{b", "a}b{c,d}", "{1..a}", "{1..2..x}", "{1...2}"]


@pytest.mark.parametrize("pattern", [*RANGES, *STEPS, *COMMAS, *LITERAL])
def test_braces_are_those_of_bash(pattern):
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' _{pattern}"], capture_output=True, check=True)
    assert [f"_{word}" for word in expand_braces(pattern)] == done.stdout.decode().split("\n")[:-1]


def test_a_file_of_that_very_name_is_no_pattern(tmp_path):
    for name in ("a{1,2}.tar", "[x].tar"):
        (tmp_path / name).touch()
        assert expand_pattern(str(tmp_path / name)) == [tmp_path / name]
    (tmp_path / ".hidden.tar").touch()
    assert len(expand_pattern(str(tmp_path / "*.tar"))) == 2
