import base64
import hashlib
import json
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made import evidence

from lscal.diagrams import consistency
from tracking.decision.prices import Prices
from tracking.records.evidence import Evidence, Surface
from tracking.records.outcome import Interval
from tracking.records.recommendation import Condition
from tracking.report import figures, words
from tracking.report.answer import sentences
from tracking.report.page import index, main, page, whisker

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\u2028&amp;"
CHROMIUM = Path("/usr/bin/chromium")


@cache
def found(**changes):
    return evidence(**changes)


@cache
def written(**changes):
    return page(found(**changes))


class Read(HTMLParser):
    """Elements of a page, and the text of each script, style and table cell."""

    VOID = ("meta", "img", "input")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.inside, self.open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
            self.inside.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.inside[tag][-1] += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.inside["main"]).replace("\u00a0", " ").split())


@pytest.fixture
def read():
    return Read(written())


def test_what_is_tuned_beside_epsilon_is_shown_with_it():
    surface = Surface(
        (0.0, 0.1, 0.2), (1e-3, 1e-2), ((0.91, 0.92, 0.93), (0.94, 0.9512, 0.96)), {"smoothing": HOSTILE}
    )
    outcomes = tuple(replace(one, point={**one.point, "weight_decay": 0.004}) for one in found().outcomes)
    tuned = replace(found(), outcomes=outcomes, surfaces={"weight_decay": surface})
    assert Evidence.from_json(tuned.to_json()).surfaces == tuned.surfaces
    drawn = figures.figures(tuned)["surfaces"]["weight_decay"]
    assert drawn["mean"][1] == [0.94, 0.9512, 0.96]
    assert {one["value"] for one in drawn["trials"]} == {0.004}
    read = Read(page(tuned))
    assert "ε and weight decay in numbers" in read.text
    assert "91.00 %" in read.text
    assert "ε = 0.1, wd 0.004" in read.text
    assert len(read.of("script")) == len(Read(written()).of("script"))


def test_a_smoothing_which_torch_does_not_have_is_not_shown_as_its_argument():
    chosen = found().recommendations["safe"]
    for other in (replace(chosen, smoothing="online@decay"), replace(chosen, epsilon=-chosen.epsilon)):
        read = Read(page(replace(found(), recommendations={**found().recommendations, "safe": other})))
        assert "CrossEntropyLoss" not in read.text
        assert f"Smoothing {other.smoothing}, as docs/smoothing.md" in read.text


# ---- what it says
# --------------------------------------------------------------------------------------------------


def test_the_answer_comes_first_with_what_it_buys_and_costs(read):
    control, chosen, _ = found().comparisons
    delta, claim = chosen.differences["accuracy"], chosen.claims["accuracy"]
    said = (
        f"With 16 fresh seeds, ε = 0.1 buys +{100 * delta.value:.2f} pp of accuracy (95 % interval"
        f" +{100 * claim.low:.2f} to +{100 * claim.high:.2f})"
    )
    first, *rest = sentences(found().recommendations, "safe")
    assert read.inside["h2"][0] == first
    assert "label_smoothing=0.1 and divide logits by T = 1.37" in first
    assert " ".join(rest) in read.text
    assert said in read.text
    raw = [100 * one.estimates["ece"].value for one in (control, chosen)]
    assert f"and costs a higher raw ECE ({raw[0]:.2f} % → {raw[1]:.2f} %)" in read.text
    assert read.text.index(rest[-1]) < read.text.index("Can it be acted on?") < read.text.index(said)
    assert re.search(r"ε = 0\.1 T = 1\.37 policy safe", read.text)
    assert "CrossEntropyLoss(label_smoothing=0.1)" in read.text


def test_where_zero_is_recommended_it_says_what_failed_and_what_would_change_it():
    read = Read(written(adopted=False))
    failed = next(one for one in found(adopted=False).recommendations["safe"].conditions if not one.met)
    assert read.inside["h2"][0].startswith(
        "Train without label smoothing (0) and divide logits by T = 1.60 (fitted on 270 examples)"
    )
    assert f"0.1 is better (accuracy +1.3 pp [+1.0, +1.7]), but {failed.sentence}." in read.inside["h2"][0]
    assert "ε = 0.1 buys" in read.text
    assert "✗ not met" in read.text
    assert "12 more seeds would settle it" in read.text
    assert "label_smoothing=" not in read.text


