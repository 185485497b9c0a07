"""Continuous-control environments with one interface: float32 vectors in, actions in [-1, 1] out.

Importing this package registers `parsecrl/Control-v0`. For RLlib:

    config.environment(
        "parsecrl.envs:parsecrl/Control-v0",
        env_config={"env_id": "dm_control/cheetah-run-v0", "action_repeat": 4},
    )

(The key is `env_id`, because gymnasium.make_vec, which gets env_config as keywords, has a parameter `id` of its own.)
"""

import gymnasium

from parsecrl.envs.rendering import choose_rendering_backend

choose_rendering_backend()  # before anything here imports dm_control

from parsecrl.envs.control import ActionRepeat, control_env, make_env  # noqa: E402

CONTROL_ID = "parsecrl/Control-v0"

gymnasium.register(CONTROL_ID, entry_point="parsecrl.envs.control:control_env", disable_env_checker=True)

__all__ = ["CONTROL_ID", "ActionRepeat", "choose_rendering_backend", "control_env", "make_env"]
