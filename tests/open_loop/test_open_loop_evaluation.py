"""What is measured of open-loop predictions."""

from typing import Any

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from parsecrl.algorithms.open_loop.evaluation import floors, measure, split
from parsecrl.algorithms.open_loop.experiment import OpenLoopExperiment, OpenLoopSettings, make_model
from tests.models.moving_squares import moving_squares

KINDS = ("parsimonious", "rssm")
SIZES = {"latent_size": 4, "readout_size": 4, "memory_size": 8, "hidden_size": 12, "channels": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_divergences_and_errors_by_hand(kind: str):
    torch.manual_seed(0)
    model, sequences = make_model({"kind": kind, **SIZES}, 6, 64), moving_squares(6, 7)  # more than at once
    found = measure(model, sequences, 3)
    context, actions = split(sequences, 3)
    ahead, inferred = model.open_loop(context, actions), model.observe(sequences).posterior
    p, q = Normal(*ahead.latents), Normal(inferred.mean[:, 3:], inferred.std[:, 3:])
    torch.testing.assert_close(found.kl, reference_kl(p, q).sum(-1).detach())
    torch.testing.assert_close(found.kl_inferred, reference_kl(q, p).sum(-1).detach())
    truth = sequences.images[:, 3:].float() / 255
    torch.testing.assert_close(found.error, (ahead.images - truth).square().flatten(2).mean(-1))
    assert found.error.shape == found.error_closed.shape == (6, 4)
    assert not torch.equal(found.error, found.error_closed)


def test_floors_by_hand():
    sequences, mean_image = moving_squares(2, 5), torch.full((3, 64, 64), 0.25)
    found = floors(sequences, 2, mean_image)
    truth = sequences.images.float() / 255
    for n, t in ((0, 2), (1, 4)):
        last, mean = ((x - truth[n, t]).square().mean() for x in (truth[n, 1], mean_image))
        torch.testing.assert_close(found["last_frame"][n, t - 2], last)
        torch.testing.assert_close(found["mean_frame"][n, t - 2], mean)


@pytest.mark.parametrize("context", [0, 5, True, 2.0])
def test_a_context_out_of_range_is_named(context: Any):
    with pytest.raises(ValueError, match=r"context must lie in \[1, images of a sequence\), got"):
        floors(moving_squares(1, 5), context, torch.zeros(3, 64, 64))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_steps_are_counted_and_their_means_told(kind: str):
    experiments = [OpenLoopExperiment(OpenLoopSettings(model={"kind": kind, **SIZES}), 6, 64, seed=3) for _ in "ab"]
    batches = [moving_squares(2, 4, seed=n) for n in range(4)]
    whole = experiments[0].train(iter(batches), 4)
    halves = [experiments[1].train(iter(some), 2) for some in (batches[:2], batches[2:])]
    assert whole["loss"] == pytest.approx((halves[0]["loss"] + halves[1]["loss"]) / 2)
    for name, value in experiments[0].model.state_dict().items():
        assert torch.equal(value, experiments[1].model.state_dict()[name]), name
    assert [row["num_updates"] for row in experiments[1].curve] == [2, 4]
