import pytest
import torch

from parsecrl.algorithms.controllers import (
    EmbeddedController,
    FullSpaceController,
    ICEMController,
    MPPIController,
    Plan,
)
from parsecrl.algorithms.models import RSSM, ActionDecoder, Belief
from parsecrl.algorithms.solvers import cem

OBS, A, H, LATENT = 5, 2, 4, 3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_model() -> RSSM:
    torch.manual_seed(0)
    return RSSM(OBS, A, deterministic_size=16, stochastic_size=4, hidden_size=24)


def random_belief(B: int, seed: int = 0) -> Belief:
    g = seeded(seed)
    return Belief(torch.randn(B, 16, generator=g).tanh(), torch.randn(B, 4, generator=g))


def full(**options) -> FullSpaceController:
    return FullSpaceController(H, A, **{"num_samples": 40, "num_elites": 8, "num_iterations": 4, **options})


def embedded(conditioning: str = "none", **options) -> EmbeddedController:
    torch.manual_seed(1)
    decoder = ActionDecoder(LATENT, H, A, hidden_size=24, conditioning=conditioning, belief_size=20)
    return EmbeddedController(decoder, **{"num_samples": 30, "num_elites": 6, "num_iterations": 4, **options})


REFINED = {"kept_fraction": 0.5, "decay": 1.3, "min_std": 0.05}
CONTROLLERS = {
    "full": full,
    "icem": lambda **options: ICEMController(H, A, **{"num_samples": 40, "num_elites": 8, **options}),
    "mppi": lambda **options: MPPIController(
        H, A, **{"num_samples": 40, "num_elites": 8, "num_iterations": 4, **options}
    ),
    "refined": lambda **options: embedded(**REFINED, **options),
    "softmax": lambda **options: embedded(selection="softmax", **REFINED, **options),
    "embedded": embedded,
    "conditioned": lambda **options: embedded("belief", **options),
    "hard": lambda **options: embedded(temperature=0.0, **options),
}
either = pytest.mark.parametrize("kind", CONTROLLERS)


def draw(controller, B: int, seed: int = 5) -> torch.Tensor:
    shape = (controller.num_iterations, B, controller.num_samples, controller.plan_size)
    return torch.randn(shape, generator=seeded(seed))


@either
def test_plan_shapes_bounds_and_history(kind):
    controller = CONTROLLERS[kind]()
    plan = controller.plan(small_model(), random_belief(3), generator=seeded(0), keep_history=True)
    assert plan.actions.shape == (3, H, A)
    assert plan.mean.shape == (3, controller.plan_size)
    assert plan.actions.abs().max() <= 1
    assert plan.mean.abs().max() <= 1
    assert len(plan.history) == controller.num_iterations
    torch.testing.assert_close(plan.history[-1].mean, plan.mean if plan.carried is None else plan.carried[:, 0])
    assert plan.history[0].samples.abs().max() <= 1
    assert controller.plan(small_model(), random_belief(3), generator=seeded(0)).history is None


@either
def test_a_batch_of_beliefs_equals_one_at_a_time(kind):
    controller, model, belief = CONTROLLERS[kind](), small_model(), random_belief(5)
    noise = draw(controller, 5)
    with torch.no_grad():
        batch = controller.plan(model, belief, noise=noise)
        for b in range(5):
            row = Belief(belief.h[b : b + 1], belief.s[b : b + 1])
            alone = controller.plan(model, row, noise=noise[:, b : b + 1])
            torch.testing.assert_close(batch.actions[b : b + 1], alone.actions, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(batch.mean[b : b + 1], alone.mean, rtol=1e-4, atol=1e-5)


@either
def test_one_noise_bank_serves_all_beliefs(kind):
    controller, model, belief = CONTROLLERS[kind](), small_model(), random_belief(3)
    bank = draw(controller, 1)
    with torch.no_grad():
        shared = controller.plan(model, belief, noise=bank)
        repeated = controller.plan(model, belief, noise=bank.expand(-1, 3, -1, -1))
    torch.testing.assert_close(shared.actions, repeated.actions)


@either
def test_the_same_generator_seed_gives_the_same_plan(kind):
    controller, model, belief = CONTROLLERS[kind](), small_model(), random_belief(3)
    plans = [controller.plan(model, belief, generator=seeded(s)).mean.detach() for s in (1, 1, 2)]
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[0], plans[2])


