"""Small logs in the formats that are read, with values of our own."""

import json

LOSSES = (8.318, 7.912, 7.404, 7.027, 6.81)
LAST = (8.317, 7.88, 7.2, 6.75, 6.501)


def var_stdout(mean=LOSSES, last=LAST, *, val_is_train=True, every=2, first_epoch=0):
    """What VAR prints of so many epochs: three iterations each, and an evaluation every few."""
    prefix = "[05-10 20:37:00] (some/where/VAR/utils/misc.py, line 314)=> "
    lines = [
        "[05-10 20:35:22] (some/where/VAR/train.py, line  37)=> initial args:",
        "{",
        "  depth               : 16",
        "  ls                  : 0.0",
        "  patch_nums          : (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)",
        "}",
        "",
    ]
    best_mean = best_last = float("inf")
    for epoch, (m, t) in enumerate(zip(mean, last, strict=True), first_epoch):
        for it in (0, 417, 834):
            lines.append(
                f"{prefix}[Ep]: [{epoch:4d}/200]  [{it:4d}/835]  eta: 7:52:45  tlr: 1.5e-06  tnm: "
                f"0.{epoch + 10}  "
                f"Lm: {m:.3f} ({m + 0.01:.3f})  Lt: {t:.3f} ({t + 0.01:.3f})  Accm: 0.02 (0.02)  "
                "Acct: 0.02 (0.02)  time: 1.3325  data: 0.4040"
            )
        lines.append(f"{prefix}[Ep]: [{epoch:4d}/200]   Total time:      0:36:37   (1.316 s / it)")
        best_mean, best_last = min(best_mean, m), min(best_last, t)
        if epoch % every == every - 1:
            off = 0 if val_is_train else 0.1
            lines.append(
                f"{prefix} [*] [ep{epoch}]  (val 50000)  Lm: {m + off:.4f}, Lt: {t + off:.4f}, "
                "Acc m&t: 3.28 4.83,  Val cost: 51.15s"
            )
            lines.append(prefix + "[saving ckpt] ...\0\0\0     [saving ckpt](*) finished!  @ out/ar.pth")
        lines.append(
            f"{prefix}     [ep{epoch}]  (training )  Lm: {best_mean:.3f} ({m:.3f}), Lt: {best_last:.3f} "
            f"({t:.3f}),  Acc m&t: {0.24 + epoch:.2f} {0.12 + epoch:.2f},  Remain: 5 days, 3:44:31,  "
            "Finish: 2024-05-16 00:58"
        )
    lines.append(
        f"{prefix}  [*] [PT finished]  Total cost: 0.0h,   Lm: 999.000 (-1),   Lt: 999.000 (-1)"
    )
    return "\n".join(lines) + "\n"


def var_log_txt(mean=LOSSES, last=LAST, first_epoch=191):
    """log.txt of VAR, which begins anew every ten epochs; evaluated before its first and at its "
    "third."""
    header = json.dumps({"is_master": True, "name": "text", "cmd": "--depth=16"}, indent=0)
    lines = [header]
    val = 6.05
    for i, (m, t) in enumerate(zip(mean, last, strict=True)):
        val = 5.95 if i >= 2 else val
        record = {
            "it": "1669/1669",
            "ep": f"{first_epoch + i}/200",
            "lr": 1e-4,
            "grad_norm": 0.3,
            "L_mean": m,
            "L_tail": t,
            "acc_mean": 5.1,
            "acc_tail": 7.6,
            "vL_mean": val,
            "vL_tail": None,
            "vacc_mean": 5.0,
            "vacc_tail": None,
            "remain_time": "5 days, 3:44:31",
            "finish_time": "2024-05-16 00:58",
        }
        lines.append(str(record))
    lines.append(lines[-1].replace("'5 days, 3:44:31'", "'-'"))  # written twice at the end
    return "\n".join(lines) + "\n"


def llamagen(losses=LOSSES, *, tokenizer=False):
    lines = ["[\x1b[34m2024-06-01 12:00:00\x1b[0m] Training for 300 epochs..."]
    for i, loss in enumerate(losses):
        lines.append(f"[\x1b[34m2024-06-01 12:00:00\x1b[0m] Beginning epoch {i}...")
        lines.append(
            f"[\x1b[34m2024-06-01 12:00:0{i}\x1b[0m] (step={100 * (i + 1):07d}) Train Loss: {loss:.4f}, "
            "Train Steps/Sec: 1.23"
        )
        if tokenizer:
            lines.append(
                f"[\x1b[34m2024-06-01 12:00:0{i}\x1b[0m] (Generator) rec_loss: 0.1000, perceptual_loss: "
                "0.2000, vq_loss: 0.0100, commit_loss: 0.0100, entropy_loss: 0.0000, codebook_usage: "
                "0.97"
            )
    return "\n".join(lines) + "\n"


def nanogpt(losses=LOSSES):
    lines = ["number of parameters: 123.59M", "compiling the model... (takes a ~minute)"]
    for i, loss in enumerate(losses):
        lines.append(f"step {1000 * i}: train loss {loss:.4f}, val loss {loss + 0.05:.4f}")
        lines.append(f"iter {1000 * i}: loss {loss + 0.01:.4f}, time 9827.31ms, mfu 13.70%")
    return "\n".join(lines) + "\n"


