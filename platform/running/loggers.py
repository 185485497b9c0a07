"""Who hears of a trial's results: the loggers that a spec names, beside the JSON and CSV files.

wandb and mlflow are imported only when named.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from parsecrl.platform.errors import UserError, text_line

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}  # logger -> what it imports
PIP = {"mlflow": "mlflow-skinny"}  # what to install, where it is not called as it is imported
PROJECT = "parsecrl"


def check_loggers(names: Sequence[str]) -> None:
    """See that each of the loggers can be used here.

    Args:
        names: tensorboard, wandb or mlflow.

    Raises:
        UserError: A logger lacks its package, its key or its server.
    """
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            package = PIP.get(name, PACKAGES[name])
            raise UserError(
                f"loggers: {name} needs the package {PACKAGES[name]}, which is not installed; "
                f"run pip install {package}, or leave {name} out"
            )
    if "wandb" in names and not _has_wandb_key():
        raise UserError(
            "loggers: wandb has no API key; run wandb login, or set WANDB_API_KEY, or WANDB_MODE=offline for files"
        )
    if "mlflow" in names:
        _check_mlflow()


def _check_mlflow() -> None:
    from mlflow.tracking import MlflowClient

    try:
        MlflowClient()
    except Exception as error:  # mlflow's own classes differ between versions
        reason = text_line(str(error).partition(". ")[0])
        raise UserError(
            f"loggers: mlflow cannot use its tracking URI ({reason}); set MLFLOW_TRACKING_URI to a server, or to a "
            f"folder with MLFLOW_ALLOW_FILE_STORE=true"
        ) from None


def _has_wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE") in {"offline", "disabled"}:
        return True
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # before wandb had these arguments
        return bool(wandb.api.api_key)


def logger_callbacks(names: Sequence[str], run: str, phase: str) -> list[Any]:
    """Tune's callbacks for the loggers. Tune must add none of its own (`quiet_ray`).

    Args:
        names: tensorboard, wandb or mlflow; JSON and CSV files are always written.
        run: The run folder's name.
        phase: Its name.

    Returns:
        Callbacks.
    """
    from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback, TBXLoggerCallback

    callbacks: list[Any] = [JsonLoggerCallback(), CSVLoggerCallback()]
    if "tensorboard" in names:
        callbacks.append(TBXLoggerCallback())
    if "wandb" in names:
        from ray.air.integrations.wandb import WandbLoggerCallback

        # A trial that goes on is the same run. The mode is passed on: a cluster's workers lack our environment.
        options = {"resume": "allow", "mode": os.environ.get("WANDB_MODE")}
        callbacks.append(WandbLoggerCallback(project=PROJECT, group=f"{run}/{phase}", **options))
    if "mlflow" in names:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        callbacks.append(MLflowLoggerCallback(experiment_name=f"{PROJECT}/{run}/{phase}"))
    return callbacks