@either
def test_a_warm_start_is_where_the_search_begins(kind):
    controller, model, belief = CONTROLLERS[kind](init_std=1e-6, num_iterations=1), small_model(), random_belief(3)
    start = torch.rand(3, controller.plan_size, generator=seeded(0)) - 0.5
    plan = controller.plan(model, belief, start, generator=seeded(1))
    torch.testing.assert_close(plan.mean, start, rtol=0, atol=1e-4)
    torch.testing.assert_close(plan.actions, controller.decode(start, belief), rtol=0, atol=1e-3)
    cold = controller.plan(model, belief, generator=seeded(1))
    torch.testing.assert_close(cold.mean, torch.zeros_like(start), rtol=0, atol=1e-4)


def test_shift_moves_a_plan_of_actions_on_by_one_decision():
    controller = full()
    mean, belief = torch.randn(3, H * A, generator=seeded(0)), random_belief(3)
    before = controller.decode(mean, belief)
    after = controller.decode(controller.shift(Plan(before, mean, None), belief), belief)
    assert torch.equal(after[:, :-1], before[:, 1:])
    assert (after[:, -1] == 0).all()


@pytest.mark.parametrize("conditioning", ["none", "belief"])
def test_shift_finds_the_latent_point_nearest_to_the_plan_moved_on(conditioning):
    """Of the last one and of 500 others, against a search by hand, one problem at a time."""
    controller, belief = embedded(conditioning), random_belief(5)
    mean = 2 * torch.rand(5, LATENT, generator=seeded(0)) - 1
    plan = Plan(controller.decode(mean, belief), mean, None)
    shifted = controller.shift(plan, belief)
    for b in range(5):
        one = Belief(belief.h[b : b + 1], belief.s[b : b + 1])
        points = [mean[b], *controller.points]
        distances = torch.stack(
            [(controller.decode(z[None], one)[0, :-1] - plan.actions[b, 1:]).square().sum() for z in points]
        )
        torch.testing.assert_close(shifted[b], points[int(distances.argmin())])
        assert distances.min() < distances[0]  # the plan itself, a decision too late, is further away
    assert controller.points.abs().max() <= 1
    assert "points" not in controller.state_dict()


def test_shift_keeps_a_latent_point_that_stands_for_every_moment():
    """A decoder that repeats one action: no other point is nearer."""
    controller, belief = embedded(), random_belief(3)
    last = controller.decoder.body[-1]
    last.weight.data[A:] = last.weight.data[:A].repeat(H - 1, 1)
    last.bias.data[:] = 0
    mean = torch.rand(3, LATENT, generator=seeded(0)) - 0.5
    assert torch.equal(controller.shift(Plan(controller.decode(mean, belief), mean, None), belief), mean)


def test_more_search_finds_a_better_plan():
    model, belief = small_model(), random_belief(6)
    returns = [
        model.predict_rewards(belief, controller.plan(model, belief, generator=seeded(3)).actions[:, None]).sum(-1)
        for controller in (full(num_iterations=1), full(num_samples=400, num_elites=40, num_iterations=8))
    ]
    assert (returns[1] > returns[0]).all()