def test_a_difference_is_judged_by_the_interval_that_allows_for_looks():
    control, chosen, _ = found().comparisons
    claim = replace(chosen.claims["accuracy"], low=-0.001)
    assert chosen.differences["accuracy"].low > 0
    assert words.verdict_of("accuracy", control, chosen) == "better"
    assert words.verdict_of("accuracy", control, replace(chosen, claims={"accuracy": claim})) == "not known"


def test_a_difference_of_no_interest_is_practically_none():
    control, chosen, _ = found().comparisons
    claim = replace(chosen.claims["accuracy"], low=-0.001, high=0.0025)
    said = {
        effect: words.verdict_of("accuracy", control, replace(chosen, claims={"accuracy": claim}), effect)
        for effect in (0, 0.002, 0.003)
    }
    assert said == {0: "not known", 0.002: "not known", 0.003: "practically the same"}
    assert (
        words.verdict_of(
            "ece", control, replace(chosen, differences={"ece": Interval(0.0, -0.001, 0.0025)}), 0.003
        )
        == "not told apart"
    )


@pytest.mark.parametrize(
    ("name", "value", "low", "high", "verdict"),
    [
        ("accuracy", -0.02, -0.03, -0.01, "worse"),
        ("ece", -0.02, -0.03, -0.01, "better"),
        ("ece", 0.02, 0.01, 0.03, "worse"),
        ("ece", 0.02, -0.01, 0.03, "not told apart"),
        ("confidence_gap", -0.08, -0.09, -0.07, "worse"),
    ],
)
def test_better_and_worse(name, value, low, high, verdict):
    control, chosen, _ = found().comparisons
    moved = replace(chosen.differences[name], value=value, low=low, high=high)
    assert words.verdict_of(name, control, replace(chosen, differences={name: moved}, claims={})) == verdict


def test_every_condition_policy_and_opening_is_there(read):
    for one in found().recommendations["safe"].conditions:
        assert one.name in read.text
        assert words.wanted(one).replace("\u00a0", " ") in read.text
    for policy in found().recommendations:
        assert policy in read.inside["tr"] or any(row.strip().startswith(policy) for row in read.inside["tr"])
    for one in found().openings:
        assert one.when[:19].replace("T", " ") in read.text
    assert (
        "no number of seeds can show it with these test examples; it would take 25 400 examples" in read.text
    )
    assert "1 trial dropped on the way" in read.text


def test_numbers_are_rounded_as_people_read_them():
    assert words.quantity(0.96719, "accuracy").replace("\u00a0", " ") == "96.72 %"
    assert words.quantity(0.00314, "accuracy", change=True).replace("\u00a0", " ") == "+0.31 pp"
    assert words.quantity(-0.0000004, "accuracy", change=True).replace("\u00a0", " ") == "0.00 pp"
    assert words.quantity(-0.0872, "confidence_gap").replace("\u00a0", " ") == "−8.72 pp"
    assert words.quantity(0.00603, "aurc").replace("\u00a0", " ") == "6.03 ‰"
    assert words.number(25400.0, 0) == "25\u202f400"
    assert words.number(float("nan"), 2) == words.number(None, 2) == "–"


def condition(value, low, high, bound, threshold, met):
    return Condition("ranking kept", value, low, high, bound, threshold, met, "")


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (condition(0.02, 0.01, 0.03, 0.01, 0.0, True), "above"),
        (condition(0.02, -0.01, 0.03, -0.01, 0.0, False), "above"),
        (condition(0.02, 0.01, 0.03, 0.03, 0.05, True), "below"),
        (condition(0.02, 0.01, 0.06, 0.06, 0.05, False), "below"),
        (condition(0.02, 0.0, 0.06, 0.0, 0.0, False), "above"),
        (condition(0.02, 0.0, 0.05, 0.05, 0.05, False), "below"),
        (condition(-0.087, -0.09, -0.08, 0.087, 0.01, False), "within"),
    ],
)
def test_the_drawn_side_of_a_threshold_is_the_one_that_meets_it(one, said):
    at = whisker(one)
    ends = {one.low: at["low"], one.value: at["value"], one.high: at["high"]}
    bound = ends.get(one.bound, at["value"])
    assert (at["good"][0] < bound < at["good"][1]) == one.met
    assert 0 <= at["low"] <= at["value"] <= at["high"] <= 160
    assert words.wanted(one).startswith(said)


