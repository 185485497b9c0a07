"""Phase 1 of the quick spec on ten stock tasks that nobody tuned: runs them one after another, then prints a table.

python docs/results/stock_tasks/run.py [STORAGE]      default: runs/stock_tasks; a task that is done is not run again
"""

import json
import subprocess
import sys
from pathlib import Path

TASKS = (
    "Pendulum-v1",
    "InvertedPendulum-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "HalfCheetah-v5",
    "dm_control/cartpole-swingup-v0",
    "dm_control/reacher-easy-v0",
    "dm_control/finger-spin-v0",
    "dm_control/ball_in_cup-catch-v0",
    "dm_control/pendulum-swingup-v0",
)
SPEC = Path(__file__).with_name("stock.yaml")


def main() -> None:
    """Run what is missing, then print the table."""
    storage = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/stock_tasks")
    for task in TASKS:
        name = task.replace("/", "-")
        command = ["run", str(SPEC), "--set", f"env.id={task}", "--name", name, "--storage", str(storage)]
        done = subprocess.run([sys.executable, "-m", "parsecrl", *command], check=False)
        if done.returncode:
            print(f"{task}: exit code {done.returncode}")
    print("| task | random policy, mean | planet, mean | planet, quartiles | minutes | warnings |")
    print("|---|---|---|---|---|---|")
    for task in TASKS:
        print(row(task, storage / task.replace("/", "-")))


def row(task: str, folder: Path) -> str:
    """A task's line of the table."""
    import pandas as pd

    if not (folder / "evaluation.csv").is_file():
        return f"| {task} | | not finished | | | |"
    returns = pd.read_csv(folder / "evaluation.csv").groupby("phase").episode_return
    summary = json.loads((folder / "summary.json").read_text())
    low, high = returns.quantile(0.25)["planet"], returns.quantile(0.75)["planet"]
    minutes = summary["phases"]["planet"]["wall_time_s"] / 60
    warnings = "; ".join(warning["rule"] for warning in summary.get("warnings", []))
    random, planet = (f"{returns.mean()[phase]:.4g}" for phase in ("random", "planet"))
    return f"| {task} | {random} | {planet} | {low:.4g} to {high:.4g} | {minutes:.0f} | {warnings} |"


if __name__ == "__main__":
    main()
