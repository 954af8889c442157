"""The callbacks in the trainers of Hugging Face and Lightning, with a tiny model each."""

import csv
import json
import logging
import warnings

import pytest
import torch

from entropy_cli import Floor
from entropy_cli.core.errors import EntropyCliError
from tests.dashboards import expected_at, read_events

# One process imports the frameworks, which takes seconds each.
pytestmark = [
    pytest.mark.xdist_group("ladder_result"),
    # Lightning with torch and typing_extensions of today; a loader without processes, as here.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The `srun` command"),  # where Slurm is installed
]
CODES = 48


def skewed_tokens(rows):
    """Tokens of a model that can learn their frequencies only, (rows, 4)."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.linspace(1, 9, CODES) ** 3
    return torch.multinomial(weights, 4 * rows, replacement=True, generator=generator).view(rows, 4)


class Frequencies(torch.nn.Module):
    """A model of the frequencies of tokens, as transformers calls one."""

    def __init__(self):
        super().__init__()
        self.logits_V = torch.nn.Parameter(torch.zeros(CODES))

    def forward(self, input_ids, labels):
        logits_NV = self.logits_V.expand(labels.numel(), CODES)
        return {
            "loss": torch.nn.functional.cross_entropy(logits_NV, labels.flatten()),
            "logits": logits_NV,
        }


class TestHuggingFace:
    @pytest.fixture
    def trainer(self, tmp_path):
        """A function that makes a trainer which logs every step to TensorBoard."""
        transformers = pytest.importorskip("transformers")
        pytest.importorskip("accelerate")

        def make(steps, **options):
            tokens = [{"input_ids": row, "labels": row} for row in skewed_tokens(16)]
            defaults = {
                "report_to": [],
                "save_strategy": "no",
                "eval_strategy": "steps",
                "eval_steps": 50,
            }
            args = transformers.TrainingArguments(
                *(tmp_path / "out",),
                max_steps=steps,
                per_device_train_batch_size=16,
                logging_steps=1,
                learning_rate=0.3,
                lr_scheduler_type="constant",
                use_cpu=True,
                disable_tqdm=True,
                **(defaults | options),
            )
            made = transformers.Trainer(
                Frequencies(), args, train_dataset=tokens, eval_dataset=tokens[:4], compute_metrics=None
            )
            made.remove_callback(transformers.PrinterCallback)
            return made

        return make

    def test_a_plateau_ends_the_training(
        self, floor, trainer, a_and_ceilings, tmp_path, caplog, monkeypatch
    ):
        from entropy_cli.integrations.hf import FloorCallback

        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
        made = trainer(2000, report_to=["tensorboard"])
        FloorCallback(floor, stop_on={"plateau"}).attach(made)
        steps = made.train().global_step
        assert 64 <= steps < 500
        history = made.state.log_history
        told = [entry for entry in history if "findings" in entry]
        assert [entry["step"] for entry in told] == [steps]
        assert told[0]["findings"][0].startswith("plateau: mean: flat over the last quarter")
        assert f"step {steps}: plateau: mean: " in caplog.text
        events = read_events(tmp_path / "events")
        for name, prefix in (("loss", "train/"), ("eval_loss", "eval/")):
            entries = [entry for entry in history if name in entry]
            assert len(entries) == (steps if name == "loss" else steps // 50)
            for entry in entries[::20]:
                for tag, value in expected_at(entry[name], name, a_and_ceilings).items():
                    assert entry[tag] == pytest.approx(value, abs=1e-9)
            # transformers' names of what it reports: by the beginning of ours
            tags = [tag for tag in events if tag.endswith(f"ce_minus_a/{name}")]
            assert tags == [f"train/ce_minus_a/{name}"], (prefix, sorted(events))

    def test_what_a_checkpoint_has_seen_is_seen_again(self, ladder_result, trainer, tmp_path):
        from entropy_cli.integrations.hf import FloorCallback

        options = {"save_strategy": "steps", "save_steps": 20}
        first, again = Floor.load(ladder_result), Floor.load(ladder_result)
        made = trainer(40, **options)
        made.add_callback(FloorCallback(first))
        made.train()
        made = trainer(30, **options)
        made.add_callback(FloorCallback(again))
        made.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-20"))
        steps, losses = again.history()["mean"]
        assert steps == [float(step) for step in range(1, 31)]
        assert losses == pytest.approx(first.history()["mean"][1][:30])


class TestLightning:
    @pytest.fixture
    def fit(self, tmp_path, caplog):
        """Train for so many steps; gives the trainer."""
        pl = pytest.importorskip("lightning.pytorch")
        from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

        class Module(pl.LightningModule):
            def __init__(self, **log):
                super().__init__()
                self.model, self.log_options = Frequencies(), log

            def loss(self, idx_BL):
                return self.model(idx_BL, idx_BL)["loss"]

            def training_step(self, batch, _):
                loss = self.loss(batch)
                self.log("train_loss", loss, **self.log_options)
                return loss

            def validation_step(self, batch, _):
                self.log("val_loss", self.loss(batch))

            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters(), 0.3)

        def fit(callback, *, log=None, checkpoint=None, **options):
            logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
            tokens = skewed_tokens(16)
            defaults = {"max_epochs": -1, "max_steps": 2000, "log_every_n_steps": 1}
            trainer = pl.Trainer(
                callbacks=[callback],
                logger=[TensorBoardLogger(tmp_path, "events", ""), CSVLogger(tmp_path, "table", "")],
                accelerator="cpu",
                enable_progress_bar=False,
                enable_model_summary=False,
                check_val_every_n_epoch=25,
                default_root_dir=tmp_path,
                **(defaults | options),
            )
            loaders = (torch.utils.data.DataLoader(tokens, size) for size in (8, 16))
            trainer.fit(Module(**(log or {})), *loaders, ckpt_path=checkpoint)
            return trainer

        return fit

    def test_a_plateau_ends_the_training(self, floor, fit, a_and_ceilings, tmp_path, caplog):
        from entropy_cli.integrations.lightning import FloorCallback

        steps = fit(FloorCallback(floor, stop_on={"plateau"})).global_step
        assert 64 <= steps < 1000
        assert f"step {steps - 1}: plateau: " in caplog.text
        history, events = floor.history(), read_events(tmp_path / "events")
        assert history["mean"][0] == list(range(1, steps + 1))
        assert history["val mean"][0] == list(range(50, steps + 1, 50))
        for name, series in (("train_loss", "mean"), ("val_loss", "val mean")):
            step, loss = (column[-1] for column in history[series])
            assert events[name][step - 1] == pytest.approx(loss)  # as Lightning counts
            for tag, value in expected_at(loss, name, a_and_ceilings).items():
                assert events[tag][step - 1] == pytest.approx(value, abs=1e-5)
        assert list(events["finding/plateau"]) == [steps - 1]
        with (tmp_path / "table/metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["ce_minus_a/val_loss"]]
        assert len(rows) == len(history["val mean"][0])

    def test_means_of_epochs_are_seen_once(self, floor, fit):
        from entropy_cli.integrations.lightning import FloorCallback

        fit(FloorCallback(floor), log={"on_step": False, "on_epoch": True}, max_epochs=3)
        assert floor.history()["mean"][0] == [2.0, 4.0, 6.0]

    def test_a_checkpoint_has_what_was_seen(self, ladder_result, fit, tmp_path):
        from entropy_cli.integrations.lightning import FloorCallback

        first, again = Floor.load(ladder_result), Floor.load(ladder_result)
        warnings.filterwarnings("ignore", "Experiment logs directory")  # of the earlier fit
        fit(FloorCallback(first), max_steps=20).save_checkpoint(tmp_path / "20.ckpt")
        fit(FloorCallback(again), max_steps=30, checkpoint=tmp_path / "20.ckpt")
        steps, losses = again.history()["mean"]
        assert steps == list(range(1, 31)) and losses[:20] == first.history()["mean"][1]


def test_wrong_arguments(floor):
    pytest.importorskip("transformers")
    from entropy_cli.integrations.hf import FloorCallback

    for options in ({"series": {"loss": "tail"}}, {"stop_on": {"plato"}}, {"writer": 3}):
        with pytest.raises(EntropyCliError, match="expected"):
            FloorCallback(floor, **options)
    assert json.loads(json.dumps(floor.history())) == {}
