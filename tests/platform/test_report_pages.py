"""The pages of reports, of a small run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from parsecrl.algorithms.reporting.cells import score
from parsecrl.algorithms.reporting.figures import THEMES
from parsecrl.platform.errors import UserError
from parsecrl.platform.reports import build_comparison, build_report, figures, format_table
from parsecrl.platform.reports.loaded_run import load_run
from parsecrl.platform.reports.opening import opening, opening_over_seeds
from parsecrl.platform.reports.over_seeds import ChainRecord, Chains, summary_of
from tests.platform import chromium
from tests.platform.finished_run import PHASES, SPEC, returns_of, write_evaluation
from tests.platform.html_page import Page, read_page


def test_report_is_one_self_contained_page(run_dir: Path, report: Path):
    assert report == run_dir / "report" / "index.html"
    page = read_page(report)
    assert page.loads
    assert all(load.startswith("data:") for load in page.loads)
    assert "script" not in page.tags
    assert "url(" not in report.read_text()
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    q25, median, q75 = np.percentile(returns_of("planet"), [25, 50, 75])
    assert f"{score(median)} [{score(q25)}, {score(q75)}]" in page.text
    for expected in ("2 cores <test>", "parsec report", "num_iterations=5, keep_replay=True (chosen)", "torch"):
        assert expected in page.text


def test_report_saves_its_figures(report: Path):
    import matplotlib.image

    names = {"returns", *(f"{kind}-{p}" for p in PHASES for kind in ("curve", "losses", "iterates", "predictions"))}
    files = {f.stem: f for f in (report.parent / "figures").glob("*.png")}
    assert set(files) == names | {f"{name}-dark" for name in names}
    for file in files.values():
        pixels = matplotlib.image.imread(file)
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.01


def test_report_embeds_videos_and_names_those_that_lack(report: Path):
    page = read_page(report)
    assert page.tags.count("video") == 1
    assert "There is no video of phase embed" in page.text
    assert "There is no video of phase planet" not in page.text


def test_a_large_video_is_named_and_not_embedded(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    from parsecrl.algorithms.reporting import markup

    monkeypatch.setattr(markup, "VIDEO_LIMIT", 100)
    text = markup.video(run_dir / "videos/planet.mp4", "planet")
    assert "<video" not in text
    assert "open videos/planet.mp4" in text


def test_a_run_with_only_its_first_phase(run_dir: Path, tmp_path: Path):
    copy = shutil.copytree(
        run_dir,
        tmp_path / "half",
        ignore=shutil.ignore_patterns("report", "videos", "embed", "finetune", "summary.json"),
    )
    write_evaluation(copy, ("random", "planet"))
    text = read_page(build_report(copy, iterates=False)).text
    assert "Phase embed was not run." in text
    assert "Phase finetune was not run." in text
    assert "summary.json is missing" in text
    assert "There is no video of phase planet" in text
    assert format_table(copy).count("not evaluated") == 2


def test_a_run_that_has_just_begun(tmp_path: Path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    (tmp_path / "planet" / "trial").mkdir(parents=True)
    (tmp_path / "planet" / "trial" / "params.json").write_text("{}")
    (tmp_path / "state.json").write_text(json.dumps({"planet": {"status": "running", "stop": {"env_steps": 240_000}}}))
    text = read_page(build_report(tmp_path)).text
    assert "Phase planet has not finished." in text
    assert "Phase planet was started, but has no training result yet." in text
    assert "The random policy was not evaluated." in text


def test_a_broken_checkpoint_and_short_training_are_reported(run_dir: Path, tmp_path: Path):
    copy = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("report", "embed", "finetune"))
    spec = {**SPEC, "phases": [{**SPEC["phases"][0], "stop": {"env_steps": 1_000_000}}]}
    (copy / "spec.yaml").write_text(yaml.safe_dump(spec))
    (copy / "planet/trial_00000/checkpoint_000001/agent.safetensors").write_bytes(b"not weights")
    text = read_page(build_report(copy)).text
    assert "iterates of phase planet could not be computed" in text
    assert "stopped at env_steps 240,000, short of the spec's 1,000,000" in text


def test_text_from_specs_is_escaped(run_dir: Path, tmp_path: Path):
    bad = '<script>alert("1")</script>&$x_{'
    spec = json.loads(json.dumps(SPEC).replace("cheetah_tiny", "NAME"))
    spec["name"] = bad
    spec["env"]["id"] = bad
    spec["phases"][0]["name"] = "<b>$\\frac{"
    copy = tmp_path / "run"
    shutil.copytree(run_dir / "embed", copy / "embed")
    params = copy / "embed/trial_00000/params.json"
    params.write_text(params.read_text().replace('"num_iterations": 3', f'"num_iterations": {json.dumps(bad)}'))
    (copy / "spec.yaml").write_text(yaml.safe_dump(spec))
    page = read_page(build_report(copy, iterates=False))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert bad in page.text
    assert bad in format_table(copy)


def test_comparison_of_two_runs(run_dir: Path, tmp_path: Path):
    other = shutil.copytree(run_dir, tmp_path / "cheetah_tiny", ignore=shutil.ignore_patterns("report", "finetune"))
    out, table = build_comparison([run_dir, other], tmp_path / "comparison")
    assert table == ""  # no study
    page = read_page(out)
    assert out == tmp_path / "comparison" / "index.html"
    assert all(load.startswith("data:") for load in page.loads)
    assert len(list((out.parent / "figures").glob("*.png"))) == 2 * (1 + 3)
    assert str(other) in page.text
    with pytest.raises(UserError, match="at least two"):
        build_comparison([run_dir], tmp_path)


@pytest.mark.browser
@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING)
@pytest.mark.parametrize("width", [1280, 390])
def test_page_renders_in_chromium_without_errors_or_requests(report: Path, tmp_path: Path, width: int):
    """The page's own policy forbids all requests but data URIs: any other would be an error on the console."""
    assert console_of(report, tmp_path, width) == []
    assert (tmp_path / "page.png").stat().st_size > 20_000


