"""The RLModule of phases 1 and 2: the rollouts plan, the learner computes the likelihood bound and the decoder loss."""

from __future__ import annotations

import time
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from parsecrl.algorithms.checkpoints.agent import load_matching_weights
from parsecrl.algorithms.controllers import FullSpaceController, Plan, PlanningAgent, cost_scale, predicted_cost
from parsecrl.algorithms.models import Belief, LossWeights, ReplaySequence, actor_critic_loss
from parsecrl.algorithms.models.frozen import frozen
from parsecrl.algorithms.models.matrix_products import ProductChoice
from parsecrl.algorithms.training.measurements import PlanLog
from parsecrl.algorithms.training.seeding import derive_seed

# Columns of a training batch beside RLlib's own; axes [B, ...].
INITIAL_OBS, INITIAL_ACTIONS = "initial_obs", "initial_actions"  # [B, O], [B, H, A] how replayed episodes began
PLANNED_H, PLANNED_S = "planned_h", "planned_s"  # [B, D], [B, S] beliefs that were just planned from
UPDATE = "update"  # [B] int64, the number of the update in every row
EXPLAINED = "reward_explained_variance"  # a term of every tenth update that is no loss
EXPLAIN_EVERY = 10  # updates between two looks at how well rewards are predicted
DECODER_ONLY = "decoder_only"  # [B] bool, the same in every row: leave the world model as it is


