"""Code that only --code brings: a folder with a world and a module, and a wheel of the example package."""

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "example_plugin"
WORLDS = """
import gymnasium as gym
import numpy as np
import tool

class Point(gym.Env):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = 0.0, 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.place, self.time = float(np.clip(self.place + 0.2 * action[0], -2, 2)), self.time + 1
        obs = np.array([self.place, self.time / 30], np.float32)
        return obs, tool.A - abs(self.place), False, self.time >= 30, {}

gym.register("Point-v0", entry_point="worlds:Point")
"""


def write_files(folder, files):
    """Make the folder with these files, by name."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def write_lab(folder):
    return write_files(folder, {"worlds/__init__.py": WORLDS, "worlds/robot.urdf": "<robot/>", "tool.py": "A = 1\n"})


def example_wheel_in(folder):
    """The wheel, with an entry point and a dependency."""
    source = shutil.copytree(EXAMPLE, folder / "source")  # setuptools builds beside the sources
    words = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
