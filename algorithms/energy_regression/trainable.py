"""Energy-based regression on x sin x as a Tune trainable (DCEM paper, section 5.1 and appendix B)."""

from __future__ import annotations

import time
from typing import Any

import torch
from ray.tune import Trainable
from torch import Tensor

from parsecrl.algorithms.energy_regression.checkpoint import load_state, make_energy, save_state
from parsecrl.algorithms.energy_regression.settings import EnergyRegressionSettings
from parsecrl.algorithms.energy_regression.update import InnerSolver, Learner, held_out_inputs, target, training_inputs
from parsecrl.algorithms.training.process_tuning import make_process_quick
from parsecrl.algorithms.training.seeding import derive_seed

ROLE = "energy_regression"
# Inputs evaluated at a time: 25 x 100 candidates x 128 units stay in a CPU's cache.
CHUNK = 25


class EnergyRegression(Trainable):
    """One energy, trained by updates on randomly drawn training points.

    config: `EnergyRegressionSettings`, and run_seed, which is mixed with seed.

    Results: num_updates; loss, the mean over the step's updates, each before it was made; train_loss and test_loss,
    mean squared errors over the training points and those midway between them; score, minus the test loss; update_ms.

    """

    def setup(self, config: dict[str, Any]) -> None:
        """Make the energy, its solver and its learner; an energy of the wrong shape is refused here."""
        make_process_quick()
        self.settings = c = EnergyRegressionSettings.from_config(config)
        seed = derive_seed(config.get("run_seed", 0), ROLE, c.seed)
        self.solver = InnerSolver(**c.solver.plain())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "initialisation"))
            self.energy = make_energy(c.energy.plain())
        self.learner = Learner(self.energy, self.solver, lr=c.lr, max_grad_norm=c.max_grad_norm, compile=c.compile)
        self.seed = seed
        self.generator = torch.Generator().manual_seed(derive_seed(seed, "updates"))
        self.inputs = training_inputs(c.num_points)  # [num_points, 1]
        self.points = torch.zeros(c.points_per_update, dtype=torch.long)  # the ones in turn
        self.num_updates = 0
        self.curve: list[dict[str, float]] = []
        self.evaluate()  # an energy of the wrong shape shall be found now

    def step(self) -> dict[str, Any]:
        """`updates_per_step` updates, then an evaluation."""
        losses, start = [], time.perf_counter()
        for _ in range(self.settings.updates_per_step):
            losses.append(self._update())
        seconds = time.perf_counter() - start
        loss = float(torch.stack(losses).mean())
        if not loss < float("inf"):
            raise FloatingPointError(
                f"the training loss is {loss} within the {len(losses)} updates up to {self.num_updates}; "
                f"lower lr, or look for NaN in the energy"
            )
        train_loss, test_loss = self.evaluate()
        point = {"num_updates": self.num_updates, "loss": loss, "train_loss": train_loss, "test_loss": test_loss}
        self.curve.append(point)
        return {
            **point,
            "score": -test_loss,
            "update_ms": 1e3 * seconds / len(losses),
            "measured": {"losses": {"loss": loss}},
        }

    def _update(self) -> Tensor:
        if self.num_updates % self.settings.updates_per_point == 0:
            self.points = torch.randint(len(self.inputs), self.points.shape, generator=self.generator)
        x = self.inputs[self.points]  # [B, 1]
        noise = self.solver.draw_noise(len(x), 1, self.generator)
        self.num_updates += 1
        return self.learner.update(x, target(x), noise)

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Evaluate with as many inner steps as in training, and the same noise at every call.

        Returns:
            train_loss and test_loss.
        """
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "evaluation"))
        means = []
        for inputs in (self.inputs, held_out_inputs(len(self.inputs))):
            errors = []
            for x in inputs.split(CHUNK):
                noise = self.solver.draw_noise(len(x), 1, generator)
                errors.append((self.solver.predict(self.energy, x, 1, noise) - target(x)).square())
            means.append(float(torch.cat(errors).mean()))
        return means[0], means[1]

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial into an existing folder."""
        description = {
            "algorithm": ROLE,
            "solver": vars(self.solver),
            "energy": self.settings.energy.plain(),
            "num_points": self.settings.num_points,
            "seed": self.settings.seed,
            "num_updates": self.num_updates,
            "curve": self.curve,
        }
        tensors = {"generator": self.generator.get_state(), "points": self.points}
        save_state(checkpoint_dir, description, self.energy, self.learner.optimizer, tensors)

    def load_checkpoint(self, checkpoint: str | dict[str, Any] | None) -> None:
        """Go on where `save_checkpoint` wrote."""
        assert isinstance(checkpoint, str)  # save_checkpoint returns nothing, so Tune hands over the folder
        description, tensors = load_state(checkpoint, self.energy, self.learner.optimizer)
        self.num_updates, self.curve = description["num_updates"], description["curve"]
        self.points = tensors["points"]
        self.generator.set_state(tensors["generator"])