class PlanetRLModule(TorchRLModule):
    """Algorithm 3 of the DCEM paper around a PlanningAgent.

    model_config: world_model, controller, decoder, value, loss (the spec's groups), exploration_noise, decoder_beliefs,
    decoder_initial_beliefs, decoder_anchor, decoder_proposals, keep_model, start_from (a checkpoint folder or None),
    seed.
    """

    agent: PlanningAgent

    def setup(self) -> None:
        """As RLlib asks: make the agent, with weights of the seed or of start_from."""
        c = self.model_config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(c["seed"], "weights"))
            self.agent = make_agent(self.observation_space, self.action_space, c)
        if c["start_from"] and c["keep_model"]:
            load_matching_weights(self.agent, c["start_from"])
        self.loss_weights = LossWeights(**c["loss"])
        self.products = ProductChoice()
        self.proposals = make_proposals(self.agent, c["decoder_proposals"])
        self._generators: dict[torch.device, torch.Generator] = {}
        self.seed(derive_seed(c["seed"], "module"))
        self.plan_log = PlanLog()

    def seed(self, seed: int) -> None:
        """Restart this module's random numbers."""
        self._seed = seed
        self._generators.clear()

    def _generator(self) -> torch.Generator:
        device = self.agent.trained.device
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]

    def get_initial_state(self) -> dict[str, Tensor]:
        """As RLlib asks: the agent's state at an episode's beginning, without the axis B."""
        return {name: value[0] for name, value in self.agent.initial_state(1).items()}

    # Rollouts.

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._act(batch, explore=False)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._act(batch, explore=True)

    @torch.no_grad()
    def _act(self, batch: dict[str, Any], explore: bool) -> dict[str, Any]:
        """obs [B, 1, O], state [B, ...] -> actions [B, 1, A] and the next state."""
        start = time.perf_counter()
        state, obs = batch[Columns.STATE_IN], batch[Columns.OBS][:, 0]
        belief = self.agent.update_belief(state, obs)
        plan: Plan | None = None
        promised: Tensor | None = None
        trajectories = 0
        if explore and not self.agent.trained:
            # The seed episodes: uniform actions until weights arrive that have seen data.
            action = 2 * torch.rand(state["action"].shape, generator=self._generator(), device=obs.device) - 1
        else:
            plan = self.agent.plan(belief, state, generator=self._generator())
            action = plan.actions[:, 0]
            trajectories = obs.shape[0] * self.agent.trajectories
            if self.plan_log.wants_prediction:
                promised = self.agent.promised_rewards(belief, plan)
            if explore:
                noise = torch.randn(action.shape, generator=self._generator(), device=action.device)
                action = (action + self.model_config["exploration_noise"] * noise).clamp(-1, 1)
        entropy = None if plan is None else plan.entropy
        self.plan_log.add(time.perf_counter() - start, obs.shape[0], trajectories, entropy, promised)
        next_state = self.agent.next_state(belief, action, plan)
        return {Columns.ACTIONS: action[:, None], Columns.STATE_OUT: next_state}

    # Learning.

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """obs [B, T, O] and so on -> {"loss": scalar, "terms": detached scalars}."""
        self.seed(derive_seed(self.model_config["seed"], "update", int(batch[UPDATE][0])))
        sequence = ReplaySequence(
            *(batch[name] for name in (Columns.OBS, Columns.ACTIONS, Columns.REWARDS)),
            *(batch[name].bool() for name in ("is_first", "is_terminated")),
        )
        if self.loss_weights.continuation_weight == 0:
            sequence = sequence._replace(terminated=torch.zeros_like(sequence.terminated))
        loss, terms, _ = self.losses(batch, sequence)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Several learners wait for each other's gradient of every parameter, also of what a batch did not ask.
            loss = loss + 0 * sum(parameter.sum() for parameter in self.parameters())
        return {"loss": loss, "terms": terms}

    def learned(self, batch: dict[str, Any]) -> frozenset[str]:
        """Which losses an update takes, of likelihood, decoder and value, as far as there are the parts."""
        return frozenset({"decoder"} if bool(batch[DECODER_ONLY][0]) else {"likelihood", "decoder", "value"})

    def losses(self, batch: dict[str, Any], sequence: ReplaySequence) -> tuple[Tensor, dict[str, Tensor], Belief]:
        """The sum of an update's losses.

        Args:
            batch: Columns [B, ...].
            sequence: Of the batch, [B, T].

        Returns:
            The loss [], its terms [] (detached) and the beliefs after each observation, [B, T].
        """
        model, learned = self.agent.model, self.learned(batch)
        terms: dict[str, Tensor] = {}
        if "likelihood" in learned:
            model.update_statistics(sequence)
            loss, terms, beliefs = model.loss(sequence, self.loss_weights, self._generator())
            if int(batch[UPDATE][0]) % EXPLAIN_EVERY == 0:
                terms[EXPLAINED] = explained_reward(model, beliefs, sequence)
        else:
            with torch.no_grad():
                beliefs = model.filter_sequence(sequence, self._generator())
            loss = sequence.obs.new_zeros(())
        if self.agent.decoder is not None and "decoder" in learned:
            chosen, target = self._decoder_beliefs(batch, sequence, beliefs)
            if self.proposals is not None:
                with torch.no_grad():
                    target = self.proposals.plan(model, chosen, generator=self._generator()).actions
            cost, distance = self.decoder_loss(chosen, target)
            terms |= {"decoder_loss": cost.detach(), "decoder_distance": distance.detach()}
            scale = cost_scale(model, self.agent.controller.score)
            loss = loss + cost / scale + self.model_config["decoder_anchor"] * distance
        if self.agent.actor_critic is not None and "value" in learned:
            value_loss, value_terms = self.value_loss(beliefs, sequence)
            loss, terms = loss + value_loss, terms | value_terms
        return loss, terms, beliefs

    def choose(self, beliefs: Belief, sequence: ReplaySequence, count: int) -> tuple[Belief, Tensor]:
        """Draw replayed beliefs, without their graph.

        Args:
            beliefs: After each observation, [B, T].
            sequence: The observations' own, [B, T].
            count: How many are drawn, of B T at most.

        Returns:
            The beliefs [M], and 0 where an episode had ended there, else 1, [M].
        """
        chosen = torch.randperm(beliefs.h[..., 0].numel(), generator=self._generator(), device=beliefs.h.device)[:count]
        start = Belief(*(part[chosen] for part in beliefs.detach().flatten()))
        return start, (~sequence.terminated).flatten()[chosen].to(start.h.dtype)

    def value_loss(self, beliefs: Belief, sequence: ReplaySequence) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of critic and actor, from replayed beliefs on; the gradient reaches these two only.

        Args:
            beliefs: After each observation, [B, T].
            sequence: The observations' own, [B, T].

        Returns:
            As `actor_critic_loss`.
        """
        c, actor_critic = self.model_config["value"], self.agent.actor_critic
        assert actor_critic is not None
        start, goes_on = self.choose(beliefs, sequence, c["imagined_beliefs"])
        shape = (c["imagined_steps"], len(goes_on), actor_critic.action_size)
        eps = torch.randn(shape, generator=self._generator(), device=start.h.device)
        with frozen(self.agent.model):
            return actor_critic_loss(self.agent.model, actor_critic, start, goes_on, eps, c["return_lambda"])

    @torch.no_grad()
    def _decoder_beliefs(
        self, batch: dict[str, Any], sequence: ReplaySequence, filtered: Belief
    ) -> tuple[Belief, Tensor]:
        """The beliefs [M] of one decoder update and the actions [M, H, A] that were taken from there.

        Beliefs of the replayed sequences (filtered [B, T]) or those just planned from, and initial ones beside them.
        Actions that are not known are NaN: those behind an episode's end, and of beliefs just planned from all.
        """
        c, model, horizon = self.model_config, self.agent.model, self.agent.controller.horizon
        if PLANNED_H in batch:
            chosen = Belief(batch[PLANNED_H], batch[PLANNED_S])
            actions = sequence.action.new_full((len(chosen.h), horizon, sequence.action.shape[-1]), float("nan"))
        else:
            rows, steps, known = followed(sequence.is_first, horizon)
            index = torch.randperm(len(rows), generator=self._generator(), device=rows.device)[: c["decoder_beliefs"]]
            rows, steps = rows[index], steps[index]
            chosen = Belief(filtered.h[rows, steps], filtered.s[rows, steps])
            ahead = torch.arange(horizon, device=steps.device)
            actions = sequence.action[rows[:, None], (steps[:, None] + ahead).clamp(max=sequence.action.shape[1] - 1)]
            actions[ahead >= known[index, None]] = float("nan")
        count = c["decoder_initial_beliefs"]
        obs = batch[INITIAL_OBS][:count]
        state = self.agent.initial_state(obs.shape[0])
        initial = model.update_belief(Belief(state["h"], state["s"]), state["action"], obs)
        return (
            Belief(torch.cat([chosen.h, initial.h]), torch.cat([chosen.s, initial.s])),
            torch.cat([actions, batch[INITIAL_ACTIONS][:count]]),
        )

    def decoder_loss(self, beliefs: Belief, target: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's part of algorithm 3; the gradient reaches the decoder only.

        Args:
            beliefs: [M].
            target: Actions that were taken there (NaN: unknown), or full-space CEM's proposals, [M, H, A].

        Returns:
            The mean predicted cost of the plans, environment units. And, not in the paper, their mean squared distance
            from the target, summed over H and A. Both are [].
        """
        model, controller = self.agent.model, self.agent.controller
        assert self.agent.decoder is not None
        # The critic too, whose value counts in the cost of a plan.
        with frozen(self.agent, but=self.agent.decoder.parameters()):
            plan = controller.plan(model, beliefs, generator=self._generator())
            cost = predicted_cost(model, beliefs, plan.actions[:, None], controller.score).mean()
        known = ~target.isnan()
        difference = (plan.actions - target.nan_to_num()) * known
        distance = (difference**2).sum() / known.any(-1).any(-1).sum().clamp(min=1)
        return cost, distance


