"""Event files of TensorBoard as training logs."""

import pytest

from entropy_cli.commands.monitor.logs.read import read_log
from entropy_cli.core.errors import LogError
from tests.training_logs import values


class TestTensorBoard:
    @pytest.fixture
    def write(self, tmp_path):
        pytest.importorskip("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        def run(folder, scalars, purge=None):
            writer = SummaryWriter(str(tmp_path / folder), purge_step=purge)
            for tag, points in scalars.items():
                for step, value in points:
                    writer.add_scalar(tag, value, step)
            writer.close()
            return tmp_path / folder

        return run

    def test_var_has_losses_of_each_scale(self, write):
        folder = write(
            "run",
            {
                "AR_iter_loss/L_16": [(0, 8.25), (500, 6.5)],
                "AR_iter_loss/L_256": [(0, 8.25), (500, 5.5)],
                "AR_iter_loss/acc_256": [(0, 0.0), (500, 7.5)],
                "AR_iter_loss/z_voc_usage": [(0, 50.0)],
                "AR_ep_loss/L_mean": [(1, 8.0), (2, 7.0)],
                "AR_ep_loss/vL_mean": [(1, 8.125)],
            },
        )
        log = read_log(folder)
        assert log.format == "tensorboard"
        found = {one.metric.name: (one.metric.split, one.metric.scope) for one in log.series}
        assert found == {
            "AR_iter_loss/L_16": ("train", 1),
            "AR_iter_loss/L_256": ("train", 16),
            "AR_iter_loss/acc_256": ("train", 16),
            "AR_ep_loss/L_mean": ("train", "mean"),
            "AR_ep_loss/vL_mean": ("val", "mean"),
        }
        assert values(log, "AR_iter_loss/L_256") == [8.25, 5.5]

    def test_a_restart_replaces_what_it_repeats(self, write):
        write("run", {"loss": [(0, 4.0), (1, 3.0), (2, 2.0)]})
        folder = write("run", {"loss": [(1, 2.5), (2, 1.5)]}, purge=1)
        assert values(read_log(folder), "loss") == [4.0, 2.5, 1.5]

    def test_a_start_that_did_not_get_far_is_left_out(self, write):
        write("run", {"loss": [(i, 4.0 - i / 10) for i in range(20)]})
        folder = write("run", {"loss": [(i, 5.0 - i / 10) for i in range(10, 15)]})
        log = read_log(folder)
        assert values(log, "loss") == pytest.approx([4.0 - i / 10 for i in range(20)])
        assert (log.starts, log.segments) == (2, 2)

    def test_a_file_a_cut_file_and_several_runs(self, write, tmp_path):
        folder = write("run", {"loss": [(i, 4.0 - i) for i in range(4)]})
        (file,) = folder.iterdir()
        assert values(read_log(file), "loss") == [4.0, 3.0, 2.0, 1.0]
        file.write_bytes(file.read_bytes()[:-10])
        assert values(read_log(folder), "loss") == [4.0, 3.0, 2.0]
        assert values(read_log(tmp_path), "loss") == [4.0, 3.0, 2.0]
        write("other", {"loss": [(0, 1.0)]})
        with pytest.raises(LogError, match="event files of 2 runs"):
            read_log(tmp_path)

    def test_a_tag_by_name(self, write):
        folder = write("run", {"objective": [(0, 4.0)], "lr": [(0, 0.5)]})
        with pytest.raises(LogError, match="no loss found"):
            read_log(folder)
        assert values(read_log(folder, loss_name="objective"), "objective") == [4.0]