# ---- what it draws
# --------------------------------------------------------------------------------------------------


def data_of(text):
    return json.loads(
        re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.DOTALL)[1]
    )


def test_drawn_numbers_are_those_of_the_evidence():
    drawn = data_of(written())
    for trial, outcome in zip(drawn["trials"], found().outcomes, strict=True):
        assert trial["epsilon"] == outcome.epsilon
        assert trial["values"]["ece"][0] == pytest.approx(outcome.mean("select/ece"), rel=1e-4)
        assert trial["values"]["ece"][1] == pytest.approx(outcome.spread("select/ece") / 8**0.5, rel=1e-4)
        assert len(trial["bins"]["raw"]["rows"]) == sum(count > 0 for count in outcome.bins["select"].count)
        assert trial["risks"]["calibrated"][-1] == pytest.approx(
            1 - outcome.mean("select/accuracy"), abs=1e-5
        )
    assert [one["epsilon"] for one in drawn["confirmed"]] == [0.0, 0.1, 0.25]


def test_the_region_of_calibrated_bins_is_that_of_lscal():
    for count, confidence, members in ((8000, 0.93, 8), (24, 0.31, 8), (3, 0.5, 8), (70, 1.0, 7)):
        low, high = consistency.binomial([count], [confidence], members)
        assert figures.consistent(count, confidence, members) == (low[0], high[0])


def test_break_even_is_the_last_coverage_at_which_smoothing_errs_more():
    assert figures.break_even([0.0, 0.3, 0.2, 0.2], [0.1, 0.2, 0.1, 0.3]) == 0.75
    assert figures.break_even([0.0, 0.1], [0.0, 0.1]) == 0
    assert figures.break_even([0.0, 0.2], [0.1, 0.1]) == 1


def test_epochs_to_reach_an_accuracy():
    outcome = replace(found().outcomes[0], curves={"select_accuracy": (0.2, 0.9, 0.85, 0.97)})
    assert [figures.epochs_to(outcome, level) for level in (0.1, 0.9, 0.95, 0.98)] == [1, 2, 4, None]
    assert figures.levels([outcome]) == [0.85, 0.94, 0.96, 0.97]


def test_single_examples_are_sorted_by_their_fall_to_the_candidate():
    falls = [one.confidence[0] - one.confidence[place] for one, place in figures.falls(found())]
    assert falls == sorted(falls, reverse=True)
    assert falls == sorted((one.confidence[0] - one.confidence[1] for one in found().instances), reverse=True)


# ---- safety
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [written(), written(text=HOSTILE), index([found(text=HOSTILE)], str)],
    ids=["page", "hostile", "index"],
)
def test_only_its_own_scripts_and_styles_are_allowed_and_nothing_is_loaded(text):
    read = Read(text)
    policy = next(
        meta["content"] for meta in read.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    scripts = [one for one in read.of("script") if one.get("type") != "application/json"]
    assert len(scripts) == 1
    code = read.inside["script"][-1]
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"
        for part in (code, read.inside["style"][0])
    ]
    assert f"script-src {hashes[0]};" in policy
    assert f"style-src {hashes[1]};" in policy
    assert "default-src 'none'; img-src data:;" in policy
    for _, attributes in read.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
    assert not [one for one in read.of("link") if one.get("href")]


def test_hostile_text_stays_text_and_changes_no_element():
    harmless, hostile = Read(written(text="harmless")), Read(written(text=HOSTILE))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert "<img src=x onerror=alert(1)>" in hostile.text
    assert "<img src=x" not in written(text=HOSTILE)
    data_of(written(text=HOSTILE))


def test_a_picture_which_is_none_is_left_out():
    odd = replace(found().instances[0], picture="https://example.org/x.png")
    assert "example.org" not in page(replace(found(), instances=(odd,)))


def test_size():
    many = found()
    long = {name: values * 20 for name, values in many.outcomes[0].curves.items()}
    outcomes = tuple(replace(one, curves=long, number=i) for i in range(8) for one in many.outcomes)
    assert len(written().encode()) < 300_000
    assert len(page(replace(many, outcomes=outcomes)).encode()) < 3_000_000


