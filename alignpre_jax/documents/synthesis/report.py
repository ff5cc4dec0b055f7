"""The report says what a synthesis has made, refused and cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class SynthesisReport:
    """A `SynthesisReport` has the counts of a folder; calls, tokens and cost are those of all its runs.

    Args:
      wanted: the number of documents that were asked for.
      documents: the number of documents that were written.
      by_form: the number of documents by form and stance.
      words: the number of words in the documents, by stance.
      refused: completions that did not pass the checks, by reason; most were made good by another completion.
      given_up: documents without a completion that passed, by the reason why the last one was refused.
      duplicates: "exact" and "near" duplicates left out; one document of each group of a stance is kept.
      unfinished: documents that are not made yet.
      calls: completions that were made.
      bounded_calls: completions without a token count, which are counted with the most tokens they can have.
      unanswered: attempts of this run that may have been charged although no answer came.
      prompt_tokens: tokens that were read.
      completion_tokens: tokens that were written.
      cost_microdollars: the cost at the configured prices, rounded up once.
      calls_now: completions that were made in this run.
      seconds: how long this run took.
      stopped: why this run ended before everything was done; empty if it did not.
      reproduce: config, generator, digests of prompts, situations and documents, version.
    """

    wanted: int
    documents: int
    by_form: Mapping[str, Mapping[str, int]]
    words: Mapping[str, int]
    refused: Mapping[str, int]
    given_up: Mapping[str, int]
    duplicates: Mapping[str, int]
    unfinished: int
    calls: int
    bounded_calls: int
    unanswered: int
    prompt_tokens: int
    completion_tokens: int
    cost_microdollars: int
    calls_now: int
    seconds: float
    stopped: str
    reproduce: Mapping[str, Any]

    def lines(self) -> list[str]:
        """Returns the lines of the report for a terminal."""
        lines = [f"{self.documents:,} of {self.wanted:,} documents"]
        lines += [
            f"  {form:<10}" + "  ".join(f"{stance} {count:,}" for stance, count in counts.items())
            for form, counts in self.by_form.items()
        ]
        for title, counts in (("completions refused", self.refused), ("documents given up", self.given_up)):
            lines += [f"{title}: {count:,}  {reason}" for reason, count in counts.items()]
        if any(self.duplicates.values()):
            lines.append(
                "left out: " + ", ".join(f"{count:,} {kind} duplicates" for kind, count in self.duplicates.items())
            )
        lines.append(
            f"{self.calls:,} calls, {self.calls_now:,} of them now; {self.prompt_tokens:,} tokens read, "
            f"{self.completion_tokens:,} written; ${self.cost_microdollars / 10**6:,.2f}"
        )
        if self.bounded_calls:
            lines.append(
                f"{self.bounded_calls:,} calls came without a token count and are counted with the most it can be"
            )
        if self.unanswered:
            lines.append(f"{self.unanswered:,} attempts got no answer and may have been charged")
        return lines + ([self.stopped] if self.stopped else [])
