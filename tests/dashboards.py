"""What was written to TensorBoard and W&B, read back, and what a floor adds to a loss there."""

import json
import struct
import time


def read_events(folder):
    """The scalars and texts of event files, by tag: {step: value}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    found = {tag: {p.step: p.value for p in accumulator.Scalars(tag)} for tag in tags["scalars"]}
    for tag in tags["tensors"]:
        points = {point.step: point.tensor_proto for point in accumulator.Tensors(tag)}
        texts = {
            step: proto.string_val[0].decode() for step, proto in points.items() if proto.string_val
        }
        found[tag.removesuffix("/text_summary")] = texts or {
            step: proto.float_val[0] for step, proto in points.items()
        }
    return found


def read_wandb(folder, seconds=30):
    """The rows that a run of W&B wrote offline; its process may write on when it has ended."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        records = list(_records(path.read_bytes()))
        if any(record.WhichOneof("record_type") == "exit" for record in records):
            break
        time.sleep(0.05)
    items = [record.history.item for record in records if record.HasField("history")]
    return [{"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in row} for row in items]


def _records(content):
    """The records of a file of W&B, which has LevelDB's log in blocks of 32 kB after seven bytes."""
    from wandb.proto import wandb_internal_pb2

    at, parts = 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def expected_at(loss, name, a_and_ceilings):
    entropy, ceilings = a_and_ceilings
    return {
        f"assignment_entropy/{name}": entropy,
        f"ce_minus_a/{name}": loss - entropy,
        **{f"below_{rung}/{name}": limit - loss for rung, limit in ceilings.items()},
    }
