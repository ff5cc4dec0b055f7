"""A study whose stages are a tree: differences at the same node, what is left of them, and what a page says of it."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from small_records import ARMS, CHOICES, HOSTILE, TREE, Page, answers, config, records

from alignpre_jax.evals import HeldOut, Scenarios
from alignpre_jax.foundation import UserError
from alignpre_jax.report.build import build_report
from alignpre_jax.report.nodes import first_treated, shown_node
from alignpre_jax.report.page import render_page
from alignpre_jax.report.tables import csv_table, markdown
from alignpre_jax.report.text import terminal_report
from alignpre_jax.report.tree_page import tree_page
from alignpre_jax.study.config import Add, ArmConfig, Filter
from alignpre_jax.study.outline import outline
from alignpre_jax.study.records import RunFacts

ALL = tuple(TREE)
# what `aligned` does at a node: treated at midtrain, half of it is left after sft, nothing after the flood
ALIGNED = {("aligned", "pretrain"): 0.6, ("aligned", "sft"): 0.4, ("aligned", "flood"): 0.6}
EVERYWHERE = dataclasses.replace(CHOICES, at=ALL)


def tree_config(choices: Scenarios = EVERYWHERE, evals=None, **changes):
    beside = {
        "chat": Scenarios(scorings=("options",), template="plain", at=("sft", "flood")),
        "tax": HeldOut("web", at=("midtrain", "sft")),
        "absorbed": HeldOut("aligned", at=("midtrain", "sft")),
    }
    return config(choices, beside | (evals or {}), **({"stages": TREE} | changes))


@pytest.fixture(scope="module")
def report():
    return build_report(records(ALIGNED, config=tree_config()))


@pytest.fixture(scope="module")
def page(report):
    return render_page(report)


def test_nodes_stand_in_the_order_of_the_tree_and_the_first_leaf_is_the_main_one(report):
    assert list(report["nodes"]) == ["pretrain", "midtrain", "sft", "flood"]
    assert report["node"] == "sft"
    for key in ("arms", "paired"):
        assert report[key] == report["nodes"]["sft"][key]
    assert report["scorings"]["options"]["arms"] == report["arms"]
    assert list(report["evals"]["chat"]["nodes"]) == ["sft", "flood"]


def test_differences_are_those_of_the_same_node(report):
    expected = {"pretrain": 0.0, "midtrain": -0.4, "sft": -0.2, "flood": 0.0}
    for node, difference in expected.items():
        found = report["nodes"][node]
        assert found["arms"]["unfiltered"]["held_out"]["misaligned_rate"] == pytest.approx(0.6)
        assert found["paired"]["aligned"]["held_out"]["diff"] == pytest.approx(difference)
        assert found["paired"]["zero"]["held_out"]["ci95"] == [0, 0]


def test_what_is_left_is_recomputed_by_hand(report):
    """Every seed answers alike, so each item is one observation three times: the seeds' way has no variance.

    The difference of item i is -1 where the arm is aligned and the baseline is not. Items 4 to 11 differ at midtrain,
    8 to 11 after sft. Fieller with the variance of a mean over 20 situations, clustered.
    """
    d, e = (-np.array([start <= i < 12 for i in range(20)], float) for start in (4, 8))
    t2 = stats.t.ppf(0.975, 19) ** 2
    cov = np.cov(d, e) / 20
    a, b, c = (
        d.mean() ** 2 - t2 * cov[0, 0],
        d.mean() * e.mean() - t2 * cov[0, 1],
        e.mean() ** 2 - t2 * cov[1, 1],
    )
    half = (b * b - a * c) ** 0.5
    found = report["nodes"]["sft"]["retention"]["aligned"]["held_out"]
    assert found["from"] == "midtrain"
    assert found["share"] == pytest.approx(0.5)
    # 60 answers of 20 situations: counted thrice, a situation is still one
    assert found["ci95"] == pytest.approx([(b - half) / a, (b + half) / a])
    assert found["again"] == []


def test_nothing_left_is_zero_and_no_effect_has_no_share(report):
    flood = report["nodes"]["flood"]["retention"]
    assert flood["aligned"]["held_out"]["share"] == 0
    zero = flood["zero"]["held_out"]
    assert (zero["share"], zero["ci95"]) == (None, None)
    assert zero["reason"] == "its difference at midtrain is not clear (the interval contains 0)"
    for node in ("pretrain", "midtrain"):
        assert report["nodes"][node]["retention"] == {}


def test_the_first_treated_node_is_on_the_arms_way_and_asked():
    change = Filter(("web",), ("aligned",))
    arms = ARMS | {
        "early": ArmConfig(add={"pretrain": Add("aligned:1", 0.1), "sft": Add("aligned:1", 0.1)}),
        "leaf": ArmConfig(filter={"flood": change}),
    }
    made = tree_config(arms=arms)
    assert [first_treated(made, "early", stage, "choices") for stage in ALL] == ["pretrain"] * 4
    assert [first_treated(made, "leaf", stage, "choices") for stage in ALL] == ["", "", "", "flood"]
    later = tree_config(dataclasses.replace(CHOICES, at=("sft", "flood")), arms=arms)
    assert [first_treated(later, "early", stage, "choices") for stage in ALL[2:]] == ["sft", ""]
    found = build_report(records({("early", stage): 0.1 for stage in ALL}, config=made))
    left = found["nodes"]["sft"]["retention"]["early"]["held_out"]
    assert (left["from"], left["again"]) == ("pretrain", ["sft"])
    text = " ".join(Page(render_page(found)).text.split())
    assert "The arm was treated again in sft." in text


def test_an_arm_that_skips_a_stage_is_not_at_that_node():
    arms = ARMS | {"short": ArmConfig(add={"midtrain": Add("aligned:1", 0.5)}, skip=("sft",))}
    found = build_report(records(ALIGNED, config=tree_config(arms=arms)))
    assert "short" not in found["nodes"]["sft"]["arms"]
    assert "short" not in found["arms"]
    assert found["nodes"]["flood"]["paired"]["short"]["held_out"]["diff"] == pytest.approx(-0.1)
    text = " ".join(Page(render_page(found)).text.split())
    assert "short goes through pretrain, midtrain and flood, without sft, and replaces 50% of the tokens" in text
    Console(file=io.StringIO()).print(terminal_report(found))


def test_arms_that_were_asked_otherwise_are_refused_by_name():
    made = tree_config()
    whole = records(ALIGNED, config=made)
    rows = [
        dataclasses.replace(row, asked="another prompt") if row.scenario == "seen/3" else row
        for row in answers(CHOICES, 0.2)
    ]
    results = dict(whole.results)
    results["choices"] = dict(results["choices"]) | {
        "sft": results["choices"]["sft"] | {"aligned": dict.fromkeys(made.seeds, rows)}
    }
    with pytest.raises(UserError) as raised:
        build_report(dataclasses.replace(whole, results=results))
    for words in ("asked in other words", "eval 'choices' at stage 'sft', arm 'aligned'", "seen/3"):
        assert words in str(raised.value)


def test_doses_join_only_what_differs_in_one_stages_dose_alone():
    add = Add("aligned:1", 0.25)
    arms = ARMS | {
        "double": ArmConfig(add={"midtrain": Add("aligned:1", 0.5)}),
        "late": ArmConfig(add={"midtrain": Add("aligned:1", 0.45, "[0.5,1) 1")}),
        "filtered": ArmConfig(
            add={"midtrain": Add("aligned:1", 0.1)}, filter={"pretrain": Filter(("web",), ("aligned",))}
        ),
        "also": ArmConfig(add={"midtrain": Add("aligned:1", 0.3), "sft": add}),
        "short": ArmConfig(add={"midtrain": Add("aligned:1", 0.4)}, skip=("sft",)),
        "mixed": ArmConfig(add={"midtrain": Add("aligned:0.5,web:0.5", 0.6)}),
    }
    found = build_report(records(ALIGNED, config=tree_config(arms=arms)))
    [curve] = found["doses"]
    assert [(point["arm"], point["dose"]) for point in curve["points"]] == [
        ("zero", 0.0),
        ("aligned", 0.25),
        ("double", 0.5),
    ]
    assert list(curve["nodes"]) == ["midtrain", "sft", "flood"]
    assert curve["points"] == curve["nodes"]["sft"]
    without = {name: arm for name, arm in arms.items() if name != "zero"}
    [curve] = build_report(records(ALIGNED, config=tree_config(arms=without)))["doses"]
    assert [point["arm"] for point in curve["points"]] == ["unfiltered", "aligned", "double"]


def test_a_dose_without_its_like_at_zero_starts_at_its_first():
    """The arm without the addition would still add something at sft: no arm of the study is that."""
    arms = ARMS | {
        name: ArmConfig(add={"midtrain": Add("aligned:1", dose), "sft": Add("aligned:1", 0.1)})
        for name, dose in (("one", 0.1), ("two", 0.2))
    }
    curves = build_report(records(ALIGNED, config=tree_config(arms=arms)))["doses"]
    assert [[point["arm"] for point in curve["points"]] for curve in curves] == [["one", "two"]]


def test_held_out_text_is_told_by_node_and_what_it_means(report, page):
    tax = report["tax"]
    assert tax["evals"]["tax"]["of"] == "background"
    assert tax["evals"]["absorbed"]["of"] == "added"
    assert list(tax["evals"]["tax"]["nodes"]) == ["midtrain", "sft"]
    assert list(tax["arms"]["aligned"]) == ["web"]
    assert tax["evals"]["absorbed"]["nodes"]["midtrain"]["aligned"]["aligned"]["diff"] == pytest.approx(0.1)
    text = Page(page).text
    assert "Alignment tax: tax" in text
    assert "What was learnt of aligned: absorbed" in text


def test_the_page_shows_the_tree_first_and_is_well_formed(report, page):
    text = " ".join(Page(page).text.split())
    assert text.index("Stage by stage") < text.index("Rates and paired differences after sft")
    for words in ("50%", "share left", "no share", "Eval chat", "goes through pretrain, midtrain, sft and flood"):
        assert words in text
    assert "in midtrain" in text
    assert "an arm less unfiltered after the same stage" in text
    assert HOSTILE in Page(page).text
    assert "<script>alert" not in page
    assert len(Page(page).ids) == len(set(Page(page).ids))
    assert render_page(json.loads(json.dumps(report, allow_nan=False, default=str))) == page
    for tag in ("table", "section", "ul", "details", "tr", "td", "figure", "li", "div"):
        assert page.count(f"<{tag}>") + page.count(f"<{tag} ") == page.count(f"</{tag}>"), tag


def test_the_methods_say_what_each_arm_went_through(report):
    [words] = [part for part in report["methods"] if part.startswith("A decoder")]
    for part in (
        "midtrain (after pretrain)",
        "flood (after midtrain)",
        "unfiltered goes through pretrain, midtrain, sft and flood and changes nothing",
        "replaces 25% of the tokens with aligned in midtrain",
    ):
        assert part in words
    assert any("Eval choices, asked after pretrain, midtrain, sft and flood" in part for part in report["methods"])
    assert any("Fieller" in part for part in report["methods"])


def test_tables_have_every_node(report):
    lines = list(csv.DictReader(io.StringIO(csv_table(report))))
    [line] = [
        one
        for one in lines
        if (one["eval"], one["stage"], one["arm"], one["split"], one["topic"])
        == ("options", "sft", "aligned", "held_out", "")
    ]
    assert float(line["share_left"]) == pytest.approx(0.5)
    assert line["share_of"] == "midtrain"
    assert {one["stage"] for one in lines if one["eval"] == "chat: options"} == {"sft", "flood"}
    text = markdown(report)
    assert "Misaligned rate by stage, held-out items" in text
    assert "of midtrain" in text
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_report(report))
    shown = console.export_text()
    for words in ("by stage", "unfiltered", "pretrain", "midtrain", "flood", "50% left", "0% left", "no share"):
        assert words in shown


def test_runs_made_with_different_versions_are_named(page):
    made = tree_config()
    facts = [
        RunFacts(f"seed{n}/sft", "sft", 8192, 8192, 2.0, {"jax": version, "git": "abc"})
        for n, version in ((0, "0.10.2"), (1, "0.10.2"), (2, "0.11.0"))
    ]
    found = build_report(records(ALIGNED, config=made, runs=facts, versions={"jax": "0.11.0", "git": "abc"}))
    assert found["versions_of_runs"] == {"jax": {"0.10.2": ["seed0/sft", "seed1/sft"], "0.11.0": ["seed2/sft"]}}
    text = " ".join(Page(render_page(found)).text.split())
    assert "Runs of this study were made with different versions: jax 0.10.2 and 0.11.0." in text
    assert "0.10.2 in seed0/sft, seed1/sft" in text
    assert "different versions" not in Page(page).text


def test_a_headline_that_is_not_asked_at_a_leaf_is_shown_where_it_is():
    made = tree_config(dataclasses.replace(CHOICES, at=("pretrain", "midtrain")))
    assert shown_node(made) == "midtrain"
    found = build_report(records(ALIGNED, config=made))
    assert found["paired"]["aligned"]["held_out"]["diff"] == pytest.approx(-0.4)


def test_the_drawn_tree_has_every_stage_run_and_arm_and_loads_nothing():
    arms = {"unfiltered": ARMS["unfiltered"], "odd-name": ARMS["aligned"]}
    found = outline(tree_config(arms=arms, name="<b>tree</b>"))
    page = tree_page(found)
    parsed = Page(page)
    assert "<b>tree</b>" in parsed.text
    assert parsed.addresses == set()
    assert not parsed.tags & {"script", "link", "img", "iframe"}
    text = " ".join(parsed.text.split())
    for words in ("pretrain", "flood", "odd-name", "sft-odd-name", "replaces 25% of the tokens with aligned", "chat"):
        assert words in text
    # sft and flood both hang from midtrain
    assert page.count('<ul class="tree">') == 3
    for tag in ("ul", "li", "section", "p", "span"):
        assert page.count(f"<{tag}>") + page.count(f"<{tag} ") == page.count(f"</{tag}>"), tag