def test_it_is_made_from_json_alone():
    assert page(Evidence.from_json(found().to_json())) == written()


@pytest.mark.parametrize(
    "lacking",
    [{"bands": {}}, {"outcomes": ()}, {"openings": ()}, {"outcomes": (), "comparisons": (), "instances": ()}],
)
def test_what_is_lacking_is_left_out(lacking):
    assert "ε = 0.1" in Read(page(replace(found(), **lacking))).text


# ---- index and command
# -------------------------------------------------------------------------------------------------


def test_the_index_compares_tasks():
    tasks = [found(), found(task="fashion_mnist/mlp", adopted=False)]
    read = Read(index(tasks, lambda task: f"pages/{task}?a=1&b"))
    assert [one["href"] for one in read.of("a")][1:] == [
        "pages/digits/mlp?a=1&b",
        "pages/fashion_mnist/mlp?a=1&b",
    ]
    rows = read.of("tr")[1:]
    assert [(row["data-epsilon"], row["data-policy"], row["data-seeds"]) for row in rows] == [
        ("0.1", "safe", "16"),
        ("0.0", "safe", "16"),
    ]
    assert "0.1 refused" in read.text
    delta = found().comparisons[1].differences["accuracy"]
    assert float(rows[0]["data-gain"]) == delta.value
    assert "There is no recommendation yet." in Read(index([], str)).text


def test_the_command_writes_pages(tmp_path, capsys):
    (tmp_path / "evidence.json").write_text(found().to_json())
    assert main([str(tmp_path / "evidence.json"), "--out", str(tmp_path / "pages")]) == 0
    assert sorted(path.name for path in (tmp_path / "pages").iterdir()) == ["digits--mlp.html", "index.html"]
    assert (tmp_path / "pages" / "digits--mlp.html").read_text() == written()
    assert 'href="digits--mlp.html"' in (tmp_path / "pages" / "index.html").read_text()


@pytest.mark.parametrize("content", ["{}", "no json", found(task="../../etc/x").to_json()])
def test_the_command_refuses_what_is_no_evidence_or_leaves_its_folder(tmp_path, capsys, content):
    (tmp_path / "evidence.json").write_text(content)
    assert main([str(tmp_path / "evidence.json"), "--out", str(tmp_path / "pages")]) == 2
    assert "no page was written" in capsys.readouterr().err
    assert not (tmp_path / "pages").exists()


# ---- in a browser
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(chromium, tmp_path_factory):
    """Opens a page from a file; afterwards nothing was asked of the network, no dialog came, and the console
    is empty.
    """
    seen = []

    def show(text, width=1280, scripts=True):
        tab = chromium.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=scripts
        ).new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: seen.append(message.text))
        tab.on("pageerror", lambda error: seen.append(str(error)))
        tab.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
        tab.on(
            "request", lambda request: request.url.startswith(("file:", "data:")) or seen.append(request.url)
        )
        file = tmp_path_factory.mktemp("page") / "page.html"
        file.write_text(text)
        tab.goto(f"file://{file}")
        if scripts and 'id="figures"' in text:
            tab.locator("svg[role=img]:visible").first.wait_for()
        assert seen == []
        return tab

    yield show
    assert seen == []


@pytest.fixture(scope="module")
def tab(opened):
    """The page as most tests use it, one after the other."""
    return opened(written())


def result(tab):
    return tab.locator(".result").inner_text().replace("\u00a0", " ")


def smallest(loss, ece, aurc, kind="ece_calibrated"):
    """The smallest ε of the fits that keeps the limits; an oracle without a line of JavaScript."""
    bands = found().bands
    best = max(bands["accuracy"].mean)
    for i, epsilon in enumerate(bands["accuracy"].epsilon):
        rise = bands["aurc_calibrated"].shift[i] / bands["aurc_calibrated"].mean[0]
        if best - bands["accuracy"].mean[i] <= loss and bands[kind].mean[i] <= ece and rise <= aurc:
            return epsilon
    return None


def slide(tab, name, value):
    tab.locator(f"#{name}").fill(str(value))


