"""What is measured of open-loop predictions."""

import time
from typing import Any

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from parsecrl.algorithms.open_loop.evaluation import codes_used, floors, measure, split
from parsecrl.algorithms.open_loop.experiment import OpenLoopExperiment, make_model
from parsecrl.algorithms.open_loop.settings import OpenLoopSettings
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


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_measured_is_predicted_without_the_later_images(kind: str, monkeypatch: pytest.MonkeyPatch):
    """All images after the context are others: the same predictions, of which other truths are the errors."""
    torch.manual_seed(0)
    model, sequences = make_model({"kind": kind, **SIZES}, 6, 64), moving_squares(6, 7)
    predicted, open_loop = [], model.open_loop
    monkeypatch.setattr(model, "open_loop", lambda *given: predicted.append(open_loop(*given)) or predicted[-1])
    found = measure(model, sequences, 3)
    images = sequences.images.clone()
    images[:, 3:] = moving_squares(6, 7, seed=5).images[:, 3:]
    other = measure(model, sequences._replace(images=images), 3)
    first, second = predicted[: len(predicted) // 2], predicted[len(predicted) // 2 :]
    assert len(first) == 2  # five sequences and one
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.latents.mean, b.latents.mean)
    assert (found.error != other.error).all()
    images[:, 2] = moving_squares(6, 7, seed=5).images[:, 2]  # the context's last one does count
    measure(model, sequences._replace(images=images), 3)
    assert not torch.equal(predicted[-1].images, first[-1].images)


def test_codes_are_counted_for_each_action_over_all_states():
    torch.manual_seed(0)
    model, sequences = make_model({"kind": "parsimonious", "code_size": 2, **SIZES}, 6, 64), moving_squares(6, 7)
    head = model.code_posterior_net[-1]
    with torch.no_grad():  # the first bit is on always, the second never
        head.weight[0], head.bias[0] = 0.0, 1.0
        head.weight[1], head.bias[1] = 0.0, -1.0
    codes, on = codes_used(model, sequences)
    assert codes.tolist() == [1] * 6
    torch.testing.assert_close(on, torch.full((6,), 0.5))
    states = model.observe(sequences)
    with torch.no_grad():  # the second wherever the hidden layers say so
        head.weight[1] = torch.randn(head.weight.shape[1], generator=torch.Generator().manual_seed(1))
        hidden = model.code_posterior_net[:-1]
        z, u = states.posterior.mean, model.core.readout(states.belief.h)
        values = [
            hidden(torch.cat([z, u, model.one_hot(torch.full((6, 7), action))], -1)) @ head.weight[1]
            for action in range(6)
        ]
        head.bias[1] = -torch.stack(values).median()  # half of all states have it
    codes, on = codes_used(model, sequences)
    expected = [(value > -head.bias[1]).float().mean() for value in values]
    torch.testing.assert_close(on, torch.tensor([(1 + share) / 2 for share in expected]), atol=1e-6, rtol=0)
    assert codes.tolist() == [len({bool(v > -head.bias[1]) for v in value.flatten()}) for value in values]


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
    assert 0 <= whole["waiting_share"] < 0.5


def test_waiting_for_batches_is_told():
    experiment = OpenLoopExperiment(OpenLoopSettings(model={"kind": "rssm", **SIZES}), 6, 64, seed=3)

    def late():
        while True:
            time.sleep(0.5)
            yield moving_squares(2, 4)

    assert experiment.train(late(), 2)["waiting_share"] > 0.5
    assert experiment.curve[-1]["waiting_share"] > 0.5
