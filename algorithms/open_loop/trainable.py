"""Training a model of image sequences as a Tune trainable (Saanum and Schulz 2022, section 5)."""

from __future__ import annotations

from typing import Any

from ray.tune import Trainable

from parsecrl.algorithms.open_loop.checkpoint import load_experiment, save_experiment
from parsecrl.algorithms.open_loop.dataset import SequenceBatches, open_dataset
from parsecrl.algorithms.open_loop.experiment import OpenLoopExperiment
from parsecrl.algorithms.open_loop.settings import OpenLoopSettings
from parsecrl.algorithms.training.process_tuning import make_process_quick
from parsecrl.algorithms.training.seeding import derive_seed

NO_LOSSES = ("grad_norm", "update_ms", "waiting_share")


class OpenLoop(Trainable):
    """One model on the episodes in a folder.

    config: `OpenLoopSettings`, with the data.folder that was filled; and run_seed, which is mixed with seed.

    Results, a row every updates_per_result gradient steps: num_updates; loss and its terms, means over these steps;
    grad_norm, before clipping; update_ms, a gradient step; waiting_share, of the time, for batches; score, -loss.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Open the dataset and make the experiment."""
        make_process_quick()
        settings = OpenLoopSettings.from_config(config)
        device = "cuda" if settings.num_gpus_per_trial else "cpu"
        assert settings.data.folder is not None  # the run has filled it, and read it all
        dataset = open_dataset(settings.data.folder, "train", verify=False)
        trial_seed = derive_seed(config.get("run_seed", 0), "open_loop", settings.seed)
        self.experiment = OpenLoopExperiment(settings, dataset.num_actions, dataset.image_size, trial_seed, device)
        self.batches = SequenceBatches(
            dataset,
            settings.batch_size,
            settings.sequence_length,
            derive_seed(trial_seed, "batches"),
            pin_memory=device == "cuda",
        )

    def step(self) -> dict[str, Any]:
        """`updates_per_result` gradient steps."""
        result = self.experiment.train(self.batches, self.experiment.settings.updates_per_result)
        waiting = result["waiting_share"]
        losses = {name: value for name, value in result.items() if name not in NO_LOSSES}
        return {
            **result,
            "num_updates": self.experiment.num_updates,
            "score": -result["loss"],
            "measured": {
                "losses": losses,
                "gradient_norms": {"model": result["grad_norm"]},
                "time_shares": {"main": {"learning": 1.0 - waiting, "waiting": waiting}},
            },
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial into an existing folder."""
        save_experiment(checkpoint_dir, self.experiment, self.batches.state_dict())

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Go on where `save_checkpoint` wrote."""
        assert isinstance(checkpoint, str)  # save_checkpoint returns nothing, so Tune hands over the folder
        self.batches.load_state_dict(load_experiment(checkpoint, self.experiment))

    def cleanup(self) -> None:
        """End the thread that prepares batches."""
        self.batches.close()