def build_nanogpt(losses=LOSSES):
    lines = ["0 val 10.9310", "0 hella 0.2413"]
    lines += [f"{i} train {loss:.6f}" for i, loss in enumerate(losses)]
    return "\n".join(lines) + "\n"


def modded_nanogpt(losses=LOSSES):
    lines = ["import os", 'print(f"step:{step}/{total} train_loss:{loss}")']
    lines += ["every: int = 5  # how many steps until the next val loss? 0 for never", "=" * 100]
    for i, loss in enumerate(losses):
        lines.append(f"step:{i + 1}/5100 train_loss:{loss:.4f} train_time:{i}ms step_avg:1.00ms")
    lines.append("step:125/5100 val_loss:6.6021 train_time:9ms step_avg:1.00ms")
    return "\n".join(lines) + "\n"


def jepa_stdout(losses=LOSSES):
    lines = []
    for i, loss in enumerate(losses):
        lines.append(
            f"[INFO    ][2024-01-01 00:00:00][train_step          ] [1, {10 * i:4d}] loss: {loss:.3f} | "
            f"p{loss:.3f} r0.000 | input_var: 1.0 1.0 | [wd: 4.00e-02]"
        )
    lines.append("[INFO    ][2024-01-01 00:00:00][main                ] avg. loss 0.148")
    return "\n".join(lines) + "\n"


IJEPA_HEAD = "epoch,itr,loss,mask-A,mask-B,time (ms)"


def ijepa_csv(epochs, per_epoch=4, first_epoch=1, head=IJEPA_HEAD):
    """Rows of as many epochs as there are losses, each loss repeated with a little added."""
    lines = [head]
    for epoch, loss in enumerate(epochs, first_epoch):
        for itr in range(per_epoch):
            lines.append(f"{epoch},{itr},{loss + 0.001 * itr:.5f},12.00000,12.00000,417")
    return "\n".join(lines) + "\n"


def vjepa_csv(losses=(0.6, 0.5, 0.4)):
    lines = ["epoch,itr,loss,loss-jepa,reg-loss,enc-grad-norm,pred-grad-norm,gpu-time(ms),wall-time(ms)"]
    for i, loss in enumerate(losses):
        lines.append(f"1,{i},{loss:.5f},{loss - 0.1:.5f},0.10000,0.00000,0.00000,{900.0:.5f},950.00000")
    return "\n".join(lines) + "\n"


def vjepa2_csv(losses=(0.6, 0.5, 0.4)):
    lines = ["epoch,itr,loss,iter-time(ms),gpu-time(ms),dataload-time(ms)"]
    lines += [f"1,{i},{loss:.5f},1000.0,900.0,0.1" for i, loss in enumerate(losses)]
    return "\n".join(lines) + "\n"


def trainer_state(losses=LOSSES):
    history = []
    for i, loss in enumerate(losses, 1):
        history.append(
            {"epoch": i / 2, "grad_norm": 1.5, "learning_rate": 1e-4, "loss": loss, "step": 10 * i}
        )
        history.append(
            {"epoch": i / 2, "eval_loss": loss + 0.1, "eval_accuracy": 0.1 * i, "step": 10 * i}
        )
        history.append({"epoch": i / 2, "eval_other_loss": loss + 0.2, "step": 10 * i})
    history.append({"epoch": 2.5, "step": 50, "train_loss": 7.5, "train_runtime": 9.0})
    return json.dumps({"best_metric": None, "global_step": 50, "log_history": history}, indent=2)


def lightning(losses=LOSSES):
    lines = ["epoch,lr-AdamW,step,train_loss_epoch,train_loss_step,val_loss"]
    for i, loss in enumerate(losses):
        lines.append(f"{i},0.001,{10 * i + 4},,{loss + 0.3:.4f},")
        lines.append(f"{i},,{10 * i + 9},,,{loss + 0.1:.4f}")
        lines.append(f"{i},,{10 * i + 9},{loss:.4f},,")
    return "\n".join(lines) + "\n"


def wandb(losses=LOSSES):
    metrics = [f"run-{r} - {m}" for r in "ab" for m in ("train/loss", "val/loss")]
    head = ["Step", *(f"{metric}{end}" for metric in metrics for end in ("", "__MIN", "__MAX"))]
    lines = [",".join(f'"{name}"' for name in head)]
    for i, loss in enumerate(losses):
        cells = [f"{loss + j / 10:.4f}" if i % 2 == 0 or j % 2 == 0 else "" for j in range(len(metrics))]
        lines.append(",".join([f'"{10 * i}"', *(f'"{cell}"' for cell in cells for _ in range(3))]))
    return "\n".join(lines) + "\n"


def json_lines(losses=LOSSES):
    return "".join(
        json.dumps({"step": i, "train": {"loss": loss}}) + "\n" for i, loss in enumerate(losses)
    )


def keras_json(losses=LOSSES):
    return json.dumps({"loss": list(losses), "val_loss": [loss + 0.1 for loss in losses]})


def plain_csv(losses=LOSSES):
    return "step,objective,lr\n" + "".join(f"{i},{loss},0.1\n" for i, loss in enumerate(losses))


def values(log, name, split="train"):
    """The values of a series that a log must have."""
    found = log.find(name, split)
    assert found is not None, [(one.metric.name, one.metric.split) for one in log.series]
    return found.value_n.tolist()
