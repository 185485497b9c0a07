"""The total score of parsimony_planning in one world, on a seed that is not the sweep's; change what the keys say."""

from parsecrl.algorithms.latent_planning.experiment import PlanningExperiment
from parsecrl.algorithms.latent_planning.settings import LatentPlanningSettings
from parsecrl.algorithms.training.seeding import derive_seed
from parsecrl.platform.specs import load_spec

phases = load_spec("parsimony_planning", ["phases.*.budget=reduced", "phases.*.model.transformation=affine"]).phases
config = phases[0].model_dump(include=set(LatentPlanningSettings.model_fields), exclude_none=True)
experiment = PlanningExperiment(config, derive_seed(0, "latent_planning", 100))
print(sum(experiment.run_task().score for _ in range(30)))
