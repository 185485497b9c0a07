"""Where the trials of a phase come from."""

from __future__ import annotations

from typing import Any

from ray.tune.search.basic_variant import BasicVariantGenerator

from parsecrl.algorithms.training.seeding import derive_seed
from parsecrl.platform.running import tune_state
from parsecrl.platform.runs.run_folder import RunFolder
from parsecrl.platform.specs import Phase


def search_of(folder: RunFolder, phase: Phase) -> Any:
    """The search of a phase; Optuna's goes on with the study that its folder has.

    Args:
        folder: Of the run; open.
        phase: Of its spec.

    Returns:
        A search algorithm of Tune's.
    """
    seed = derive_seed(folder.spec.seed, f"{phase.name} search")
    if phase.search_alg != "optuna":
        return BasicVariantGenerator(random_state=seed)
    from parsecrl.platform.running.optuna_search import Study, Tpe

    path = folder.path / phase.name
    study = Tpe(phase, path, seed)
    if tune_state.is_stored(path):
        study.forget_all_but(tune_state.trial_ids(path))
    return Study(study, phase.num_samples)