def test_limits_move_the_epsilon(tab):
    for loss, ece, aurc in ((0.1, 100, 0.05), (0.4, 100, 0.05), (1.0, 100, 0.05), (0.4, 100, 0.0)):
        slide(tab, "loss", loss)
        slide(tab, "aurc", 100 * aurc)
        wanted = smallest(loss / 100, ece, aurc)
        assert result(tab).startswith("No ε keeps" if wanted is None else f"What-if: ε = {wanted:.4g}\n"), (
            loss,
            ece,
            aurc,
        )
    tab.locator("input[value=ece]").check()
    slide(tab, "aurc", tab.locator("#aurc").get_attribute("max"))
    for ece in (4.5, 6.0, 9.0):
        slide(tab, "loss", 1.5)
        slide(tab, "ece", ece)
        wanted = smallest(0.015, ece / 100, 9, "ece")
        assert result(tab).startswith("No ε keeps" if wanted is None else f"What-if: ε = {wanted:.4g}\n"), ece
        assert tab.locator("output[for=ece]").inner_text().replace("\u00a0", " ") == f"{ece:.1f} %"


def test_the_limit_of_the_ranking_counts_its_rise_in_per_cent(opened):
    known = found().bands["aurc_calibrated"]
    rising = tuple(0.4 * epsilon * known.mean[0] for epsilon in known.epsilon)
    worse = tuple(2 * shift for shift in rising)
    bands = {**found().bands, "aurc_calibrated": replace(known, shift=rising, shift_high=worse)}
    tab = opened(page(replace(found(), bands=bands)))
    slide(tab, "loss", 0.2)
    epsilon = smallest(0.002, 1, 9)
    for most, kept in ((round(40 * epsilon) + 1, True), (round(40 * epsilon) - 1, False)):
        slide(tab, "aurc", most)
        assert result(tab).startswith(f"What-if: ε = {epsilon:.4g}\n") == kept
    slide(tab, "aurc", round(40 * epsilon) + 1)
    tab.locator("#cautious").check()
    assert result(tab).startswith("No ε keeps")


def test_sliders_obey_the_keyboard_and_the_result_is_announced(tab):
    assert tab.locator(".result").get_attribute("aria-live") == "polite"
    tab.locator("#loss").focus()
    tab.keyboard.press("Home")
    assert tab.locator("#loss").get_attribute("aria-valuetext").replace("\u00a0", " ") == "0.00 pp"
    first = result(tab)
    tab.keyboard.press("End")
    assert tab.locator("#loss").get_attribute("aria-valuetext") == "no limit"
    assert result(tab).startswith("What-if: ε = 0\n") != first.startswith("What-if: ε = 0\n")
    tab.get_by_role("button", name="Back to the plan's limits").press("Enter")
    tab.locator("#loss:not([aria-valuetext='no limit'])").wait_for()


def test_prices_move_the_epsilon_and_the_coverage(tab):
    tab.locator("input[value=prices]").check()
    for prices in (
        Prices(1, 0.1, 0),
        Prices(10, 0.05, -0.2),
        Prices(1, 5, 0),
        Prices(1, 0.1, 0.5),
        Prices(1000, 1, 0),
    ):
        assert_cheapest(tab, prices)
    tab.locator("#wrong").fill("")
    assert result(tab) == "Give three numbers."
    tab.locator("input[value=limits]").check()


def assert_cheapest(tab, prices):
    for name in ("wrong", "review", "right"):
        tab.locator(f"#{name}").fill(str(getattr(prices, name)))
    costs = {}
    for outcome in found().outcomes:
        chosen, judged = (
            figures.mean_risk(outcome, f"{split}_calibrated") for split in ("calibrate", "select")
        )
        coverage = prices.best_coverage(chosen, outcome.calibrate_examples)
        costs[outcome.epsilon] = (prices.cost_at(judged, coverage), coverage)
    epsilon = min(costs, key=lambda epsilon: (round(costs[epsilon][0], 9), epsilon))
    assert result(tab).startswith(
        f"What-if: ε = {epsilon:.4g}\nDecide {100 * costs[epsilon][1]:.0f} % without a review:"
    )


