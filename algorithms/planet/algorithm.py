"""planet as specs name it: phases 1 and 2 of the DCEM paper."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import reduce
from typing import Any, ClassVar

from parsecrl.algorithms.planet import workload
from parsecrl.algorithms.planet.settings import PlanetSettings
from parsecrl.algorithms.registry.algorithm import CONTROL, ENV_STEPS, NUM_UPDATES, Algorithm, PlayedTask
from parsecrl.algorithms.registry.searched import values_of
from parsecrl.algorithms.registry.user_functions import names_code, own_code_of, own_function
from parsecrl.algorithms.registry.workload import Sizes, Stage, Workplace

AGENT_KEYS = ("controller", "world_model", "decoder", "value")
KEPT_SIZES = ("controller.latent_size", "controller.horizon", "decoder.hidden_size", "decoder.num_layers")


class PlanetAlgorithm(Algorithm):
    """A world model learned by planning in it, and an embedding of its action sequences."""

    name = "planet"
    settings = PlanetSettings
    stop_conditions: ClassVar = {"env_steps": ENV_STEPS, "num_updates": NUM_UPDATES}
    acts = True
    tune_name = "Planet"
    plays = CONTROL

    def trainable(self) -> Any:
        """RLlib's algorithm, imported now."""
        from parsecrl.algorithms.planet.planet import Planet

        return Planet

    def make_config(
        self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any], seed: int, start_from: str | None
    ) -> Any:
        """RLlib's config of the phase."""
        from parsecrl.algorithms.planet.planet import PlanetConfig

        assert env is not None  # the spec has seen to it
        return PlanetConfig.from_phase(phase, env, resources, seed, start_from)

    def gathered(self, folder: Any) -> Any:
        """The replay, and the task of agent.json."""
        from parsecrl.algorithms.checkpoints.agent import read_description
        from parsecrl.algorithms.offline_data.episodes import Dataset
        from parsecrl.algorithms.planet.replay import dataset_episodes

        return Dataset(dataset_episodes(folder), {"env": read_description(folder).get("env")})

    def processes(self, phase: Any, env: dict[str, Any] | None, resources: Mapping[str, Any]) -> list[dict[str, float]]:
        """As with the default settings: the phase's own may be valid only once it has a checkpoint to start from."""
        return super().processes(self.settings(), env, resources)

    def stage(self, phase: Any, work: Workplace, earlier: Mapping[str, Any]) -> Stage:
        """A trial's rollouts and updates, which overlap."""
        return workload.stage(phase, work, self.update_flop(phase, work.sizes))

    def update_flop(self, phase: Any, sizes: Sizes) -> float:
        """FLOP of an update."""
        return workload.update_flop(phase, sizes)

    def decision_s(self, phase: Any, work: Workplace, batch: int, earlier: Mapping[str, Any]) -> float:
        """With its share of a plan for the batch."""
        return work.acting_s + workload.planning_s(phase, work, batch) / batch

    def inherit(self, phase: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
        """A phase that keeps another's model has its sizes, unless it states them."""
        for key in ("world_model", "decoder", "value"):
            if isinstance(source.get(key), dict) and isinstance(phase.get(key, {}), dict):
                phase = {**phase, key: {**source[key], **phase.get(key, {})}}
        return phase

    def check(self, phase: Any) -> None:
        """Refuse a phase on a dataset that would never end."""
        if phase.offline_data is not None and "num_updates" not in phase.stop.conditions:
            raise ValueError(
                f"stop must have num_updates with offline_data, as nothing is gathered, got "
                f"{phase.stop.conditions}; set it, such as stop: {{num_updates: 2000}}"
            )

    def check_start(self, phase: Any, source: Any, earlier: Mapping[str, Any]) -> None:
        """Refuse a source of another algorithm, and one whose kept model or decoder has other sizes."""
        if not isinstance(source, PlanetSettings):
            raise ValueError(
                f"phases.{phase.name}.start_from must name a {self.name} phase, got {phase.start_from!r} of algorithm "
                f"{source.algorithm}"
            )
        if not any(values_of(phase, "keep_model")):
            return
        if phase.world_model != source.world_model:
            raise ValueError(
                f"phases.{phase.name}.world_model must equal that of {phase.start_from!r}, whose model it keeps; "
                f"leave it out, or set keep_model: false"
            )
        size, had = (getattr(settings.value, "hidden_size", None) for settings in (phase, source))
        if None not in (size, had) and size != had:
            raise ValueError(
                f"phases.{phase.name}.value.hidden_size must equal that of {phase.start_from!r}, whose critic and "
                f"actor it keeps, got {size} with {had}; leave it out, or set keep_model: false"
            )
        if phase.controller.kind == source.controller.kind == "embedded":
            _check_kept_decoder(phase, source)

    def check_task(self, phase: Any, obs_size: int, action_size: int, earlier: Mapping[str, Any]) -> None:
        """Make the agents of own code, check that a sequence holds their plans, and read the dataset."""
        if phase.offline_data is not None:
            from parsecrl.algorithms.offline_data.reading import check_sizes, read_dataset

            for path in values_of(phase, "offline_data"):
                check_sizes(path, read_dataset(path), obs_size, action_size)
        for settings in agents_of_own_code(phase):
            from parsecrl.algorithms.controllers import PlanningAgent

            agent = PlanningAgent(obs_size, action_size, **settings)
            if agent.decoder is not None:
                phase.check_holds_plan(agent.controller.horizon)

    def task_warnings(self, phase: Any, task: PlayedTask) -> list[str]:
        """A sentence for each model that cannot predict ends, where the task's episodes terminate."""
        if not task.terminates:
            return []
        models = {settings["world_model"].get("kind", "") for settings in agents_of_own_code(phase)}
        blind = [
            name
            for name in sorted(filter(names_code, models))
            if not hasattr(own_function(name, "world_model.kind", ()), "terminates")
        ]
        told = [
            f"world_model.kind {name!r} has no attribute `terminates`, and episodes of this task terminate: its plans "
            f"cannot tell an end from a step; weigh rewards as parsecrl.algorithms.models.WorldModel.predict says"
            for name in blind
        ]
        if 0 in values_of(phase, "loss.continuation_weight"):
            told.append(
                "loss.continuation_weight is 0, and episodes of this task terminate: plans cannot tell an end from a "
                "step; leave the key out"
            )
        return told


def agents_of_own_code(phase: Any) -> list[dict[str, Any]]:
    """The agents of a phase that code of users' own makes.

    Args:
        phase: Of a spec.

    Returns:
        The groups of keys that make each agent, where they name code: as stated, and with each searched value.
    """
    stated = phase.model_dump(include=set(AGENT_KEYS), exclude_none=True)
    found = [stated]
    for path, domain in phase.search.items():
        *groups, key = path.split(".")
        for value in domain.values if groups and groups[0] in AGENT_KEYS else ():
            found.append(copy.deepcopy(stated))
            reduce(dict.__getitem__, groups, found[-1])[key] = value
    return [settings for settings in found if own_code_of(settings)]


def _check_kept_decoder(phase: Any, source: Any) -> None:
    """Raise ValueError where `phase` keeps a decoder of other sizes than its own."""
    for key in KEPT_SIZES:
        had = values_of(source, key)
        for value in values_of(phase, key):
            if value not in had:
                raise ValueError(
                    f"phases.{phase.name}.{key} must equal that of {phase.start_from!r}, whose decoder it keeps, "
                    f"got {value} with {' or '.join(map(str, had))}; give the same, or set keep_model: false"
                )


PLANET = PlanetAlgorithm()
