"""The grammar of printed lines, and logs of programs that have no dialect."""

import json

import pytest

from entropy_cli.commands.monitor.logs.grammar import NUMBER, parse_shape
from entropy_cli.commands.monitor.logs.read import read_log
from entropy_cli.core.errors import LogError
from tests.training_logs import values


def parse(line):
    """Epoch, step, and the values by name, those in brackets at the end."""
    parts = NUMBER.split(line)
    shape, numbers = parse_shape(parts), parts[1::2]
    place = [None if i is None else float(numbers[i]) for i in (shape.epoch, shape.step)]
    pairs = {one.name: [float(numbers[i]) for i in (*one.values, *one.second)] for one in shape.pairs}
    return (*place, pairs)


LINES = {
    "step 300/1000: loss 2.5": (None, 300, {"loss": [2.5]}),
    "[ep 3/250] [it 20/1667] loss=2.5 (avg 2.6)": (3, 20, {"loss": [2.5, 2.6]}),
    "iter 300: loss 2.5, time 9.5ms, mfu 1.5%": (
        None,
        300,
        {"loss": [2.5], "time": [9.5], "mfu": [1.5]},
    ),
    "epoch: 3 | loss: 2.5 | lr 1e-4": (3, None, {"loss": [2.5], "lr": [1e-4]}),
    "Epoch [3/10], Step [20/100], Loss: 0.5(0.25)": (3, 20, {"Loss": [0.5, 0.25]}),
    "2024-05-01 10:00:00,123 - root - INFO - step:  7  loss:  2.5": (None, 7, {"loss": [2.5]}),
    "[2024/01/01 00:00:00] INFO: [Train][Epoch 1/120][Iter: 5/50]lr(Warmup): 0.5, CELoss: 2.5": (
        1,
        5,
        {"lr": [0.5], "CELoss": [2.5]},
    ),
    "[rank3]: {'loss': 2.5, \"step\": 7}": (None, 7, {"loss": [2.5]}),
    "[1,3]<stdout>:step 7 loss 2.5": (None, 7, {"loss": [2.5]}),
    "Epoch 3:  10%|#   | 30/300 [00:10<01:30, loss=2.5]": (3, 30, {"loss": [2.5]}),
    "step 7 loss nan grad -inf": (None, 7, {}),
    "accuracy: 2050/8200=0.25": (None, None, {"accuracy": [0.25]}),
    "step 7 Accuracy: 9010/10000 (90.1%)": (None, 7, {"Accuracy": [90.1]}),
    "step=[7/100] | loss=[2.5] | sizes: [1, 2]": (None, 7, {"loss": [2.5]}),
    "epoch 3 val loss 2.5 (best 2.25)": (3, None, {"val loss": [2.5]}),
    "loss: tensor(2.5, device='cuda:0')": (None, None, {"loss": [2.5]}),
    "print(f'{step:5d} loss:{loss:.4f}')": (None, None, {}),
    "epoch 3 loss 2.5 eta: 1:02:03 z: 1+2j": (3, None, {"loss": [2.5], "eta": None, "z": None}),
    "eval metrics after step: 7, loss=2.5": (None, 7, {"loss": [2.5]}),
    "7 train 2.5": (None, 7, {"train": [2.5]}),
    "seen 3d shapes, fp16, l2 and top1 of 5 layers": (None, None, {}),
    "[3/10][20/50] loss_G: 2.5": (3, 20, {"loss_G": [2.5]}),
    "epoch 003:     20 / 450 loss=2.5, wps=1.5": (3, 20, {"loss": [2.5]}),
    "Epoch: 3 [ 20/50] Batch (t): 0.5, 9.5/s/gpu LR: 1e-4": (3, 20, {"LR": [1e-4]}),
    "train/loss_step=7 step=3": (None, 3, {"train/loss_step": [7]}),
    "Epoch 3, top-1: 60.5 accuracy_top-5: 80.5": (3, None, {"top-1": [60.5], "accuracy_top-5": [80.5]}),
    "epoch 3 loss train: 2.5, val: 2.6": (3, None, {"loss train": [2.5], "loss val": [2.6]}),
    "epoch 3 Loss: train 2.5, val 2.6": (3, None, {"Loss train": [2.5], "Loss val": [2.6]}),
    "Accuracy of the net on the 50000 images: 60.5%": (
        None,
        None,
        {"Accuracy of the net on the images": [60.5]},
    ),
    "saved 7 files at step 3: 2.5": (None, 3, {"files": [2.5]}),
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_a_position_and_pairs(line):
    epoch, step, pairs = LINES[line]
    found = parse(line)
    assert found[:2] == (epoch, step)
    assert {name: found[2].get(name) for name in pairs} == pairs


@pytest.fixture
def read(tmp_path):
    def run(text, loss_name=None, **more):
        path = tmp_path / "log"
        path.write_text(text)
        return read_log(path, "auto", loss_name, **more)

    return run


# Of other programs: what they print at the start of an epoch, at a step, and of an evaluation; the names
# of both losses; and whether steps are counted in the epoch.
OTHERS = {
    "Composer": (
        "",
        "[batch={n}/3200]:\n\t Train loss/train/total: {loss}",
        "[Eval batch=1/10] on data\n[Eval batch=10/10] on data:\n\t Eval metrics/eval/ce: {val}",
        ("Train loss/train/total", "Eval metrics/eval/ce"),
        False,
    ),
    "Keras": (
        "Epoch {e}/2",
        "{s:3d}/100 [=====>.....] - ETA: 1s - loss: {loss} - accuracy: 0.5",
        "100/100 [==========] - 1s 10ms/step - loss: {loss} - val_loss: {val}",
        ("loss", "val_loss"),
        True,
    ),
    "Keras 3": (
        "Epoch {e}/2",
        "{s:3d}/100 ━━━━━━━━━ 1s 10ms/step - loss: {loss}",
        "100/100 ━━━━━━━━━ 1s 10ms/step - loss: {loss} - val_loss: {val}",
        ("loss", "val_loss"),
        True,
    ),
    "Keras's guide": (
        "Start of epoch {e}",
        "Training loss (for one batch) at step {s}: {loss}",
        "Validation loss: {val}",
        ("Training loss", "Validation loss"),
        True,
    ),
    "OpenCLIP": (
        "",
        "INFO | Train Epoch: {e} [ {s}/1000 (1%)] Batch (t): 0.5, 1.5/s/gpu LR: 0.1 Loss: {loss} (9)",
        "INFO | Eval Epoch: {e} [{s} / 100] val_loss: {val}",
        ("Loss", "val_loss"),
        True,
    ),
    "Lightning": (
        "",
        "Epoch {e}:  10%|#  | {s}/100 [01:00<09:00, 1.60it/s, v_num=0, train_loss_step={loss}]",
        "Epoch {e}: 100%|#  | 100/100 [01:00<09:00, 1.60it/s, v_num=0, val_loss={val}]",
        ("train_loss_step", "val_loss"),
        True,
    ),
    "Swin": (
        "",
        "[2021-04-01 10:00:00 s] (main.py 178): INFO Train: [{e}/300][{s}/1251]\tloss {loss} (9.5)",
        "[2021-04-01 10:00:00 s] (main.py 226): INFO Test: [9/9]\tLoss 9.5 ({val})",
        ("loss", "Loss"),
        True,
    ),
    "word_language_model": (
        "",
        "| epoch {e:3d} | {s:5d}/ 2983 batches | lr 20.00 | ms/batch 12.34 | loss {loss}",
        "| end of epoch {e:3d} | time: 50.12s | valid loss {val} | valid ppl 9.5",
        ("loss", "valid loss"),
        True,
    ),
    "diffusers": (
        "",
        "Steps:   1%|#  | {n}/4000 [00:10<10:00,  3.00it/s, loss={loss}, lr=0.0001]",
        "step {n} validation loss {val}",
        ("loss", "validation loss"),
        False,
    ),
    "Levanter": (
        "",
        "Progress on:train {n}it/100it rate:1.2it/s remaining:01:00 postfix:loss={loss}",
        "eval loss: {val}",
        ("loss", "eval loss"),
        False,
    ),
    "LitGPT": (
        "",
        "Epoch 1 | iter {n} step 3 | loss train: {loss}, val: n/a | iter time: 9.5 ms",
        "iter {n}: val loss {val}, val time: 9.5 ms",
        ("loss train", "val loss"),
        False,
    ),
    "CLU": (
        "",
        "I0101 10:00:00.1 139 logging_writer.py:48] [{n}] accuracy=0.1, loss={loss}",
        "I0101 10:00:00.1 139 logging_writer.py:48] [{n}] eval_loss={val}",
        ("loss", "eval_loss"),
        False,
    ),
    "MMEngine": (
        "",
        "06/13 14:04:01 - mmengine - INFO - Iter(train) [{n:5d}/2000]  time: 0.5  loss: {loss}",
        "06/13 14:04:01 - mmengine - INFO - Iter(val) [9/9]    loss: {val}",
        ("loss", "loss"),
        False,
    ),
    "ERNIE": (
        "",
        "epoch: 1, progress: 1/1, step: {n}, loss: {loss}, ppl: 9.5",
        "[validation_set] epoch: 1, step: {n}, loss: {val}, ppl: 9.5",
        ("loss", "loss"),
        False,
    ),
    "MaxText": (
        "",
        "completed step: {n}, seconds: 0.5, Tokens/s/device: 9.5, total_weights: 9, loss: {loss}",
        "eval metrics after step: {n}, loss={val}, total_weights=9.0",
        ("loss", "loss"),
        False,
    ),
    "a number first": (
        "",
        "{n}: loss: {loss}\n{n}: saved to ./out",
        "{n}: valid loss: {val}",
        ("loss", "valid loss"),
        False,
    ),
    "splits alone": (
        "",
        "step {n} | train {loss} | 3 samples, test 9.5s",
        "step {n} | val {val}",
        ("train loss", "val loss"),
        False,
    ),
    "a dict behind a step": (
        "",
        "step {n}: {{'loss': {loss}}}",
        "step {n}: {{'val_loss': {val}}}",
        ("loss", "val_loss"),
        False,
    ),
    "other lines of a step": (
        "",
        "step {n} loss {loss}\nsaved a checkpoint at step {n} (loss 1.5)",
        "best val_loss: 1.5\nval_loss {val}",
        ("loss", "val_loss"),
        False,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_lines_of_programs_without_a_dialect(read, name):
    head, line, evaluation, (loss, val_loss), in_epoch = OTHERS[name]
    text, losses, vals = "", [9 - i / 4 for i in range(8)], [7.5, 6.5]
    for i, value in enumerate(losses):
        place = {"e": 1 + i // 4, "s": 25 * (i % 4) + 25, "n": 10 * i + 10}
        text += f"{head}\n".format(**place) if head and i % 4 == 0 else ""
        text += f"{line}\n".format(loss=value, **place)
        if i % 4 == 3:
            text += f"{evaluation}\n".format(loss=value, val=vals[i // 4], **place)
    log = read(text)
    assert (log.segments, log.left_out) == (1, 0)
    assert (values(log, loss), values(log, val_loss, "val")) == (losses, vals)
    expected = {"epoch": 2.0, "step": 100.0} if in_epoch else {"step": 80.0}
    assert expected.items() <= log.find(loss).at(-1).items()


def test_values_of_an_evaluation_that_are_written_again_and_again_count_once(read):
    rows = [f"step {i} | train_loss {9 - i} | val_loss {8 - i // 3} | val_acc 0.5\n" for i in range(9)]
    log = read("".join(rows))
    val = log.find("val_loss", "val")
    assert (val.value_n.tolist(), val.step_n.tolist()) == ([8, 7, 6], [0, 3, 6])
    assert (len(log.find("train_loss")), values(log, "val_acc", "val")) == (9, [0.5])


@pytest.mark.parametrize("part", [1, 0.01])
def test_rows_of_an_epoch_without_steps_are_counted(read, part):
    rows = [f"{{'loss': {9 - i}, 'epoch': {i // 4 * part}}}\n" for i in range(9)]
    rows[4:4] = ["{'eval_loss': 5.5, 'epoch': 0}\n"]
    log = read("".join(rows))
    loss = log.find("loss")
    assert (loss.value_n.tolist(), loss.at(5)) == ([9 - i for i in range(9)], {"epoch": part, "step": 1})
    assert (loss.position_n[1:] > loss.position_n[:-1]).all()
    assert log.find("eval_loss", "val").at(0) == {"epoch": 0, "step": 4}


@pytest.mark.parametrize("cells", ["nan,9,nan,8,nan,nan,7,nan", "nan,nan,9,9,9,8,8,8,7,7,7"])
def test_cells_of_validation_that_are_nan_where_there_was_none_are_left_out(read, cells):
    rows = [f"{i},{9.5 - i},{cell}\n" for i, cell in enumerate(cells.split(","))]
    log = read("step,train_loss,val_loss\n" + "".join(rows))
    val = log.find("val_loss", "val")
    assert (val.value_n.tolist(), val.nonfinite) == ([9, 8, 7], 0)


def test_a_line_behind_a_validation_belongs_to_it(read):
    of = (
        "Epoch {0} loss {1}\nTest: [ 9/9] Loss 9.5 ({1}) Acc@1 50.0 (6{0}.0)\n * Acc@1 6{0}.5 loss {1}\n"
    )
    log = read("".join(of.format(e, 4.5 - e) for e in range(4)))
    assert (values(log, "loss"), values(log, "loss", "val")) == ([4.5, 3.5, 2.5, 1.5],) * 2
    assert values(log, "Acc@1", "val") == [60.5, 61.5, 62.5, 63.5]


@pytest.mark.parametrize("best_first", [True, False])
def test_of_the_best_and_the_current_loss_of_forks_the_current_one_is_read(read, best_first):
    losses, text = [9.0, 8.5, 8.25, 8.5, 8.75], ""
    for e, value in enumerate(losses):
        both = min(losses[: e + 1]), value
        first, second = both if best_first else both[::-1]
        text += f"[Ep]: [ {e}/9]  [ 0/835]  eta: 0:01  Lm: 9.5 (9.5)  Lt: 9.5 (9.5)\n"
        text += f"[EP{e}]  (training)  Lm: {first} ({second}), Lt: {first} ({second})\n"
        text += f"[EP{e}]  (validating 50000)  Lm: {value + 1}, Lt: {value}\n"
    log = read(text)
    assert (log.format, values(log, "Lm"), values(log, "Lt")) == ("var", losses, losses)
    assert values(log, "Lm", "val") == [value + 1 for value in losses]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "document",
    [
        {"lr": 0.1, "history": [{"epoch": i, "loss": 4.5 - i, "val_loss": 5.5 - i} for i in range(4)]},
        {"lr": [0.1], "history": {"loss": [4.5, 3.5, 2.5, 1.5], "val_loss": [5.5, 4.5, 3.5, 2.5]}},
    ],
)
def test_documents_with_a_history_somewhere(read, document, indent):
    log = read(json.dumps(document, indent=indent))
    found = {one.metric.name.rpartition("/")[2]: one.value_n.tolist() for one in log.series}
    assert (found["loss"], found["val_loss"]) == ([4.5, 3.5, 2.5, 1.5], [5.5, 4.5, 3.5, 2.5])


def test_rows_of_validation_with_their_own_count_of_batches(read):
    rows = [{"env": "x"}]
    for e in (1, 2, 3):
        rows += [{"mode": "train", "epoch": e, "iter": i, "loss": 9 - e - i / 8} for i in (1, 2, 3, 4)]
        rows += [{"mode": "val", "epoch": e, "iter": 2, "loss": 9.5 - e}]
    log = read("".join(json.dumps(row) + "\n" for row in rows))
    assert (log.segments, len(log.find("loss")), values(log, "loss", "val")) == (1, 12, [8.5, 7.5, 6.5])


def test_tokens_in_millions_are_no_count(read):
    log = read("".join(f"step {i} | loss 2.5 | Tokens: {i}.5M | seen_tokens: {i}\n" for i in range(4)))
    assert [one.metric.name for one in log.series if one.metric.kind == "tokens"] == ["seen_tokens"]


def test_without_a_dialect_the_likeliest_loss_is_said(read):
    log = read("".join(f"step {i} | main loss {3 - i / 8} | other loss 1.0\n" for i in range(8)))
    assert log.format == "text"
    assert values(log, "main loss") == [3 - i / 8 for i in range(8)]
    (note,) = log.notes
    assert note.startswith("no known program's log: main loss (of main loss, other loss) is likely")
    chosen = read("step 1 a 2.0\nstep 2 a 1.0\nstep 3 a 0.5\n", "a")
    assert (values(chosen, "a"), chosen.notes) == ([2.0, 1.0, 0.5], [])


def test_values_without_a_position_belong_to_the_one_before(read):
    log = read(
        "validation loss 9.0\nstep 1 loss 8.0\nstep 2 loss 7.0\nvalidation loss 7.5\nstep 3 loss 6.0\n"
    )
    val = log.find("validation loss", "val")
    assert (val.value_n.tolist(), val.step_n.tolist()) == ([9.0, 7.5], [0, 2])


def test_epochs_of_lines_above_count_where_steps_start_over(read):
    text = "".join(
        f"== Epoch {e} ==\n" + "".join(f"batch {i}/9 loss {9 - e - i / 10}\n" for i in range(1, 9 - e))
        for e in range(1, 4)
    )
    log = read(text)
    assert (log.segments, len(log.find("loss"))) == (1, 7 + 6 + 5)
    assert log.find("loss").at(-1) == {"epoch": 3.0, "step": 5.0}


def test_lines_with_an_epoch_of_their_own_stand_beside_those_below_one(read):
    lines = ["step 0 val_loss 9.0"]
    for e in range(1, 5):
        steps = range(0, 70 + 10 * (e % 3), 10)
        lines += [f"Epoch {e}/4", *(f"  step {i}: loss {9 - e - i / 100}" for i in steps)]
        lines += [f"Epoch {e} done: train_loss {8.5 - e} val_loss {8.75 - e}"]
    log = read("\n".join(lines) + "\n")
    assert (log.segments, log.left_out, len(log.find("loss"))) == (1, 0, 8 + 9 + 7 + 8)
    assert log.find("loss").at(-1) == {"epoch": 4.0, "step": 70.0}
    assert values(log, "train_loss") == [7.5, 6.5, 5.5, 4.5]
    val = log.find("val_loss", "val")
    assert (val.value_n.tolist(), val.initial) == ([7.75, 6.75, 5.75, 4.75], 9.0)


def test_batches_of_a_validation_are_no_steps(read):
    log = read(
        "".join(
            f"Epoch(train) [{e}][50/100] loss: {4 - e}\nEpoch(val) [{e}][10/10] loss: {4.5 - e}\n"
            for e in range(1, 4)
        )
    )
    assert (log.segments, values(log, "loss", "val")) == (1, [3.5, 2.5, 1.5])


def test_means_of_all_tokens_and_of_the_final_scale_are_known_by_name_in_any_log(read):
    head, row = "epoch,L_mean,train/L_tail,val_L_mean,vL_tail\n", "{},6.0,5.0,6.25,5.25\n"
    log = read(head + "".join(map(row.format, range(4))))
    assert [(one.metric.split, one.metric.scope, one.metric.kind) for one in log.series] == [
        ("train", "mean", "cross_entropy"),
        ("train", "last", "cross_entropy"),
        ("val", "mean", "cross_entropy"),
        ("val", "last", "cross_entropy"),
    ]


def test_large_numbers_may_have_commas(read):
    lines = [
        f"step {i * 500:,}/10,000 | loss: {9 - i} | {i * 400_000:,} tokens, [1,100]\n" for i in range(6)
    ]
    loss = read("".join(lines)).find("loss")
    assert (loss.value_n.tolist(), loss.step_n.tolist()) == (
        [9, 8, 7, 6, 5, 4],
        [0, 500, 1000, 1500, 2000, 2500],
    )
    cut = read("".join(lines) + "step 3,000/10,000 | loss: 3.5").find("loss")
    assert cut.step_n.tolist()[:6] == loss.step_n.tolist()


def test_a_line_may_hold_training_and_validation(read):
    row = "epoch {0} | train: loss={1} acc=0.5 | val: loss={2} acc=0.25\n"
    log = read("".join(row.format(i, 4 - i, 4.5 - i) for i in range(4)))
    assert (values(log, "loss"), values(log, "acc")) == ([4, 3, 2, 1], [0.5] * 4)
    assert (values(log, "loss", "val"), values(log, "acc", "val")) == ([4.5, 3.5, 2.5, 1.5], [0.25] * 4)


def test_a_title_says_that_lines_below_are_of_validation(read):
    rows = [
        f"Epoch {i}\nloss: {4 - i} [64/100]\nTest Error:\n Accuracy: 0.5, loss: {4.5 - i}\n\n"
        for i in range(4)
    ]
    log = read("".join(rows))
    assert (values(log, "loss"), values(log, "loss", "val")) == ([4, 3, 2, 1], [4.5, 3.5, 2.5, 1.5])
    assert values(log, "Accuracy", "val") == [0.5] * 4


def test_an_accuracy_behind_a_validation_loss_is_of_validation(read):
    of = "Epoch {0}/3\ntrain Loss: {1} Acc: 0.5\nval Loss: {2} Acc: 0.25\n"
    log = read("".join(of.format(i, 4 - i, 4.5 - i) for i in range(4)))
    assert (values(log, "Acc"), values(log, "Acc", "val")) == ([0.5] * 4, [0.25] * 4)
    assert len(log.notes) == 1


def test_values_that_can_not_be_placed_are_counted(read):
    log = read("".join(f"Epoch {e}\nloss {4 - e}.5\nloss {4 - e}.25\n" for e in range(3)))
    assert values(log, "loss") == [4.5, 3.5, 2.5]
    assert any(note.startswith("3 values left out: their lines have neither step") for note in log.notes)


def test_a_test_set_is_none_of_validation(read):
    of = "validation loss at iteration {} on {} set | lm loss value: {} | lm loss PPL: 7.5 |\n"
    text = "".join(of.format(i, "validation", 5.5 - i) for i in range(4))
    log = read(text + of.format(3, "test", 2.75))
    assert values(log, "lm loss value", "val") == [5.5, 4.5, 3.5, 2.5]
    assert values(log, "lm loss value, test set", "val") == [2.75]


def test_lines_of_other_ranks_are_left_out(read):
    lines = [f"[rank{r}]: step {i} loss {9 - i}.{r}\n" for i in range(6) for r in (1, 0, 2)]
    log = read("".join(lines))
    assert values(log, "loss") == [9.1 - i for i in range(6)]
    assert "3 ranks print the same lines: those of rank 1 are read" in log.notes
    without_names = [f"step {i} loss {9 - i}\n" for i in (0, 0, 1, 0, 1, 1, 2, 2, 2, 3, 3, 3)]
    log = read("".join(without_names))
    assert (log.segments, log.left_out, values(log, "loss")) == (1, 0, [9, 8, 7, 6])


def test_a_head_that_lost_its_line_feed(read):
    log = read("epoch,loss,acc1,0.5,0.1\n2,0.4,0.2\n3,0.3,0.3\n")
    assert values(log, "loss") == [0.5, 0.4, 0.3]
    assert values(log, "acc") == [0.1, 0.2, 0.3]
    assert log.notes == ["the head and the first row share a line: cut between acc and 1"]


def test_a_table_of_runs_is_no_curve(read):
    rows = "".join(f'"run {i}","finished","{5000}","{1 / (i + 1)}"\n' for i in range(5))
    with pytest.raises(LogError, match=r"a table of 5 runs, one row each by Name: no curve"):
        read('"Name","State","_step","train/loss"\n' + rows)


@pytest.mark.parametrize(
    ("head", "row"),
    [
        ("| step |   train loss |\n|-----:|-------------:|\n", "| {:4d} | {:12.4f} |\n"),
        ("+----+-----+\n|step|loss |\n+----+-----+\n", "|{:4d}|{:5.3f}|\n"),
        ("step    loss\n", "{:4d}  {:6.4f}\n"),
    ],
)
def test_tables_as_they_are_printed(read, head, row):
    log = read(head + "".join(row.format(i, 4 - i / 8) for i in range(9)))
    (loss,) = log.series
    assert (log.format, log.unreadable) == ("csv", 0)
    assert (loss.value_n.tolist(), loss.step_n.tolist()) == ([4 - i / 8 for i in range(9)], [*range(9)])


@pytest.mark.parametrize(
    "head, row, what",
    [
        ("model,epoch,loss,acc\n", "{},{},{},0.5\n", "a table"),
        ("", '{{"model": "{}", "step": {}, "loss": {}}}\n', "records"),
    ],
    ids=["table", "records"],
)
def test_curves_of_several_runs_are_no_curve(read, head, row, what):
    one, other = ([row.format(run, i, 4 - i / 8) for i in range(9)] for run in ("gpt-s", "gpt-m"))
    for text in (one + other, [line for pair in zip(one, other, strict=True) for line in pair]):
        with pytest.raises(LogError, match=rf"{what} of 2 runs by model \(gpt-s, gpt-m\), expected one"):
            read(head + "".join(text))
    assert len(read(head + "".join([*one, row.format("", 9, 2)])).find("loss")) == 10


def test_a_record_of_another_model_is_no_run(read):
    rows = [{"model": "gpt", "step": i, "loss": 4 - i / 8} for i in range(9)]
    rows += [{"model": name} for name in ("best.pt", "best.pt")] + [{"model": "ema", "test_loss": 2.5}]
    assert len(read("".join(json.dumps(row) + "\n" for row in rows)).find("loss")) == 9


def test_bits_per_byte_have_no_floor(read):
    log = read("".join(json.dumps({"step": i, "val_bpb": 1.5 - i / 8}) + "\n" for i in range(4)))
    (one,) = log.series
    assert (one.metric.kind, one.metric.unit, one.metric.has_floor) == (
        "cross_entropy",
        "bits per byte",
        False,
    )


def test_parts_of_a_tokenizers_loss_are_no_cross_entropies(read):
    log = read("".join(f"step {i} nll_loss 0.5 disc_loss 1.0 loss 2.0 q_loss 0.1\n" for i in range(9)))
    found = {one.metric.name: (one.metric.target, one.metric.has_floor) for one in log.series}
    assert found == {
        "nll_loss": ("pixels", False),
        "disc_loss": ("adversary", False),
        "loss": ("sum", False),
        "q_loss": ("codebook", False),
    }
    assert all(one.metric.kind != "cross_entropy" for one in log.series)


def test_bits_per_dimension_and_parts_in_a_trainers_log_are_of_pixels_and_features(read):
    log = read("".join(f"step {i} val_bpd {3 - i / 8} nll_px 0.5 bits/dim: 3.5\n" for i in range(9)))
    assert {one.metric.target for one in log.series} == {"pixels"}
    history = [{"step": i, "loss": 2.0, "mse_loss": 0.5, "lpips_loss": 0.25} for i in range(9)]
    state = read(json.dumps({"log_history": history}, indent=1))
    assert [one.metric.target for one in state.series] == ["sum", "pixels", "perception"]
    assert not any(one.metric.kind == "cross_entropy" for one in [*log.series, *state.series])


def test_everything_with_a_name_is_listed(cli, tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"step {i} loss {3 - i / 8} lr 0.5 speed {i}.5\n" for i in range(4)))
    code, out, _ = cli("monitor", path, "--list", "--json")
    listing = json.loads(out)
    assert (code, listing["schema"], listing["format"]) == (0, "entropy-cli/monitor-list", "text")
    assert [
        (one["name"], one["kind"], one["points"], one["first"], one["last"]) for one in listing["series"]
    ] == [
        ("loss", "loss", 4, 3.0, 2.625),
        ("lr", "learning_rate", 4, 0.5, 0.5),
        ("speed", "other", 4, 0.5, 3.5),
    ]
    code, out, _ = cli("monitor", path, "--list")
    assert code == 0 and "speed" in out and "learning-rate" in out


CASES = {
    "build_nanogpt_stdout": {("train loss", "train"): (300, 10.116836, 3.890239)},
    "megatron_stdout": {
        ("lm loss", "train"): (300, 10.11684, 3.890239),
        ("grad norm", "train"): (300, 1.477, 1.288),
        ("validation loss", "val"): (6, 4.796702, 3.940239),
    },
    "mingpt_stdout": {("train loss", "train"): (200, 2.80874, 1.66487)},
    "nanogpt_with_ppl": {
        ("train loss", "train"): (11, 4.2, 1.4036),
        ("val loss", "val"): (11, 4.3, 2.0036),
        ("loss", "train"): (201, 4.1852, 1.415),
    },
    "infinity_stdout": {("Lm", "train"): (12, 0.608, 0.363), ("Lt", "train"): (12, 0.508, 0.263)},
    "var_fork_no_brackets": {("Lm", "train"): (24, 7.999, 6.247), ("Lm", "val"): (24, 7.999, 6.2465)},
    "head_glued_to_first_row": {("loss", "train"): (299, 1.57e-3, 1.511711e-3)},
}


@pytest.mark.parametrize("name", CASES)
def test_logs_that_could_not_be_read_once(shared, name):
    folder = shared / "cases" / name
    (path,) = (file for file in folder.iterdir() if file.name not in ("cmd.txt", "expect.txt"))
    log = read_log(path)
    for (series, split), (points, first, last) in CASES[name].items():
        found = log.find(series, split)
        assert (len(found), found.value_n[0], found.value_n[-1]) == (points, first, last)


def test_a_diffusion_model_is_not_taken_for_one_of_codes(shared):
    (one,) = read_log(shared / "cases" / "dit_log" / "log.txt").series
    assert (one.metric.kind, one.metric.target, one.metric.has_floor) == ("loss", "noise", False)