def test_reliability_follows_its_slider_and_draws_no_empty_bin(tab):
    slider = tab.locator("#bins-at")
    slider.focus()
    tab.keyboard.press("Home")
    for outcome in found().outcomes:
        assert slider.get_attribute("aria-valuetext").replace("\u00a0", " ") == f"ε = {outcome.epsilon:.4g}"
        for kind, key in (("raw", "select"), ("calibrated", "select_calibrated")):
            figure = tab.locator(f"#diagrams figure[data-kind={kind}]")
            assert figure.locator("svg .region").count() == sum(
                count > 0 for count in outcome.bins[key].count
            )
            assert (
                f"ECE {100 * outcome.bins[key].error:.1f}".removesuffix(".0")
                in figure.locator("figcaption").inner_text()
            )
        tab.keyboard.press("ArrowRight")
    tab.locator("#bins input[value=confirmed]").check()
    assert slider.get_attribute("max") == "2"


def test_risks_mark_the_break_even(tab):
    control, chosen, _ = found().comparisons
    for kind, key in (("calibrated", "test_calibrated"), ("raw", "test")):
        tab.locator(f"#risks input[value={kind}]").check()
        crossing = figures.break_even(
            figures.mean_risk(chosen.outcome, key), figures.mean_risk(control.outcome, key)
        )
        assert 0 < crossing < 1
        assert f"Break-even at {100 * crossing:.0f} % coverage" in tab.locator(
            "#curves figcaption"
        ).inner_text().replace("\u00a0", " ")
        assert tab.locator("#curves svg .mark").count() == 1


def test_convergence_counts_epochs(tab):
    slide(tab, "level", tab.locator("#level").get_attribute("min"))
    level = float(tab.locator("#level").input_value()) / 100
    rows = tab.locator("#epochs tbody td").all_text_contents()
    assert rows == [str(figures.epochs_to(outcome, level)) for outcome in found().outcomes]


def test_single_examples_unfold_and_are_sorted(tab):
    assert tab.locator("#cards li:visible").count() == 8
    tab.locator("#more").press("Enter")
    assert tab.locator("#cards li:visible").count() == 24
    tab.locator("#by").select_option("index")
    assert tab.locator("#cards li").evaluate_all(
        "all => all.map(one => Number(one.dataset.index))"
    ) == sorted(one.index for one in found().instances)


def test_every_chart_is_told_in_words_and_has_its_numbers(tab):
    for summary in tab.locator("svg[role=img]").evaluate_all(
        "all => all.map(one => one.getAttribute('aria-label'))"
    ):
        assert len(summary) > 30
        assert "NaN" not in summary
        assert "undefined" not in summary
    assert tab.locator("svg[role=img]").count() >= 12
    assert tab.locator("figure:has(svg):not(:has(details table))").evaluate_all(
        "all => all.map(one => one.id)"
    ) == ["learning"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text": HOSTILE},
        {"optional": False, "instances": False},
        {"tuned": True, "pictures": False},
        {"adopted": False},
    ],
)
def test_it_fits_a_phone_in_every_variant_and_runs_nothing_else(opened, changes):
    tab = opened(written(**changes), width=360)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.locator("h1").inner_text() == f"digits/mlp{changes.get('text', '')}"


@pytest.mark.parametrize("lacking", [{"bands": {}}, {"outcomes": (), "comparisons": (), "instances": ()}])
def test_what_is_lacking_breaks_no_script(opened, lacking):
    opened(page(replace(found(), **lacking)))


def test_without_scripts_the_answer_and_the_tables_are_there(opened):
    tab = opened(written(), scripts=False)
    assert "Train with label_smoothing=0.1 and divide" in tab.locator("h2").first.inner_text()
    assert tab.locator("table:visible").count() >= 7
    assert tab.locator(".live:visible, input:visible").count() == 0
    assert tab.locator("noscript").is_visible()


def test_the_index_is_sorted_by_its_headings(opened):
    tasks = [found(), found(task="fashion_mnist/mlp", adopted=False), found(task="cifar10/cnn", gain=0.03)]
    tab = opened(index(tasks, str))
    names = lambda: tab.locator("#tasks tbody th").all_inner_texts()  # noqa: E731
    tab.get_by_role("button", name="Task", exact=True).press("Enter")
    assert names() == ["cifar10/cnn", "digits/mlp", "fashion_mnist/mlp"]
    tab.get_by_role("button", name="Accuracy", exact=True).click()
    tab.get_by_role("button", name="Accuracy", exact=True).click()
    gains = {one.task: one.comparisons[1].differences["accuracy"].value for one in tasks}
    assert names() == sorted(gains, key=gains.get, reverse=True)
    assert tab.locator("th[aria-sort=descending]").inner_text().startswith("Accuracy")
