"""Numbers and names as cells, and what the room may import."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import parsecrl.algorithms.reporting
from parsecrl.algorithms.reporting import cells, markup
from parsecrl.algorithms.reporting.figures import mean_intervals
from parsecrl.algorithms.reporting.statistics import mean_interval
from parsecrl.algorithms.reporting.video import new_video

ROOM = Path(parsecrl.algorithms.reporting.__file__).parent


@pytest.mark.parametrize(
    ("values", "form", "least", "told"),
    [
        ([1.0, 2.0, 3.0], ".2f", -np.inf, "2.00 [-0.48, 4.48]"),  # Student's t: 4.303 standard errors
        ([1.0, 2.0, 3.0], ".3g", 0.0, "2 [0, 4.48]"),
        ([1234.5], ",.1f", -np.inf, "1,234.5"),
        ([5.0, 5.0], ".1f", -np.inf, "5.0"),
        ([np.nan, 7.0, np.nan], ".0f", -np.inf, "7"),
        ([np.nan], ".0f", -np.inf, cells.NOTHING),
        ([], ".0f", -np.inf, cells.NOTHING),
    ],
)
def test_an_interval_is_told_where_there_is_one(values: list[float], form: str, least: float, told: str):
    assert cells.interval(values, form, least) == told


def test_variants_follow_their_name_and_unknown_names_the_known():
    shown = ["z", "b, k=2", "a, k=1", "b", "b, k=2", "a"]
    assert cells.in_order(shown, ("b", "a")) == ["b", "b, k=2", "a", "a, k=1", "z"]
    assert cells.title("b, k=2", {"b": "the second"}) == "the second, k=2"


def test_intervals_of_groups():
    table = pd.DataFrame({"step": [2, 1, 2, 1, 3], "loss": [4.0, 1.0, 6.0, 3.0, 9.0]})
    x, found = mean_intervals(table["loss"], table["step"])
    assert x.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found[:2], [mean_interval([1.0, 3.0]), mean_interval([4.0, 6.0])])
    assert found[2, 0] == 9.0
    assert np.isnan(found[2, 1:]).all()


def test_text_is_escaped_and_parts_are_not():
    bad = '<b>"&'
    part = markup.section(bad, bad, markup.paragraph(bad), markup.table([bad, "n"], [[bad, "1"]], ["red"]))
    assert part.count("&lt;b&gt;&#34;&amp;") == 5
    assert part.count("<td") == 2
    assert '<td class="number">1</td>' in part


def test_an_unfinished_film_leaves_nothing_behind(tmp_path: Path):
    def cut_short() -> None:
        with new_video(tmp_path / "film.mp4", 5.0) as video:
            video.add(np.zeros((16, 16, 3), np.uint8))
            raise KeyError("the world")

    with pytest.raises(KeyError):
        cut_short()
    assert not list(tmp_path.iterdir())


def test_the_room_needs_neither_ray_nor_the_platform():
    rooms = [f"parsecrl.algorithms.reporting.{file.stem}" for file in sorted(ROOM.glob("[!_]*.py"))]
    code = f"import sys; sys.modules['ray'] = None; import {', '.join(rooms)}\n"
    code += "assert not any(name.startswith('parsecrl.platform') for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_returns_in_any_unit():
    values = (0.0, 1234.6, -9.5, 9.49, 0.0123, -3.3e-5, 1.2e6)
    assert [cells.score(x) for x in values] == ["0", "1235", "-10", "9.5", "0.012", "-3.3e-05", "1200000"]
    assert cells.score(0.5, "+") == "+0.5"
