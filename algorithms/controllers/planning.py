"""Controllers: belief -> action sequence, all beliefs of a batch planned at once (DCEM paper, section 4.2).

Axes: B beliefs, N candidates, n solver variables, H horizon, A action. Actions lie in [-1, 1].
Exploration noise is not a controller's business: whoever executes the action adds it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from parsecrl.algorithms.models import ActionDecoder, Belief
from parsecrl.algorithms.solvers import Iteration, cem, dcem

SHIFT_POINTS = 500  # that may stand for a plan that was moved on; a search tries num_samples x num_iterations


class RewardModel(Protocol):
    """What a controller needs of a model."""

    def predict_rewards(self, belief: Belief, actions: Tensor) -> Tensor: ...


class Plan(NamedTuple):
    """A planned action sequence for each belief."""

    actions: Tensor  # [B, H, A]
    mean: Tensor  # [B, n] the solution in the solver's own variables
    history: list[Iteration] | None  # per iteration, if asked for
    entropy: Tensor | None = None  # [B] nats, of the last selection: see Solution.entropy


class FullSpaceController(nn.Module):
    """CEM over whole action sequences (eq. 7): n = H * A variables, no gradient through the selection.

    warm_start: begin at the previous plan, shifted by one decision, instead of at zero.
    """

    def __init__(
        self,
        horizon: int,
        action_size: int,
        num_samples: int = 1000,
        num_elites: int = 100,
        num_iterations: int = 10,
        init_std: float = 1.0,
        warm_start: bool = False,
    ):
        super().__init__()
        self.horizon, self.action_size = horizon, action_size
        self.num_samples, self.num_elites, self.num_iterations = num_samples, num_elites, num_iterations
        self.init_std, self.warm_start = init_std, warm_start

    @property
    def plan_size(self) -> int:
        return self.horizon * self.action_size

    @property
    def trajectories(self) -> int:
        """Candidates that the model rolls out for one decision."""
        return self.num_samples * self.num_iterations

    def plan(
        self,
        model: RewardModel,
        belief: Belief,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        keep_history: bool = False,
    ) -> Plan:
        """belief [B], warm_start [B, n] or None, noise [num_iterations, B or 1, N, n] or None -> Plan."""
        init_mean = _init_mean(self.plan_size, belief, warm_start)

        def objective(u: Tensor) -> Tensor:
            return -model.predict_rewards(belief, u.unflatten(-1, (self.horizon, self.action_size))).sum(-1)

        solution = cem(
            objective,
            init_mean,
            torch.full_like(init_mean, self.init_std),
            num_samples=self.num_samples,
            num_elites=self.num_elites,
            num_iterations=self.num_iterations,
            bounds=(-1.0, 1.0),
            generator=generator,
            noise=noise,
            keep_history=keep_history,
        )
        return Plan(self.decode(solution.mean, belief), solution.mean, solution.history, solution.entropy)

    def decode(self, x: Tensor, belief: Belief) -> Tensor:
        """Solver variables [B, ..., n] -> actions [B, ..., H, A]."""
        return x.unflatten(-1, (self.horizon, self.action_size))

    def shift(self, plan: Plan, belief: Belief) -> Tensor:
        """The warm start of the next decision [B, n]: the plan moved on by one, its last action 0."""
        return torch.cat([plan.mean[:, self.action_size :], torch.zeros_like(plan.mean[:, : self.action_size])], -1)


class EmbeddedController(nn.Module):
    """DCEM over the decoder's latent box (eq. 8): differentiable in the decoder, the reward and the transition.

    temperature 0 is CEM's selection, with no gradient through it.
    warm_start: begin at the latent point nearest to the previous plan, see `shift`, instead of at zero.
    """

    points: Tensor  # [N, n] of the latent box

    def __init__(
        self,
        decoder: ActionDecoder,
        num_samples: int = 100,
        num_elites: int = 10,
        num_iterations: int = 10,
        init_std: float = 0.5,
        temperature: float = 1.0,
        normalize: bool = True,
        warm_start: bool = False,
    ):
        super().__init__()
        self.decoder = decoder
        self.horizon, self.action_size = decoder.horizon, decoder.action_size
        self.num_samples, self.num_elites, self.num_iterations = num_samples, num_elites, num_iterations
        self.init_std, self.temperature, self.normalize = init_std, temperature, normalize
        self.warm_start = warm_start
        box = torch.quasirandom.SobolEngine(decoder.latent_size, scramble=True, seed=0)
        self.register_buffer("points", 2 * box.draw(SHIFT_POINTS) - 1, persistent=False)

    @property
    def plan_size(self) -> int:
        return self.decoder.latent_size

    @property
    def trajectories(self) -> int:
        """Candidates that the model rolls out for one decision."""
        return self.num_samples * self.num_iterations

    def plan(
        self,
        model: RewardModel,
        belief: Belief,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        keep_history: bool = False,
        checkpoint: bool = False,
    ) -> Plan:
        """As FullSpaceController.plan; checkpoint recomputes each iteration in the backward pass, to save memory."""
        init_mean = _init_mean(self.plan_size, belief, warm_start)
        solution = dcem(
            lambda z: self.cost(model, belief, z),
            init_mean,
            torch.full_like(init_mean, self.init_std),
            num_samples=self.num_samples,
            num_elites=self.num_elites,
            num_iterations=self.num_iterations,
            temperature=self.temperature,
            normalize=self.normalize,
            bounds=(-1.0, 1.0),
            generator=generator,
            noise=noise,
            keep_history=keep_history,
            checkpoint=checkpoint,
        )
        return Plan(self.decode(solution.mean, belief), solution.mean, solution.history, solution.entropy)

    def cost(self, model: RewardModel, belief: Belief, z: Tensor) -> Tensor:
        """C(z; belief) of eq. (8): z [B, N, n] -> [B, N]."""
        return -model.predict_rewards(belief, self.decoder(z, belief)).sum(-1)

    def decode(self, x: Tensor, belief: Belief) -> Tensor:
        """Latent points [B, n] or [B, N, n] -> actions [B, H, A] or [B, N, H, A]."""
        if x.dim() == 2:
            return self.decoder(x[:, None], belief)[:, 0]
        return self.decoder(x, belief)

    @torch.no_grad()
    def shift(self, plan: Plan, belief: Belief) -> Tensor:
        """The warm start of the next decision [B, n]: the latent point that stands for the plan moved on by one.

        A latent point has no time axis; the last one would mean the same actions, a decision too late. Of it and of
        points that fill the box evenly, the one whose actions are nearest to the plan's from its second on. belief: the
        one that the plan was made for.
        """
        points = torch.cat([plan.mean[:, None], self.points.expand(len(plan.mean), -1, -1)], 1)  # [B, 1 + N, n]
        actions = self.decode(points, belief)[:, :, :-1]
        nearest = (actions - plan.actions[:, None, 1:]).square().sum((-1, -2)).argmin(1)  # [B]
        return points.gather(1, nearest[:, None, None].expand(-1, 1, self.plan_size)).squeeze(1)


Controller = FullSpaceController | EmbeddedController


def _init_mean(plan_size: int, belief: Belief, warm_start: Tensor | None) -> Tensor:
    return belief.h.new_zeros(belief.h.shape[0], plan_size) if warm_start is None else warm_start