@torch.no_grad()
def explained_reward(model: Any, beliefs: Belief, sequence: ReplaySequence) -> Tensor:
    """The share of the rewards' variance that predictions of one decision explain.

    Args:
        model: A WorldModel.
        beliefs: After each observation, [B, T].
        sequence: The observations' own, [B, T].

    Returns:
        One minus the squared error over the rewards' squared deviation from their mean, [], cut off below -1.
    """
    known = ~sequence.is_first[:, 1:]  # [B, T - 1], as what follows
    before = Belief(beliefs.h[:, :-1][known], beliefs.s[:, :-1][known])  # [M]
    actions, rewards = sequence.action[:, :-1][known], sequence.reward[:, 1:][known].double()
    predicted = model.predict_rewards(before, actions[:, None, None])[:, 0, 0].double()
    deviation = ((rewards - rewards.mean()) ** 2).sum()
    error = ((rewards - predicted) ** 2).sum()
    return (1 - error / deviation.clamp(min=1e-300)).nan_to_num(-1.0).clamp(min=-1.0)


def followed(is_first: Tensor, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the steps from which all actions are known, up to the horizon or to the episode's end, one at least.

    At an episode's last observation the buffer repeats an action that was never taken there: it does not count.

    Args:
        is_first: [B, T] bool.
        horizon: H.

    Returns:
        Rows, steps, and how many actions are known, in [1, H]; [M] int64 each.

    Raises:
        ValueError: H > T: no sequence can be so long.
    """
    T = is_first.shape[1]
    if horizon > T:
        raise ValueError(
            f"batch_length must be at least controller.horizon, got {T} with horizon={horizon}; raise batch_length"
        )
    step = torch.arange(T, device=is_first.device)
    after = torch.where(is_first, step, T).roll(-1, 1)  # [B, T] the step after, where it begins an episode, else T
    after[:, -1] = T
    begins = after.flip(1).cummin(1).values.flip(1)  # [B, T] where the next episode does
    ends_here = begins < T
    known = begins - step - ends_here.to(torch.int64)
    rows, steps = ((known >= horizon) | (ends_here & (known > 0))).nonzero(as_tuple=True)
    return rows, steps, known[rows, steps].clamp(max=horizon)


def make_agent(observation_space: Any, action_space: Any, settings: dict[str, Any]) -> PlanningAgent:
    """Make the agent of a phase.

    Args:
        observation_space: A Box [O].
        action_space: A Box [A].
        settings: Has the groups world_model, controller, decoder and value.

    Returns:
        The agent, with new weights.

    Raises:
        ValueError: The settings describe no agent.
    """
    return PlanningAgent(
        observation_space.shape[0],
        action_space.shape[0],
        settings["world_model"],
        settings["controller"],
        settings["decoder"],
        settings["value"],
    )


def make_proposals(agent: PlanningAgent, settings: dict[str, Any]) -> FullSpaceController | None:
    """Make CEM over whole action sequences beside an embedded controller, of the same horizon and cost.

    Args:
        agent: Whose decoder gives the sizes.
        settings: Of the search.

    Returns:
        The controller; None without settings or decoder.
    """
    if not settings or agent.decoder is None:
        return None
    proposals = FullSpaceController(agent.controller.horizon, agent.controller.action_size, **settings)
    proposals.score = agent.controller.score
    return proposals
