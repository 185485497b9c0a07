"""The embedded DCEM controller as a stochastic policy (DCEM paper, section 5.2.2 and appendix D, phase 3).

    pi(a | belief) = N(a; first action of the plan, diag(std^2))

Axes: B environments or decisions, T steps (1 in a rollout), K noise indices, I solver iterations, N candidates,
n solver variables, O observation, A action, D deterministic, S stochastic.

Departures from the paper, which says nothing on either:
- Common random numbers. DCEM's own draws come from a fixed bank, and each decision stores the index of those it used.
  The policy's mean is then a deterministic function of (belief, warm start, index), and the learner's likelihood ratios
  are exact on the first pass.
- Where an agent's actor proposes plans, a decision stores whether the proposal was taken. The learner holds it so: the
  policy's mean is then a constant, not a function that jumps from one plan to the other.
- The learner plans from the beliefs that the rollouts stored. PPO's gradient passes through the planner, but not
  through the filter that made the belief: a fine-tuned transition learns to predict better for control, not to remember
  better.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from parsecrl.algorithms.checkpoints.agent import load_agent
from parsecrl.algorithms.controllers import Plan, PlanningAgent
from parsecrl.algorithms.controllers.value_gradient import planner_parameters
from parsecrl.algorithms.models import Belief
from parsecrl.algorithms.models.layers import RunningNorm, mlp
from parsecrl.algorithms.models.matrix_products import ProductChoice
from parsecrl.algorithms.training.measurements import PlanLog
from parsecrl.algorithms.training.seeding import derive_seed

# Columns that a rollout stores for each decision, beside RLlib's own.
H, S, WARM_START, NOISE_INDEX = "belief_h", "belief_s", "warm_start", "noise_index"
IS_ACTORS = "is_actors"  # [B] bool, where the actor's plan took the place of what the search found
DECISION = (H, S, WARM_START, NOISE_INDEX, IS_ACTORS, Columns.ACTION_DIST_INPUTS)
ACTION_NOISE = "action_noise"  # [B, A] standard normal, of a rollout's batch alone


class DCEMPPORLModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):
    """Filters, plans and samples; on the learner also estimates values.

    model_config: start_from (checkpoint folder of an agent with an embedded controller; where a checkpoint of this
    module is restored, none), start_from_trusted (whether code that the agent names may run), world_model, controller
    and decoder (the agent's), fine_tune (some of reward, transition, decoder), std {value, learned}, noise_bank_size,
    seed, max_seq_len.
    Stored actions are as sampled and may leave [-1, 1]; the model sees them clipped, as the environment does.
    Raises ValueError when the agent cannot be the policy of this environment.
    """

    noise_bank: Tensor  # [K, I, N, n]

    def setup(self) -> None:
        """As RLlib asks: load the agent, draw the noise bank, make the value network."""
        config = self.model_config
        if config["start_from"]:
            self.agent, _ = load_agent(config["start_from"], trust=config["start_from_trusted"])
        else:
            sizes = (self.observation_space.shape[-1], self.action_space.shape[-1])
            groups = (config[name] for name in ("world_model", "controller", "decoder", "value"))
            self.agent = PlanningAgent(*sizes, *groups).eval()
        self.products = ProductChoice()  # likelihood ratios of another product's plans would not be exact
        self._check_agent()
        controller = self.agent.controller
        self.agent.requires_grad_(False)
        for parameter in self.fine_tuned_parameters():
            parameter.requires_grad_(True)
        log_std = torch.full((self.agent.model.action_size,), math.log(config["std"]["value"]))
        self.log_std = nn.Parameter(log_std, requires_grad=bool(config["std"]["learned"]))

        bank_size = (config["noise_bank_size"], *controller.noise_shape)
        self._generator = torch.Generator().manual_seed(derive_seed(config["seed"], "noise_bank"))
        # A buffer: it travels with the weights, and is in the checkpoint.
        self.register_buffer("noise_bank", torch.randn(bank_size, generator=self._generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config["seed"], "weights"))
            self.value_net = mlp([self.agent.model.belief_size, 200, 200, 1])
        self.value_norm = RunningNorm(1)  # of the value targets
        self.plan_log = PlanLog()

    def seed(self, seed: int) -> None:
        """Restart this module's random numbers.

        Args:
            seed: 0 or more.
        """
        self._generator.manual_seed(seed)

    def _check_agent(self) -> None:
        model, folder = self.agent.model, self.model_config["start_from"]
        sizes = (self.observation_space.shape[-1], self.action_space.shape[-1])
        if sizes != (model.obs_size, model.action_size):
            raise ValueError(
                f"the agent in {folder} has observations and actions of size {(model.obs_size, model.action_size)}, "
                f"this environment {sizes}; start from a checkpoint of the same environment"
            )
        check_fine_tuned(self.agent, self.model_config["fine_tune"], f"the agent in {folder}")

    def fine_tuned_parameters(self) -> list[nn.Parameter]:
        """What PPO's gradient may change, the standard deviation aside."""
        return planner_parameters(self.agent, self.model_config["fine_tune"])

    def get_non_inference_attributes(self) -> list[str]:
        """As RLlib asks: what acting can do without."""
        return ["value_net", "value_norm"]

    def get_initial_state(self) -> dict[str, Tensor]:
        """As RLlib asks: the agent's state at an episode's beginning, without the axis B."""
        return {name: value[0].cpu() for name, value in self.agent.initial_state(1).items()}

    def plan(self, batch: dict[str, Tensor]) -> Plan:
        """Plan as the agent acts.

        Args:
            batch: Columns H, S, WARM_START and NOISE_INDEX, [B, ...] each.

        Returns:
            The plans.
        """
        return self.agent.plan(*self._decided(batch))

    def search(self, batch: dict[str, Tensor]) -> Plan:
        """What the planner finds for stored decisions, differentiable; each iteration is recomputed in backward.

        Args:
            batch: As of `plan`.

        Returns:
            The plans, none of them the actor's.
        """
        return self.agent.search(*self._decided(batch), checkpoint=True)

    def _decided(self, batch: dict[str, Tensor]) -> tuple[Belief, dict[str, Tensor], None, Tensor]:
        """Belief, state, generator and noise of decisions."""
        noise = self.noise_bank[batch[NOISE_INDEX]].transpose(0, 1)  # [I, B, N, n]
        return Belief(batch[H], batch[S]), {"plan": batch[WARM_START]}, None, noise

    def distribution_inputs(self, mean: Tensor) -> Tensor:
        """What RLlib's diagonal Gaussian wants.

        Args:
            mean: [B, A].

        Returns:
            Mean and log standard deviation, [B, 2 A].
        """
        return torch.cat([mean, self.log_std.expand_as(mean)], -1)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._decide(batch, explore=True)

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._decide(batch, explore=False)

    @torch.no_grad()
    def _decide(self, batch: dict[str, Any], explore: bool) -> dict[str, Any]:
        """One decision per environment: obs [B, 1, O], state [B, ...] -> columns [B, 1, ...], next state [B, ...].

        A batch that lacks NOISE_INDEX [B] and ACTION_NOISE gets draws of this module's own.
        """
        start = time.perf_counter()
        state, obs = batch[Columns.STATE_IN], batch[Columns.OBS][:, 0].float()
        belief = self.agent.update_belief(state, obs)
        index, eps = batch.get(NOISE_INDEX), batch.get(ACTION_NOISE)
        if index is None or eps is None:
            index = torch.randint(len(self.noise_bank), (len(obs),), generator=self._generator).to(obs.device)
            eps = torch.randn(state["action"].shape, generator=self._generator).to(obs.device)
        columns = {H: belief.h, S: belief.s, WARM_START: state["plan"], NOISE_INDEX: index}
        plan = self.plan(columns)
        inputs = self.distribution_inputs(plan.actions[:, 0])
        mean, log_std = inputs.chunk(2, -1)
        action = mean + log_std.exp() * eps if explore else mean
        columns[IS_ACTORS] = torch.zeros_like(index, dtype=torch.bool) if plan.is_actors is None else plan.is_actors
        columns[Columns.ACTIONS] = action
        columns[Columns.ACTION_LOGP] = TorchDiagGaussian.from_logits(inputs).logp(action)
        columns[Columns.ACTION_DIST_INPUTS] = inputs
        if obs.is_cuda:
            torch.cuda.synchronize(obs.device)
        trajectories = len(obs) * self.agent.trajectories
        promised = self.agent.promised_rewards(belief, plan) if self.plan_log.wants_prediction else None
        self.plan_log.add(time.perf_counter() - start, len(obs), trajectories, plan.entropy, promised)
        next_state = self.agent.next_state(belief, action.clamp(-1.0, 1.0), plan)
        return {name: column[:, None] for name, column in columns.items()} | {Columns.STATE_OUT: next_state}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """The policy of stored decisions [B, ...], differentiable."""
        mean = self.search(batch).actions[:, 0]
        proposed, _ = batch[Columns.ACTION_DIST_INPUTS].chunk(2, -1)
        mean = torch.where(batch[IS_ACTORS].bool()[:, None], proposed, mean)
        return {Columns.ACTION_DIST_INPUTS: self.distribution_inputs(mean)}

    @torch.no_grad()
    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Expected discounted returns of the beliefs in the batch; never plans.

        RLlib appends to each episode a step with the last decision's columns and the final observation, and masks it.
        There the value is that of the belief after this observation.

        Args:
            batch: Columns H and S, [B, ...] or [B, T, ...]; on the learner also what the appended steps need.
            embeddings: RLlib's; is not read.

        Returns:
            [B] or [B, T], environment units.
        """
        belief = Belief(batch[H], batch[S])
        if Columns.LOSS_MASK in batch:
            extra = ~batch[Columns.LOSS_MASK]
            state = {
                "h": belief.h[extra],
                "s": belief.s[extra],
                "action": batch[Columns.ACTIONS][extra].clamp(-1.0, 1.0),
            }
            final = self.agent.update_belief(state, batch[Columns.OBS][extra].float())
            h, s = belief.h.clone(), belief.s.clone()
            h[extra], s[extra] = final
            belief = Belief(h, s)
        return self.value_norm.inverse(self.standard_values(belief))

    def standard_values(self, belief: Belief) -> Tensor:
        """Values [...] of beliefs [...] in units of `value_norm`: a learning rate suits any scale of the reward."""
        return self.value_net(torch.cat(belief, -1)).squeeze(-1)


def check_fine_tuned(agent: PlanningAgent, fine_tune: list[str], owner: str) -> None:
    """See that the gradient of a plan reaches what is to be fine-tuned.

    Args:
        agent: Whose controller plans.
        fine_tune: Parts: reward, transition, decoder.
        owner: Whose controller it is, for the message.

    Raises:
        ValueError: The gradient does not reach a part.
    """
    reached = agent.controller.differentiable_in
    if set(fine_tune) - set(reached):
        raise ValueError(
            f"fine_tune must name what the gradient of a plan reaches, got {fine_tune} where the controller of "
            f"{owner}, of kind {agent.kind!r}, has {', '.join(reached) or 'nothing'}; change one of them"
        )
