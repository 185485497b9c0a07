"""Solvers, models, controllers and losses away from the CPU: no tensor on another device, and no needless waiting.

Where a test's bound is one read, a solver looks at its counts of finite costs at its end.
"""

import pytest
import torch
from torch import nn

from parsecrl.algorithms import models, solvers
from parsecrl.algorithms.controllers import CategoricalController, PlanningAgent, predicted_cost
from parsecrl.algorithms.models import ImageSequence, LossWeights, ReplaySequence, TransitionSequence
from tests.devices import META, HostReads

B, T, OBS, A, N, H = 3, 6, 5, 2, 12, 4
SIZES = {"deterministic_size": 8, "stochastic_size": 4, "hidden_size": 8}
REFINED = solvers.Refinements(decay=1.5, kept_elites=2, min_std=0.1, best=True)
SEARCH = {"horizon": H, "num_samples": N, "num_elites": 3, "num_iterations": 2}


def quadratic(x):
    return x.square().sum(-1)


def test_the_device_finds_what_it_is_for():
    """A check of the check."""
    x = torch.ones(3, device=META)
    with pytest.raises(RuntimeError, match=r"device|meta"):
        x + torch.ones(3)
    with HostReads() as found:
        assert bool(x.sum() > 0)
        assert x[0].item() == 1e6
    assert len(found.reads) == 2


@pytest.mark.parametrize("iterations", [2, 5])
@pytest.mark.parametrize(
    "solve",
    [
        lambda start, n: solvers.cem(quadratic, start, 1.0, N, 3, n, bounds=(-1.0, 1.0)).mean,
        lambda start, n: solvers.dcem(quadratic, start, 1.0, N, 3, n, bounds=(-1.0, 1.0)).mean,
        lambda start, n: solvers.dcem(quadratic, start, 1.0, N, 3, n, temperature=0.0).mean,
        lambda start, n: solvers.dcem(quadratic, start, 1.0, N, 3, n, checkpoint=True).mean,
        lambda start, n: solvers.mppi(quadratic, start, 1.0, N, 3, n, refinements=REFINED).mean,
        lambda start, n: solvers.unrolled_gd(quadratic, start, num_iterations=n).mean,
    ],
    ids=["cem", "dcem", "hard dcem", "checkpointed dcem", "mppi", "unrolled_gd"],
)
def test_a_solver_waits_once_however_many_its_iterations(solve, iterations: int):
    start = torch.zeros(B, OBS, device=META, requires_grad=True)
    with HostReads() as found:
        solution = solve(start, iterations)
        solution.sum().backward()
    assert solution.device == start.grad.device == META
    assert len(found.reads) <= 1, found.reads


def test_the_projection_never_waits():
    scores = torch.zeros(B, N, device=META, requires_grad=True)
    with HostReads() as found:
        solvers.lml_projection(scores, 3, torch.ones((), device=META)).sum().backward()
    assert found.reads == []


def sequence() -> ReplaySequence:
    flags = torch.zeros(B, T, dtype=torch.bool)
    parts = {"obs": torch.zeros(B, T, OBS), "action": torch.zeros(B, T, A), "reward": torch.zeros(B, T)}
    return ReplaySequence(**{k: v.to(META) for k, v in {**parts, "is_first": flags, "terminated": flags}.items()})


@pytest.mark.parametrize("ensemble", [1, 3])
def test_an_update_of_an_rssm_waits_once(ensemble: int):
    model = models.RSSM(OBS, A, **SIZES, ensemble=ensemble).to(META)
    with HostReads() as found:
        model.update_statistics(sequence())
        loss, _, belief = model.loss(sequence(), LossWeights(overshooting_steps=3))
        loss.backward()
    assert len(found.reads) == 1, found.reads  # whether an episode has ever terminated
    assert loss.device == belief.h.device == META


@pytest.mark.parametrize("value", [None, {"hidden_size": 8, "num_policy_candidates": 3}])
@pytest.mark.parametrize("terminates", [False, True])
@pytest.mark.parametrize("conditioning", ["none", "belief"])
@pytest.mark.parametrize("kind", ["full", "icem", "mppi", "embedded", "pessimist"])
def test_an_agent_acts_and_its_plans_wait_once(kind: str, conditioning: str, terminates: bool, value: dict | None):
    search, decoder = {**SEARCH, "warm_start": True, "kind": kind}, None
    if kind in ("embedded", "pessimist"):
        search |= {"kind": "embedded", "latent_size": 2, "pessimism": float(kind == "pessimist")}
        decoder = {"hidden_size": 8, "conditioning": conditioning}
    agent = PlanningAgent(OBS, A, {**SIZES, "ensemble": 3}, search, decoder, value).to(META)
    agent.model._terminates = terminates
    state = agent.initial_state(B)
    with HostReads() as found:
        action, state = agent.act(state, torch.zeros(B, OBS, device=META))
    assert action.device == state["h"].device == META
    assert len(found.reads) <= 1, found.reads
    belief, actions = agent.model.initial_belief(B), torch.zeros(B, N, H, A, device=META)
    with HostReads() as found:
        predicted_cost(agent.model, belief, actions, agent.controller.score).sum().backward()
    assert found.reads == []


def test_critic_and_actor_learn_without_waiting():
    model, actor_critic = models.RSSM(OBS, A, **SIZES).to(META), models.ActorCritic(12, A, hidden_size=8).to(META)
    assert model.belief_size == 12
    start, eps = model.initial_belief(B), torch.zeros(T, B, A, device=META)
    with HostReads() as found:
        loss, _ = models.actor_critic_loss(model, actor_critic, start, torch.ones(B, device=META), eps, 0.95)
        loss.backward()
        actor_critic.move_slow_critic(0.02)
    assert found.reads == []
    assert loss.device == META


LATENT = {
    "parsimonious": models.ParsimoniousDynamics,
    "encoder_only": models.EncoderOnly,
    "beta_vae": models.BetaVAE,
    "rnn": models.RecurrentDynamics,
    "ssm": models.StateSpaceModel,
}


@pytest.mark.parametrize("kind", LATENT)
def test_a_latent_model_learns_and_plans(kind: str):
    model = LATENT[kind](OBS, 4, latent_size=6, hidden_size=8).to(META)
    assert isinstance(model, nn.Module)
    batch = TransitionSequence(
        torch.zeros(B, T + 1, OBS, device=META), torch.zeros(B, T, dtype=torch.int64, device=META)
    )
    with HostReads():  # where an action is out of range, and of finite costs
        loss = model.loss(batch)
        if loss.total.requires_grad:
            loss.total.backward()
        state = model.begin(batch.obs[:, 0])
    assert loss.total.device == state.device == META
    if kind != "encoder_only":  # which predicts nothing, and learns from the policy's loss alone
        with HostReads() as found:
            plan = CategoricalController(4, H, N, 3, 2, deduplicate=False).plan(model, state, model.latent(state))
        assert plan.actions.device == META
        assert len(found.reads) <= 1, found.reads


@pytest.mark.parametrize("kind", [models.PixelRSSM, models.ParsimoniousPixels])
def test_a_pixel_model_learns_and_predicts(kind):
    model = kind(4, image_size=64, channels=2, latent_size=6, readout_size=6, memory_size=8, hidden_size=8).to(META)
    images = torch.zeros(B, T, 3, 64, 64, dtype=torch.uint8, device=META)
    actions = torch.zeros(B, T - 1, dtype=torch.int64, device=META)
    with HostReads() as found:
        loss = model.loss(ImageSequence(images, actions))
        loss.total.backward()
    assert loss.total.device == META
    assert len(found.reads) <= 1, found.reads
