"""ViZDoom's scenario "health gathering supreme": medikits to seek, poison to avoid, in a maze with an acid floor.

ViZDoom is an optional package (`pip install 'parsec-rl[pixels]'`), imported when a world is made. It draws in software,
needs no screen and no OpenGL, and runs Doom's engine as a process beside this one.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from parsecrl.envs.first_person import ACTIONS, SIZE, FirstPersonWorld

TICKS_PER_SECOND = 35.0  # Doom's
BUTTONS = ("MOVE_FORWARD", "MOVE_BACKWARD", "MOVE_LEFT", "MOVE_RIGHT", "TURN_LEFT", "TURN_RIGHT")  # in ACTIONS' order


class EngineEnded(RuntimeError):
    """The process that the world runs in ended. `is_passing`: a world that is made again may go on."""

    is_passing = True


class HealthGathering(FirstPersonWorld):
    """Stay alive: health falls all the time, medikits heal, poison vials hurt.

    Reward of a step: the change in health, in points of 100. An episode terminates with death, for which there is no
    picture: its last observation repeats the one before. It is truncated after 2,100 ticks (a minute).

    A picture is the engine's 320 x 240, averaged over blocks of 4 x 3: the whole field of view, squeezed to a square.
    info: "health", in points.

    Args:
        frame_skip: Of Doom's ticks, 35 in a second, at least 1. 2 gives 17.5 decisions in a second, near the 15 of
            DeepMind Lab with the usual four frames to an action. Episodes of a random policy then have some 190 steps;
            with 4 they have some 95.
        render_mode: None, or "rgb_array".

    Raises:
        ValueError: vizdoom is not installed, or an argument is out of range.
        RuntimeError: The engine breaks.
    """

    def __init__(self, frame_skip: int = 2, render_mode: str | None = None):
        super().__init__(frame_skip, TICKS_PER_SECOND, render_mode)
        self._vizdoom = _import_vizdoom()
        self._buttons = np.eye(len(ACTIONS), dtype=int).tolist()
        self._game: Any = None  # started by the first reset: a world that is only looked at needs no process
        self._screen = np.zeros((3 * SIZE, 4 * SIZE, 3), np.uint8)
        self._health = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode. The first reset starts the engine's process; RuntimeError where the engine breaks."""
        super().reset(seed=seed)
        if self._game is None:
            self._game = self._start()
        self._game.set_seed(int(self.np_random.integers(2**31)))
        self._call(self._game.new_episode)
        self._health = self._read_health()
        return self._look(), {"health": self._health}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take an action, 0 to 5, else ValueError; ResetNeeded after the end, RuntimeError where the engine breaks."""
        buttons = self._buttons[self.check_action(action)]
        if self._game is None or self._game.is_episode_finished():
            raise gymnasium.error.ResetNeeded("the episode is over; call reset")
        self._call(self._game.make_action, buttons, self.frame_skip)
        before, self._health = self._health, self._read_health()
        is_dead, is_over = bool(self._game.is_player_dead()), bool(self._game.is_episode_finished())
        info = {"health": self._health}
        return self._look(), self._health - before, is_dead, is_over and not is_dead, info

    def render(self) -> np.ndarray | None:  # type: ignore[override]  # Gymnasium has a type variable there
        """The engine's own picture, uint8 [240, 320, 3]; None without a render mode."""
        return None if self.render_mode is None else self._screen.copy()

    def close(self) -> None:
        """End the engine's process."""
        if self._game is not None:
            self._game = None
            self._end()

    def _look(self) -> np.ndarray:
        state = self._game.get_state()
        if state is not None:  # none after death
            self._screen = state.screen_buffer
        return block_means(self._screen)

    def _read_health(self) -> float:
        return float(self._game.get_game_variable(self._vizdoom.GameVariable.HEALTH))

    def _call(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except (self._vizdoom.ViZDoomErrorException, self._vizdoom.ViZDoomUnexpectedExitException) as error:
            self.close()
            raise EngineEnded(f"Doom's engine ended ({' '.join(str(error).split())}); make the world again") from error
        except (self._vizdoom.MessageQueueException, self._vizdoom.SharedMemoryException) as error:
            self.close()
            raise RuntimeError(
                f"Doom's engine cannot be reached ({error}); let this process write to /dev/shm"
            ) from error

    def _start(self) -> Any:
        vizdoom = self._vizdoom
        folder = tempfile.mkdtemp(prefix="parsec-doom-")
        game = vizdoom.DoomGame()
        self._end = weakref.finalize(self, _end, game, folder)  # also of a world that is dropped without `close`
        game.load_config(os.path.join(vizdoom.scenarios_path, "health_gathering_supreme.cfg"))
        game.set_doom_config_path(os.path.join(folder, "doom.ini"))  # else written where the process happens to be
        if engine := _contained_engine(Path(vizdoom.__file__).with_name("vizdoom"), Path(folder)):
            game.set_vizdoom_path(str(engine))
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_available_buttons([getattr(vizdoom.Button, name) for name in BUTTONS])
        game.set_available_game_variables([vizdoom.GameVariable.HEALTH])
        game.set_mode(vizdoom.Mode.PLAYER)  # the world waits for actions: a seed fixes an episode
        self._call(game.init)
        return game


def _end(game: Any, folder: str) -> None:
    game.close()  # first: the engine writes into the folder as it ends
    shutil.rmtree(folder, ignore_errors=True)


def block_means(screen: np.ndarray) -> np.ndarray:
    """Shrink a screen to a square: means over blocks of 3 rows and 4 columns, rounded down.

    Args:
        screen: uint8 [3 S, 4 S, 3].

    Returns:
        uint8 [S, S, 3].
    """
    S = len(screen) // 3
    bands = screen.reshape(S, 3, -1)
    # Sums of long rows: numpy's own mean over such small axes takes twenty times as long.
    rows = (bands[:, 0].astype(np.uint16) + bands[:, 1] + bands[:, 2]).reshape(S * S, 12)  # 4 columns of 3 colours
    total = np.stack([rows[:, colour::3].T.copy().sum(0, dtype=np.uint16) for colour in range(3)], 1)
    return (total // 12).astype(np.uint8).reshape(S, S, 3)


def _import_vizdoom() -> Any:
    try:
        import vizdoom
    except ImportError as error:
        raise ValueError(
            f"parsecrl/HealthGathering-v0 needs the package vizdoom, which cannot be imported ({error}); "
            f"run pip install 'parsec-rl[pixels]', or choose parsecrl/GoalsMaze-v0"
        ) from error
    return vizdoom


def _contained_engine(engine: Path, folder: Path) -> Path | None:
    """A script that starts the engine in `folder`, where it leaves its files, and has the kernel end it with us.

    Without the latter the engine of a process that is killed waits for ever. None where there is no such system.
    """
    setpriv = shutil.which("setpriv")  # util-linux
    if not engine.is_file() or setpriv is None:
        return None
    script = folder / "engine"
    start = shlex.join([setpriv, "--pdeathsig", "KILL", str(engine)])
    script.write_text(f'#!/bin/sh\ncd {shlex.quote(str(folder))} && exec {start} "$@"\n')
    script.chmod(0o700)
    return script