@pytest.mark.parametrize("normalize", [True, False])
def test_a_plan_does_not_depend_on_the_rewards_unit(normalize):
    plans = []
    for unit in (1e-3, 1.0, 1e4):
        controller, model = embedded(normalize=normalize), small_model()
        model.reward_norm.update(unit * torch.randn(100, 1, generator=seeded(0)))
        plans.append(controller.plan(model, random_belief(3), generator=seeded(1)))
    for plan in plans[1:]:
        torch.testing.assert_close(plan.mean, plans[0].mean, rtol=1e-3, atol=1e-4)
    assert plans[0].entropy.max() > 1.8  # of a soft selection; six elites alone have 1.79


@pytest.mark.parametrize("conditioning", ["none", "belief"])
def test_cost_is_the_negative_sum_of_the_decoded_rewards(conditioning):
    controller, model, belief = embedded(conditioning), small_model(), random_belief(3)
    z = 2 * torch.rand(3, 7, LATENT, generator=seeded(0)) - 1
    cost = controller.cost(model, belief, z)
    assert cost.shape == (3, 7)
    for n in range(7):
        rewards = model.predict_rewards(belief, controller.decode(z[:, n], belief)[:, None])
        torch.testing.assert_close(cost[:, n : n + 1], -rewards.sum(-1))


def test_temperature_zero_is_cem_over_the_latent_box():
    controller, model, belief = embedded(temperature=0.0), small_model(), random_belief(3)
    noise = draw(controller, 3)
    plan = controller.plan(model, belief, noise=noise)
    zeros = torch.zeros(3, LATENT)
    solution = cem(
        lambda z: controller.cost(model, belief, z),
        zeros,
        torch.full_like(zeros, controller.init_std),
        num_samples=controller.num_samples,
        num_elites=controller.num_elites,
        num_iterations=controller.num_iterations,
        bounds=(-1.0, 1.0),
        noise=noise,
    )
    torch.testing.assert_close(plan.mean, solution.mean)


# Gradients


def gradient_names(output: torch.Tensor, *modules: torch.nn.Module) -> set[str]:
    """The parts that output's sum reaches: the names of the modules' children."""
    reached = set()
    for module in modules:
        module.zero_grad(set_to_none=True)
    output.sum().backward()
    for module in modules:
        for name, p in module.named_parameters():
            if p.grad is not None and (p.grad != 0).any():
                reached.add(name.split(".")[0])
    return reached


@pytest.mark.parametrize("kind", ["embedded", "refined", "softmax"])
def test_gradient_of_a_planned_action_reaches_all_parts_of_the_controller(kind):
    controller, model = CONTROLLERS[kind](), small_model()
    plan = controller.plan(model, random_belief(3), generator=seeded(0))
    assert gradient_names(plan.actions[:, 0], controller, model) == {"decoder", "gru", "prior_net", "reward_net"}


@pytest.mark.parametrize("kind", ["embedded", "refined", "softmax"])
def test_gradient_of_the_latent_solution_goes_through_the_selection(kind):
    controller, model = CONTROLLERS[kind](), small_model()
    plan = controller.plan(model, random_belief(3), generator=seeded(0))
    assert gradient_names(plan.mean, controller, model) == {"decoder", "gru", "prior_net", "reward_net"}


def test_at_temperature_zero_the_gradient_stops_at_the_solution():
    controller, model = embedded(temperature=0.0), small_model()
    plan = controller.plan(model, random_belief(3), generator=seeded(0))
    assert gradient_names(plan.actions, controller, model) == {"decoder"}
    assert not plan.mean.requires_grad


@pytest.mark.parametrize("kind", ["full", "icem", "mppi"])
def test_full_space_plan_has_no_gradient(kind):
    plan = CONTROLLERS[kind]().plan(small_model(), random_belief(3), generator=seeded(0))
    assert not plan.actions.requires_grad


def test_gradient_of_one_belief_does_not_reach_another():
    controller, model = embedded(), small_model()
    h, s = (x.requires_grad_() for x in random_belief(3))
    plan = controller.plan(model, Belief(h, s), generator=seeded(0))
    g_h, g_s = torch.autograd.grad(plan.actions[1].sum(), (h, s))
    for g in (g_h, g_s):
        assert (g[1] != 0).any()
        assert (g[[0, 2]] == 0).all()


