"""The views, the note and the table of instances, seen in a real browser on a real MLflow server that keeps
the artifacts.
"""

import json
from dataclasses import replace
from pathlib import Path

import made
import pytest
from published import mlflow_server

from tracking.mlflow import view
from tracking.mlflow.runs import SweepRuns, connect
from tracking.records.about import About
from tracking.records.inputs import Inputs
from tracking.records.outcome import Facts
from tracking.report import summary

CHROMIUM = Path("/usr/bin/chromium")
FOUND = made.evidence()
SECONDS = 60


@pytest.fixture(scope="module")
def published(initialised, tmp_path_factory):
    """The address of a server on which a sweep was published over HTTP, its experiment and its run."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "mlflow.db").write_bytes(initialised.read_bytes())
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder) as address:
        facts = Facts({"dataset": "digits"}, {}, "digits", "0123456789abcdef", "bundled", FOUND.plan)
        client = connect(address)
        sweep = SweepRuns(
            client,
            About(
                FOUND.task,
                FOUND.study,
                address,
                facts,
                Inputs(FOUND.examples, FOUND.classes, "uint8", (1, 8, 8)),
            ),
        )
        for outcome in (*FOUND.outcomes[2::-1], *FOUND.outcomes[3:5], *FOUND.dropped):
            sweep.trial(outcome, {}, {})
        sweep.publish(replace(FOUND, run_id=sweep.parent), [summary.screening(FOUND.outcomes)], None, {})
        yield address, sweep.experiment, sweep.parent


@pytest.fixture(scope="module")
def browser(published):
    """A function that opens an address of the UI."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1900, "height": 1000})
        page.set_default_timeout(1000 * SECONDS)

        def opened(place):
            page.goto("about:blank")
            page.goto(f"{published[0]}/{place}")
            return page

        yield opened
        chromium.close()


def seen(page, selector, side):
    """The texts of elements in the order in which they are seen."""
    place = f"all => all.map(one => [one.getBoundingClientRect().{side}, one.innerText.trim()])"
    return [text for _, text in sorted(page.locator(selector).evaluate_all(place))]


def test_the_trials_by_epsilon(published, browser):
    page = browser(view.address(published[1], view.TRIALS))
    page.get_by_text("ε = 0.35 · dropped").wait_for()
    names = [name for name in seen(page, ".ag-row a", "top") if name.startswith("ε = ")]
    assert names == [
        "ε = 0 · control",
        *(f"ε = {epsilon} · 8 seeds" for epsilon in (0.05, 0.1, 0.15, 0.2)),
        "ε = 0.35 · dropped",
    ]
    wanted = ["epsilon", *(f"select/{metric}" for metric in view.COLUMNS), "seeds"]
    assert [head for head in seen(page, ".ag-header-cell", "left") if head in wanted] == wanted
    page.get_by_text("Train with label_smoothing=0.1 and divide logits by T = ").wait_for()
    page.get_by_text("8: 0–7").first.wait_for()


def test_the_charts(published, browser):
    page = browser(view.address(published[1], view.TRIALS) + "&compareRunsMode=CHART")
    for text in ("Accuracy against calibration", "Each metric against ε", "Epoch by epoch"):
        page.get_by_text(text).first.wait_for()
    page.locator(".js-plotly-plot .scatterlayer .point").first.wait_for()
    titles = page.get_by_text(" vs. ").all_inner_texts()
    assert "select/ece vs. select/accuracy" in titles
    assert "epsilon vs. select/ece_calibrated" in titles
    first = page.locator(".js-plotly-plot").first
    assert first.locator(".scatterlayer .point").count() == 5  # all finished trials


def test_the_instances_have_pictures(published, browser):
    page = browser(f"#/experiments/{published[1]}/runs/{published[2]}/artifacts/instances.json")
    page.get_by_text("drop at ε = 0․1").wait_for()
    picture = page.locator("img[src*='table_images']").first
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") >= 100


def test_a_larger_epsilon_has_a_brighter_colour():
    def brightness(epsilon):
        text = view.colour(epsilon)
        return sum(
            weight * int(text[at : at + 2], 16) for weight, at in ((0.2126, 1), (0.7152, 3), (0.0722, 5))
        )

    values = [brightness(epsilon) for epsilon in (0, 0.07, 0.15, 0.2, 0.33, 0.4)]
    assert values == sorted(set(values))
    assert view.colour(0.0) == "#0d0887"
    assert view.colour(0.9) == view.colour(0.4) == "#f89540"


def test_a_view_fits_in_a_tag_and_names_logged_metrics_alone():
    for value in view.views().values():
        assert len(value) < 20_000  # MLflow's limit
        state = json.loads(json.loads(value)["state"])
        sections = {one["uuid"] for one in state["compareRunSections"]}
        assert all(chart["metricSectionId"] in sections for chart in state["compareRunCharts"])
        assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(state["compareRunCharts"])
        for chart in state["compareRunCharts"]:
            named = (
                chart.get("selectedMetrics")
                or chart.get("selectedMetricKeys")
                or [chart["xaxis"]["key"], chart["yaxis"]["key"]]
            )
            outcome = FOUND.comparisons[1].outcome
            logged = {"epsilon", *outcome.metrics, *(f"curves/{curve}" for curve in outcome.curves)}
            assert set(named) <= logged
