"""Environments. Importing this package registers them.

`parsecrl/Control-v0`: continuous control with one interface, float32 vectors in, actions in [-1, 1] out.
`parsecrl/Gridworld-v0`, `parsecrl/FourRooms-v0`, `parsecrl/Torus-v0`: grid worlds with five actions.
`parsecrl/HealthGathering-v0`, `parsecrl/GoalsMaze-v0`: first-person worlds of pixels with six actions. For RLlib:

    config.environment(
        "parsecrl.envs:parsecrl/Control-v0",
        env_config={"env_id": "dm_control/cheetah-run-v0", "action_repeat": 4},
    )

(The key is `env_id`, because gymnasium.make_vec, which gets env_config as keywords, has a parameter `id` of its own.)

    config.environment("parsecrl.envs:parsecrl/Torus-v0", env_config={"layout_seed": 3, "start": None, "goal": None})
"""

import gymnasium

from parsecrl.envs.rendering import choose_rendering_backend

choose_rendering_backend()  # before anything here imports dm_control

from parsecrl.envs.control import ActionRepeat, control_env, make_env  # noqa: E402
from parsecrl.envs.grid_world import GridWorld  # noqa: E402
from parsecrl.envs.topology import Topology  # noqa: E402

CONTROL_ID = "parsecrl/Control-v0"

gymnasium.register(CONTROL_ID, entry_point="parsecrl.envs.control:control_env", disable_env_checker=True)
gymnasium.register("parsecrl/Gridworld-v0", entry_point="parsecrl.envs.empty_grid:EmptyGrid", disable_env_checker=True)
gymnasium.register("parsecrl/FourRooms-v0", entry_point="parsecrl.envs.four_rooms:FourRooms", disable_env_checker=True)
gymnasium.register("parsecrl/Torus-v0", entry_point="parsecrl.envs.torus:Torus", disable_env_checker=True)
gymnasium.register(
    "parsecrl/HealthGathering-v0",
    entry_point="parsecrl.envs.health_gathering:HealthGathering",
    disable_env_checker=True,
)
gymnasium.register("parsecrl/GoalsMaze-v0", entry_point="parsecrl.envs.goals_maze:GoalsMaze", disable_env_checker=True)

__all__ = ["CONTROL_ID", "ActionRepeat", "GridWorld", "Topology", "choose_rendering_backend", "control_env", "make_env"]