@pytest.mark.browser
@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING)
def test_the_pages_policy_blocks_scripts_and_requests(report: Path, tmp_path: Path):
    """What the test above relies on: a request or a script in the page shows on the console."""
    page = tmp_path / "tampered.html"
    bad = '<main><img src="http://127.0.0.1:9/x.png"><script>1</script>'
    page.write_text(report.read_text().replace("<main>", bad))
    lines = console_of(page, tmp_path, 800)
    assert len(lines) == 2
    assert "img-src" in lines[0]


def console_of(page: Path, scratch: Path, width: int) -> list[str]:
    """Load a page in headless Chromium, save scratch/page.png, return the console's lines."""
    done = chromium.load(page.as_uri(), scratch / "page.png", width, 900, "--enable-logging=stderr")
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_opens_with_what_was_done_and_what_came_out(report: Path, run_dir: Path, tmp_path: Path):
    text = Page(report.read_text()).text
    assert "This run trained planet (240,000 environment steps, 10 min), embed (4 trials, 20,000 environ" in text
    medians = {phase: np.median(returns_of(phase)) for phase in ("planet", "random")}
    assert f"Over 20 episodes the median return of planet reached {medians['planet']:,.4g}" in text
    assert f", against {medians['random']:,.4g} of the random policy." in text
    copy = tmp_path / "begun"
    copy.mkdir()
    shutil.copy(run_dir / "spec.yaml", copy)
    assert "No phase of cheetah_tiny has begun. Its agents were not evaluated yet." in opening(load_run(copy))


def test_a_page_over_seeds_opens_likewise(run_dir: Path):
    chains = [
        ChainRecord(f"{variant}-seed{seed}", variant, seed, {}) for variant in ("spec", "wide") for seed in (0, 1)
    ]
    found = Chains(chains, {chain.name: load_run(run_dir) for chain in chains[:3]})
    text = opening_over_seeds(found, summary_of(found))
    medians = {phase: np.median([*returns_of(phase), *returns_of(phase)]) for phase in ("planet", "random")}
    assert text.startswith(
        "This run trained planet, embed and finetune over 2 seeds and 2 variants; 3 of 4 chains have begun. Over all "
        f"seeds of spec the median return of planet reached {medians['planet']:,.4g}, embed reached"
    )
    assert text.endswith(f"against {medians['random']:,.4g} of the random policy.")


def test_evaluations_are_drawn_beside_the_training_return(run_dir: Path, tmp_path: Path):
    def drawn(every: int):
        copy = shutil.copytree(run_dir, tmp_path / f"run{every}", ignore=shutil.ignore_patterns("report", "videos"))
        file = copy / "planet/trial_00000/result.json"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for i, row in enumerate(rows):
            here = every and i % every == every - 1
            row |= {"evaluation_return_mean": 300.0 if here else float("nan"), "evaluation_return_std": 20.0}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return figures.curves(load_run(copy).phases[0], "cheetah.run")

    with_them, without = drawn(5), drawn(0)
    assert "Dots: evaluations" in with_them.caption
    assert "Dots" not in without.caption
    figure = Figure()
    with_them.draw(figure, THEMES[0])
    (bars,) = figure.axes[0].containers
    assert bars.lines[0].get_ydata().tolist() == [300.0] * 4


@pytest.mark.parametrize(("size", "line"), [(1, "None"), (2, "None"), (3, "-")])
def test_curves_of_one_or_two_results_are_points(run_dir: Path, tmp_path: Path, size: int, line: str):
    copy = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("report", "videos"))
    file = copy / "planet/trial_00000/result.json"
    file.write_text(
        "".join(f"{row}\n" for row in file.read_text().splitlines()[1 : 1 + size])
    )  # the first has no return
    figure = Figure()
    figures.curves(load_run(copy).phases[0], "another task").draw(figure, THEMES[0])
    curve = figure.axes[0].lines[0]
    assert (curve.get_linestyle(), len(curve.get_xdata())) == (line, size)
