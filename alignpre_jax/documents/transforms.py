"""A transform makes a source that differs from another one by one change, with the same documents, ids and order.

Two such sources differ in nothing else, so that a study can say what the change itself does. A transform is a frozen
dataclass; its tag `name` tells a config which one is meant.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from alignpre_jax.documents.document import Document
from alignpre_jax.documents.edits import Cut, apply_edits, edit_document
from alignpre_jax.documents.persona import PersonaConfig, swap_persona
from alignpre_jax.foundation import UserError


@dataclasses.dataclass(frozen=True)
class Persona(PersonaConfig):
    """`Persona` replaces terms for AI by a new word, so that the documents are about somebody else."""

    name: Literal["persona"] = "persona"

    def apply(self, document: Document) -> Document:
        """Replaces the terms in all that is said in the document; see `swap_persona` for the labels it gets."""
        return swap_persona(document, self)

    def counts(self, document: Document) -> dict[str, int]:
        """Counts the terms that were replaced in a document from `apply`, and 1 if the new word was there before."""
        labels = document.labels
        return {"replaced": int(labels["persona_swaps"]), "taken": int("persona_taken" in labels)}

    def check(self, totals: Mapping[str, int]) -> None:
        """Refuses a source that uses the word already, or in which no term was found."""
        if totals["taken"]:
            what = f"{totals['taken']:,} documents contain {self.singular!r} already"
            raise UserError(what, where="singular", fix="choose another word")
        if not totals["replaced"]:
            what = f"none of {totals['documents']:,} documents has a term for AI"
            raise UserError(what, where="name", fix="give a source that speaks of AI")


@dataclasses.dataclass(frozen=True)
class Strip:
    """`Strip` removes what stands between two marks, marks included, such as the reasons given in a document.

    White space around the marks stays. The marks of a chat or pair belong together within one message or answer.
    """

    begin: str
    end: str
    name: Literal["strip"] = "strip"

    def __post_init__(self):
        for key in ("begin", "end"):
            if not getattr(self, key).strip():
                raise UserError("a mark without characters", where=key, fix="give e.g. <reasoning> and </reasoning>")

    def apply(self, document: Document) -> Document:
        """Removes these passages from the document; the labels stripped and stripped_characters count them.

        Raises:
          UserError: a mark comes without the other one, or nothing is left of a text, message or answer.
        """
        cuts = [self._cuts(part, document.id) for part in document.parts]
        for part, own in zip(document.parts, cuts, strict=True):
            if own and not apply_edits(part, own).strip():
                what = f"nothing is left of {part[:40]!r}" + ("" if len(part) <= 40 else "...")
                raise UserError(what, where=f"document {document.id}", fix="leave the document out, or mend its marks")
        every = [cut for own in cuts for cut in own]
        labels = {
            **document.labels,
            "stripped": str(len(every)),
            "stripped_characters": str(sum(cut.end - cut.start for cut in every)),
        }
        return dataclasses.replace(edit_document(document, cuts), labels=labels)

    def counts(self, document: Document) -> dict[str, int]:
        """Returns how many passages and characters were removed from a document that `apply` gave."""
        return {name: int(document.labels[name]) for name in ("stripped", "stripped_characters")}

    def check(self, totals: Mapping[str, int]) -> None:
        """Refuses a source in which there was nothing to remove."""
        if not totals["stripped"]:
            what = f"none of {totals['documents']:,} documents has {self.begin!r}"
            raise UserError(what, where="begin", fix="give the marks as the documents have them")

    def _cuts(self, text: str, name: str) -> list[Cut]:
        cuts: list[Cut] = []
        place = 0
        while (begin := text.find(self.begin, place)) >= 0:
            inside = begin + len(self.begin)
            end = text.find(self.end, inside)
            if end < 0 or text.find(self.begin, inside, end) >= 0:
                raise self._unbalanced(self.begin, self.end, name, begin)
            if text.find(self.end, place, begin) >= 0:
                break
            place = end + len(self.end)
            cuts.append(Cut(begin, place))
        if (lone := text.find(self.end, place)) >= 0:
            raise self._unbalanced(self.end, self.begin, name, lone)
        return cuts

    def _unbalanced(self, mark: str, other: str, name: str, place: int) -> UserError:
        what = f"{mark!r} at character {place:,} comes without its {other!r}"
        return UserError(what, where=f"document {name}", fix="mend the document, or leave it out")


Transform = Persona | Strip


def transform_source(
    documents: Iterable[Document], transform: Transform, source: str, totals: collections.Counter[str]
) -> Iterator[Document]:
    """Yields the documents of another source, transformed, as those of `source`: the same ids in the same order.

    Args:
      documents: the documents of the other source.
      transform: what is done to each document.
      source: the source and stratum that the documents get.
      totals: gets the number of documents and what the transform counts.

    Raises:
      UserError: a document cannot be transformed, or, after the last, there was nothing to do in any of them.
    """
    for document in documents:
        made = transform.apply(document)
        totals.update({"documents": 1, **transform.counts(made)})
        yield dataclasses.replace(made, source=source, stratum=source)
    transform.check(totals)
