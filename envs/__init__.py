"""Environments. Importing this package registers them.

`parsecrl/Control-v0`, `parsecrl/World-v0`: `make_env` and `make_world` as Gymnasium ids, for RLlib:

    config.environment(
        "parsecrl.envs:parsecrl/Control-v0",
        env_config={"env_id": "dm_control/cheetah-run-v0", "action_repeat": 4, "kwargs": {}},
    )

(The keys are `env_id` and `env_max_episode_steps`: `gymnasium.make` has parameters `id` and `max_episode_steps`.)

`parsecrl/Gridworld-v0`, `parsecrl/FourRooms-v0`, `parsecrl/Torus-v0`: grid worlds with five actions.
`parsecrl/HealthGathering-v0`, `parsecrl/GoalsMaze-v0`: first-person worlds of pixels with six actions.
"""

import gymnasium

from parsecrl.envs.rendering import choose_rendering_backend

choose_rendering_backend()  # before anything here imports dm_control

from parsecrl.envs.border import Border, EnvironmentFault  # noqa: E402
from parsecrl.envs.grid_world import GridWorld  # noqa: E402
from parsecrl.envs.making import make_env, make_world  # noqa: E402
from parsecrl.envs.topology import Topology  # noqa: E402

for _name, _entry in (
    ("Control", "making:control_env"),
    ("World", "making:world_env"),
    ("Gridworld", "empty_grid:EmptyGrid"),
    ("FourRooms", "four_rooms:FourRooms"),
    ("Torus", "torus:Torus"),
    ("HealthGathering", "health_gathering:HealthGathering"),
    ("GoalsMaze", "goals_maze:GoalsMaze"),
):
    gymnasium.register(
        f"parsecrl/{_name}-v0",
        entry_point=f"{__name__}.{_entry}",
        disable_env_checker=True,
        order_enforce=not _entry.startswith("making"),  # the border does it
    )

__all__ = ["Border", "EnvironmentFault", "GridWorld", "Topology", "choose_rendering_backend", "make_env", "make_world"]
