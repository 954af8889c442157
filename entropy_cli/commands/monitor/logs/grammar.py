r"""The grammar of printed lines: pairs of a name and its values, a position, and what stands around.

A line is cut at its numbers. The text between them is its shape, and lines of one shape hold the same
pairs at the same places: a shape is parsed once, and each line costs one split.

    [05-10 20:37] => [Ep]: [   0/200]  [ 417/1669]  tnm: 0.08  Lm: 8.318 (8.318)
    step   10/100 | train loss 4.36 | lr 1e-4        (step=0000100) Train Loss: 8.12, Steps/Sec: 1.2
    [rank0]:2025-01-01 - root - INFO - step: 10  loss: 8.1  grad_norm: 1.5
    validation loss at iteration 3000 | lm loss value: 3.94E+00 |
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from entropy_cli.commands.monitor.logs.names import HELD_OUT, LEVELS, TRAINING, is_split, split_words

# A number outside of words such as top-5; float() has the last word. `ep12` and the like are a word and
# a number. The first character alone decides where to look closer, which keeps the search fast.
GLUED = "|".join(
    rf"(?<=\b(?i:{word}).)"
    for word in ("ep", "epoch", "step", "iter", "it", "ep-", "epoch-", "step-", "iter-", "iteration-")
)
NUMBER = re.compile(
    rf"([-+.\dnNiI](?:(?<![\w.@].)(?<![A-Za-z_]-.)|(?<=\d)(?:{GLUED}))(?:"
    r"(?:(?<=\d)|(?=\d)|(?<=[-+])(?=\.\d))\d*\.?\d*(?:[eE][-+]?\d+)?"
    r"|(?<=[nN])(?:an|aN|AN)(?![\w.])|(?<=[iI])(?:nf|NF)(?:inity)?(?![\w.])))"
)
EPOCHS = ("epoch", "ep")  # with or without an s
STEPS = ("step", "iter", "iteration", "it", "itr", "update", "batch")
# Words that may stand before a word of a position, and any may before the last two.
BEFORE = (
    HELD_OUT | TRAINING | LEVELS | {"global", "current", "trainer", "completed", "start", "end", "of"}
)
AT = {"at", "after"}
STOP_WORDS = (" the", " of", " on", " for")  # end no name: accuracy on the 10000 test images: 60%
NAME = re.compile(
    r"([A-Za-z_][\w.&@/+-]*(?: [A-Za-z_&][\w.&@/+-]*){0,5})"
    r"(?: ?\([A-Za-z/% ]{1,16}\))?[\"']?\]?\s*(?:[:=|]{1,2}\s*)?(?:tensor\(|[\"'\[(])?\s*[-+]?$"
)
UNIT = re.compile(r"^(?:%|ms|s|(?:it)?/s(?:/gpu)?|[kKMGT]i?B?)(?![\w.])")
# Before the second value of a name.
BRACKET = re.compile(r"^\s*\(\s*(?!best|min|max)(?:[a-z]+[ :=]*)?$", re.I)
LABEL = re.compile(r"([A-Za-z_][\w ]*?) ?[:-]\s*$")  # before the name of a split
LONE = re.compile(r"\] [\w/]+=")  # after a step: [100] loss=2.5
BARS = ("|", "━", "╸", "╺", "█")
COUNT = re.compile(r"it(?:/$| ?\[)")  # after the first number of a bar: 12it/100it, 12it [00:10
ASSIGNED = re.compile(r"[:=]\s*\[$")  # before a value in square brackets
FORMAT = re.compile(r"[defgEFG]\}")  # after the width of a number in the source of a program
PART = re.compile(r"[-+:.](?:\d|$)")  # after a number that is but a part of a time, a date or the like
LONGEST = 40  # characters of a number
THOUSANDS = re.compile(r"(?<=[ =/])\d{1,3}(?:,\d{3})+(?!\d)")  # 1,234,567; not 12:00:01,234
CODE = re.compile(r".*\bline\s*\d+\)\s*=>")  # where a line was printed from
WORD = re.compile(r"(?<![\w./-])[A-Za-z]+(?=_set\b|(?![\w/-]))")
RANK = re.compile(
    r"^\W*(?:(?:rank|default|worker|gpu)[ :_=]*(\d+)\]?:?|(\d+):(?= )|\[\d+,(\d+)\]<)", re.I
)
REACH = 120  # characters before a number in which its name is sought


def join_thousands(line: str) -> str:
    """Return a line without the commas in its large numbers.

    >>> join_thousands("12:00:01,234 step 1,000/20,000 [1,100] loss 2.5")
    '12:00:01,234 step 1000/20000 [1,100] loss 2.5'
    """
    return THOUSANDS.sub(lambda found: found[0].replace(",", ""), line)


def is_of_validation(text: str) -> bool:
    """Return whether words say that values beside them are of validation, and none of training.

    >>> is_of_validation("Test Error:"), is_of_validation("train and test:")
    (True, False)
    """
    words = set(WORD.findall(text.lower()))
    return bool(words & HELD_OUT) and not words & TRAINING


class Pair(NamedTuple):
    """A name and the indices of its values among the numbers of a line."""

    name: str
    values: list[int]
    second: list[int]  # the values in brackets
    is_val: bool  # whether the words around it say that it is of validation


class Shape(NamedTuple):
    """Say what the lines of one shape hold; indices are among the numbers of a line."""

    pairs: Sequence[Pair]
    epoch: int | None
    step: int | None
    is_test: bool | None  # whether it is of a test set beside validation; None if of a test set
    rank: str | None  # of the process that printed it


def parse_shape(parts: Sequence[str], steps: Iterable[str] = (), epochs: Iterable[str] = ()) -> Shape:
    """Parse a line that was cut at its numbers.

    Args:
        parts: texts and numbers in turn, as `NUMBER.split` returns them.
        steps: names of the position beyond the usual ones.
        epochs: the same.
    """
    line = "".join(parts)
    rank = RANK.match(line)
    begin = max([0, *(found.end() for found in (CODE.match(line), rank) if found)])
    parser = _Parser(parts, {*STEPS, *steps}, {*EPOCHS, *epochs}, begin)
    parser.parse()
    around = " ".join(parser.around).lower()
    is_val = is_of_validation(around)
    step = parser.step
    if step is None and not is_val:  # else it counts the batches of the validation
        step = parser.bar
    if step is None and parser.epoch is None and rank and rank[2]:  # 7: loss 2.5
        step = 0
    found = None if rank is None else next(filter(None, rank.groups()))
    pairs = [pair._replace(is_val=is_val or pair.is_val) for pair in parser.pairs]
    words = {*WORD.findall(around)}
    has_test = "test" in words and (bool(words & {"val", "valid", "validation"}) or None)
    return Shape(pairs, parser.epoch, step, has_test, found)


class _Parser:
    """Reads the numbers of a line from left to right."""

    def __init__(self, parts: Sequence[str], steps: set[str], epochs: set[str], begin: int) -> None:
        self.texts, self.numbers = parts[::2], parts[1::2]
        self.steps, self.epochs, self.begin = steps, epochs, begin
        self.pairs: list[Pair] = []
        self.epoch: int | None = None
        self.step: int | None = None
        self.bar: int | None = None  # a step without a name: in brackets, or of a progress bar
        self.around: list[str] = []  # texts that are no name of a value
        self.last: Pair | None = None  # which a further value may belong to
        self.name = ""  # of the next value: loss at step 7: 2.5, accuracy on the 100 images: 60%
        self.is_val = False  # whether the last words of a split are of validation
        self.total = False  # whether the last number was the total of the one before

    def parse(self) -> None:
        """Give each number its part."""
        at = 0
        for i, (text, number) in enumerate(zip(self.texts, self.numbers, strict=False)):
            at += len(text) + len(number)
            if at > self.begin:
                begin = max(0, self.begin - (at - len(text) - len(number)))
                self._take(i, text[begin:], self.texts[i + 1])
        self.around.append(self.texts[-1])

    def _take(self, i: int, before: str, after: str) -> None:
        short = before.strip()
        if short in ("/", "it/") and i:
            self.total = True
            return
        if self.total and self.last and (short == "=" or (short == "(" and after.startswith("%"))):
            self.last.values[-1:] = [i]  # 2050/10042=0.2450, 9010/10000 (90%)
        elif self.last and BRACKET.match(before) and after.startswith(")"):
            self.last.second.append(i)
        elif self.last and not short and before:
            self.last.values.append(i)
        elif not FORMAT.match(after) and not self._is_place(i, before, after):
            self._name(i, before, after)
        self.total = False

    def _is_place(self, i: int, before: str, after: str) -> bool:
        """Take a number in brackets, at the start of a line or in a bar as a position."""
        if not self.numbers[i].isdecimal():
            return False
        opens, end = before.rstrip().endswith("["), after.lstrip()[:1]
        named = NAME.search(UNIT.sub("", before)[-REACH:])
        if named and opens and end == "/" and is_split(named[1]):  # Test: [ 10/48]
            named = None
        is_part = after.startswith("/") and self.texts[i + 2 :][:1] not in ([], ["/"])  # not of a date
        is_next = self.epoch is not None and self.epoch == i - 1
        if is_next and (before.strip(), end) in ((",", "]"), (":", "/")):  # [1,   10] epoch 1:  10 / 50
            self.step = i if self.step is None else self.step
        elif self._is_bar(i, before, after, named=named is not None) or (
            named is None and opens and (is_part or (self.epoch is not None and end == "]"))
        ):
            if self.bar is not None and self.epoch is None and not before.strip(" \t]["):
                self.epoch, self.bar = self.bar, i  # [3/10][20/50]
            self.bar = i if self.bar is None else self.bar
        elif named is None and opens and end == "," and i + 1 < len(self.numbers):
            self.epoch = i if self.epoch is None else self.epoch
        else:
            return False
        self.last = None
        self.around.append(before)
        return True

    def _is_bar(self, i: int, before: str, after: str, *, named: bool) -> bool:
        """Return whether a number counts steps in a progress bar, or at the start of a line."""
        has_total = after.startswith("/")
        if i or before.strip():
            is_behind = has_total and before.rstrip().endswith(BARS)
            is_lone = before.endswith("[") and bool(LONE.match(after))
            return (not named and (is_behind or is_lone)) or bool(COUNT.match(after))
        rest = self.texts[i + 2] if has_total and i + 2 < len(self.texts) else after
        is_word = has_total or rest.strip(" |:-")[:1].isalpha()
        return rest[:1] in (" ", ":") and bool(rest.strip()) and is_word

    def _name(self, i: int, before: str, after: str) -> None:
        """Take a number as the position or the value that the text before it names."""
        text = (UNIT.sub("", before) if i else before)[-REACH:]
        named = NAME.search(text)
        carried, self.name, self.last = self.name, "", None
        if named is None and (not carried or before.strip(" -:=")):
            self._surround(before)
            return
        name = carried if named is None else named[1]
        if named and carried.endswith(STOP_WORDS):
            name = f"{carried} {name}"
        start = named.start() if named else 0
        if named and self._is_position(i, name, (text[:start], text[start:], after)):
            self.around.append(before)
            return
        is_part = before.rstrip().endswith("[") and not (ASSIGNED.search(before) and after[:1] == "]")
        if (
            is_part
            or PART.match(after)
            or len(self.numbers[i]) > LONGEST
            or (after.startswith(")") and is_split(name))
        ):  # (val 50000)
            self._surround(before)
            return
        if name.endswith(STOP_WORDS):
            self.name = name
            self._surround(before)
            return
        self._surround(text[:start])
        self.last = Pair(self._of_split(name, text[:start]), [i], [], self.is_val)
        self.pairs.append(self.last)

    def _is_position(self, i: int, name: str, around: tuple[str, str, str]) -> bool:
        """Take a number as a position if it is named as one, and a whole number for a step.

        `around` are the texts before and from its name, and after the number.
        """
        above, text, after = around
        *words, last = split_words(name.replace("_", " ")) or [""]
        last = last.removesuffix("s")
        names = {name, name.lower()}
        is_at = bool({*words[-1:]} & AT)
        is_usual = last in (*EPOCHS, *STEPS) and (is_at or not {*words} - BEFORE)
        is_epoch = bool(names & self.epochs) or (not names & self.steps and last in EPOCHS)
        is_whole = self.numbers[i].removesuffix(".0").isdecimal()
        if not (is_usual or names & (self.steps | self.epochs)) or not (is_whole or is_epoch):
            return False
        if is_at:  # loss at step 7: 2.5, loss (of a batch) at step 7: 2.5
            named = NAME.search(above)
            self.name = " ".join(name.split()[:-2]) or (named[1] if named else "")
        is_count = not is_at and after.lstrip()[:1] == "/" and HELD_OUT & {*split_words(text)}
        if is_epoch and self.epoch is None:
            self.epoch = i
        elif not is_epoch and self.step is None and not is_count and not after.startswith("%"):
            self.step = i  # none of the batches of an evaluation: Iter(val) [11/11]
        return True

    def _of_split(self, name: str, before: str) -> str:
        """Return a name with what it is a split of: Loss: train 2.1, val 2.2; loss train 2.1, val 2."""
        if not is_split(name):
            return name
        label = LABEL.search(before)
        if label:
            return f"{label[1]} {name}"
        twin = self.pairs[-1].name if self.pairs else ""
        other = re.sub(r"(?i)train(?:ing)?", name, twin)
        return name if other == twin else other

    def _surround(self, text: str) -> None:
        """Note a text that is no name of a value."""
        self.around.append(text)
        for word in WORD.findall(text.lower()):
            self.is_val = (self.is_val or word in HELD_OUT) and word not in TRAINING