@pytest.mark.parametrize("kind", ["embedded", "conditioned", "refined", "softmax"])
def test_checkpointed_gradient_equals_the_plain_one(kind):
    controller, model, belief = CONTROLLERS[kind](), small_model(), random_belief(4)
    parameters = [*controller.parameters(), *model.transition_parameters(), *model.reward_net.parameters()]
    noise = draw(controller, 1)
    gradients = []
    for checkpoint in (False, True):
        actions = controller.plan(model, belief, noise=noise, checkpoint=checkpoint).actions
        gradients.append(torch.autograd.grad(actions[:, 0].sum(), parameters))
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-6)


def test_a_plan_does_not_depend_on_whether_a_gradient_is_asked_for():
    """At the paper's sizes: PPO compares the plan of a rollout with the same one on the learner, in another batch."""
    torch.manual_seed(0)
    model, std = RSSM(17, 6), 0.1
    controller = EmbeddedController(ActionDecoder(16, 12, 6, init_scale=3.0))
    belief = Belief(torch.randn(8, 200, generator=seeded(0)).tanh(), torch.randn(8, 30, generator=seeded(1)))
    noise = draw(controller, 8)
    with torch.no_grad():
        rollout = [
            controller.plan(model, Belief(belief.h[i], belief.s[i]), noise=noise[:, i]).actions[:, 0]
            for i in (slice(0, 3), slice(3, 8))
        ]
    mean = torch.cat(rollout)
    action = mean + std * torch.randn(mean.shape, generator=seeded(2))
    again = controller.plan(model, belief, noise=noise).actions[:, 0].detach()
    log_ratio = (((action - mean) / std).square() - ((action - again) / std).square()).sum(-1) / 2
    assert (log_ratio.exp() - 1).abs().max() <= 1e-4


# It learns


class Waves:
    """The best sequence of a belief is a wave: amplitudes h[:, :2] of a sine and a cosine, the same in all actions."""

    horizon, action_size = 10, 2

    def predict_rewards(self, belief: Belief, actions: torch.Tensor) -> torch.Tensor:
        t = torch.arange(self.horizon) * 0.6
        target = belief.h[:, :1] * t.sin() + belief.h[:, 1:] * t.cos()  # [B, H]
        return -(actions - target[:, None, :, None]).square().sum(-1)


@pytest.mark.learn
def test_embedded_search_beats_random_search_at_equal_evaluations():
    model = Waves()
    torch.manual_seed(0)
    decoder = ActionDecoder(2, model.horizon, model.action_size, hidden_size=64)
    controller = EmbeddedController(decoder, num_samples=50, num_elites=5, num_iterations=6)
    optimizer = torch.optim.Adam(decoder.parameters(), 3e-3)
    generator = seeded(0)

    def beliefs(B: int) -> Belief:
        h = 1.2 * torch.rand(B, 2, generator=generator) - 0.6
        return Belief(h, torch.zeros(B, 0))

    def cost(belief: Belief, actions: torch.Tensor) -> torch.Tensor:
        return -model.predict_rewards(belief, actions).sum(-1)

    for _ in range(200):
        belief = beliefs(16)
        plan = controller.plan(model, belief, generator=generator)
        loss = cost(belief, plan.actions[:, None]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    belief = beliefs(64)
    evaluations = controller.num_samples * controller.num_iterations
    candidates = 2 * torch.rand(64, evaluations, model.horizon, model.action_size, generator=generator) - 1
    random_search = cost(belief, candidates).min(-1).values
    with torch.no_grad():
        found = cost(belief, controller.plan(model, belief, generator=generator).actions[:, None])[:, 0]
    nothing = cost(belief, torch.zeros(64, 1, model.horizon, model.action_size))[:, 0]
    assert (found < random_search).all()
    assert found.mean() < 0.2 * nothing.mean()
