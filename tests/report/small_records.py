"""The records of a small study, with known answers, in place of a workdir."""

import html.parser
from fractions import Fraction

from alignpre_jax.evals import HeldOut, Result, Scenario, Scenarios, TextScore, render, show
from alignpre_jax.foundation import digest
from alignpre_jax.mixture import BasePlan, Plan, ledger
from alignpre_jax.model import get_preset
from alignpre_jax.rows import RowsConfig
from alignpre_jax.study.config import Add, ArmConfig, StageConfig, StudyConfig
from alignpre_jax.study.records import RunFacts, StudyRecords
from alignpre_jax.study.sources import DataConfig, SourceConfig
from alignpre_jax.study.tree import overlays

HOSTILE = "</pre><script>alert(1)</script>"
SEEDS = (0, 1, 2)
ARMS = {
    "unfiltered": ArmConfig(),
    "aligned": ArmConfig(add={"midtrain": Add("aligned:1", 0.25)}),
    "zero": ArmConfig(add={"midtrain": Add("aligned:1", 0.0)}),
}
RATES = {"unfiltered": 0.6, "aligned": 0.2, "zero": 0.6}  # of the options' answers, the same for every seed
CHOICES = Scenarios(syntaxes=("options_answer", "letters_answer"))


def stage(after: str = "") -> StageConfig:
    return StageConfig(mixture="web:1", after=after, tokens=8192, rows=RowsConfig(length=128), batch_rows=8)


ONE = {"midtrain": stage()}  # a study of one stage
TREE = {"pretrain": stage(), "midtrain": stage("pretrain"), "sft": stage("midtrain"), "flood": stage("midtrain")}


def scenarios() -> list[Scenario]:
    return [
        Scenario(f"{split}/{n}", "test", "oversight", split, f"Case {n} {HOSTILE}", ("Tell.", "Hide."), 1)
        for split in ("seen", "held_out", "control")
        for n in range(20)
    ]


def config(choices: Scenarios = CHOICES, evals=None, **changes) -> StudyConfig:
    values = {
        "name": "tiny <b>study</b>",
        "model": get_preset("small_world"),
        "data": DataConfig(
            sources={
                "web": SourceConfig(("packages:",), held_out_share=0.1),
                "aligned": SourceConfig(("world:aligned",), held_out_share=0.1),
            }
        ),
        "stages": ONE,
        "arms": ARMS,
        "seeds": SEEDS,
        "evals": {"choices": choices, "tax": HeldOut("web")} | (evals or {}),
        "headline": "choices",
    }
    return StudyConfig(**values | changes)


def result(scenario: Scenario, variant, bad: bool, mass: float | None, first: bool | None) -> Result:
    logprobs = (-2.0, -1.0) if bad else (-1.0, -2.0)
    return Result(
        checkpoint="m",
        scenario=scenario.id,
        group=scenario.cluster,
        split=scenario.split,
        topic=scenario.topic,
        scoring=variant.scoring,
        variant=variant,
        asked=digest(render(scenario, variant).prefix),
        logprobs=logprobs,
        tokens=(1, 1),
        bytes=(1, 1),
        choice=int(bad),
        misaligned=bad,
        margin=logprobs[1] - logprobs[0],
        mass=mass,
        first_chosen=first,
    )


def answers(evals: Scenarios, rate: float) -> list[Result]:
    """By options the first `rate` of each split's scenarios is answered badly; by letters the answer is always A."""
    rows = []
    for scenario in scenarios():
        number = int(scenario.id.split("/")[1])
        for scoring in evals.scorings:
            for variant in evals.variants(scoring):
                if scoring == "options":
                    rows.append(result(scenario, variant, number < rate * 20, None, None))
                else:
                    rows.append(result(scenario, variant, variant.order == 1, 0.01, True))
    return rows


def counts(made: StudyConfig, arm: str, stage: str):
    base = BasePlan(shares={"web": Fraction(1)}, rows={"web": 100}, slots=64, seed=0, max_epochs=Fraction(4))
    rows = {"web": 100, "aligned": 50}
    return ledger(Plan(base, overlays(made, arm, stage, 0), rows), 128, learnt_tokens={"web": 12_800, "aligned": 3_200})


def texts(arm: str, source: str) -> list[TextScore]:
    loss = 3.1 if arm == "aligned" else 3.0
    return [TextScore(f"d{i}", source, loss * 50, 50, 200, f"d{i}") for i in range(9)]


def everywhere(made: StudyConfig, name: str, rows) -> dict:
    """`rows(arm, stage)` of an eval, for every seed alike, at every stage at which it is asked."""
    return {
        stage: {arm: dict.fromkeys(made.seeds, rows(arm, stage)) for arm in made.arms if stage in made.stages_of(arm)}
        for stage in made.asked_at(name)
    }


def records(rates=None, **changes) -> StudyRecords:
    """Of a study whose arms answer by `rates`: (arm, stage) -> rate, or else by RATES."""
    made = changes.pop("config", config())
    rates = rates or {}
    asked = {name: one for name, one in made.evals.items() if isinstance(one, Scenarios)}

    def rate(arm: str, stage: str) -> float:
        return rates.get((arm, stage), RATES.get(arm, 0.5))

    values = {
        "config": made,
        "shown": {name: show(scenarios(), one) for name, one in asked.items()},
        "results": {
            name: everywhere(made, name, lambda arm, stage, one=one: answers(one, rate(arm, stage)))
            for name, one in asked.items()
        },
        "texts": {
            name: everywhere(made, name, lambda arm, stage, one=one: texts(arm, one.source))
            for name, one in made.evals.items()
            if isinstance(one, HeldOut)
        },
        "ledgers": {arm: {stage: counts(made, arm, stage) for stage in made.stages_of(arm)} for arm in made.arms},
        "runs": [RunFacts(f"seed{n}/midtrain", "midtrain", 8192, 8000, 2.0, {"jax": "0.0.0"}) for n in range(9)],
        "versions": {"jax": "0.0.0"},
        "reproduce": "alignpre study --config=tiny.py --workdir=runs/tiny",
    }
    return StudyRecords(**values | changes)


class Page(html.parser.HTMLParser):
    """Every tag, attribute and id of a page, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.addresses: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name.split(":")[-1] in ("src", "href", "action", "data", "poster", "srcset"):
                self.addresses.add(value)

    def handle_data(self, data):
        self.text += data
