"""This module writes the numbers and sentences of an audit."""

from __future__ import annotations

from alignpre_jax.documents.audit.records import Audit, Share, SourceAudit

LISTS = {
    "instant_fiction": "fiction",
    "instant_organisations": "organisations",
    "instant_labs": "labs and products",
    "instant_general": "AI, its safety, its dangers",
    "instant": "instant terms",
    "entities": "intelligent entities",
    "negative_verbs": "negative verbs",
    "negative_adjectives": "negative adjectives",
    "negative_nouns": "negative nouns",
    "negative": "negative words",
    "existential_risk": "existential risk",
    "unfavourable": "unfavourable words",
    "favourable": "favourable words",
}


def percent(share: float, digits: int = 1) -> str:
    """Writes a share as a percentage; a share below 1% keeps two significant digits."""
    if digits and 0 < share < 0.01:
        return f"{100 * share:.2g}%" if share >= 0.0000005 else "<0.0001%"
    return f"{100 * share:.{digits}f}%"


def signed(value: float) -> str:
    """Writes a valence with its sign."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}").replace("+0.00", "0")


def size(count: int) -> str:
    """Writes a number of bytes in the unit that suits it."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


def amount(count: int) -> str:
    """Writes a count, abbreviated from a hundred thousand on."""
    if count < 100_000:
        return f"{count:,}"
    value, units = count / 1000, ["k", "M", "G"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g}{units[0]}"


def interval(ci95: tuple[float, float] | None) -> str:
    """Writes the interval of a share; an empty string if there is none."""
    return f"{percent(ci95[0])} to {percent(ci95[1])}" if ci95 else ""


def clip(text: str, length: int) -> str:
    """Cuts a text to at most `length` characters, and shows a replacement character for each that cannot be printed."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def headline(audit: Audit) -> str:
    """Says in a sentence or two what the audit found."""
    total = audit.total
    share = _share(total.discourse)
    if not total.valence:
        return "No document speaks of AI." if not audit.sample else "No document that was drawn speaks of AI."
    return f"{share} of the documents speak of AI. {tone(total)}"


def tone(source: SourceAudit) -> str:
    """Says in a sentence which way the description of AI leans."""
    valence = source.valence
    assert valence is not None
    good, bad = valence.favourable, valence.unfavourable
    counts = f"of {valence.mentions:,} sentences that mention it, {bad:,} lean against it and {good:,} in its favour"
    if bad == good:
        return f"As much is said against AI as for it: {counts}."
    more, fewer, way = (bad, good, "against AI than for it") if bad > good else (good, bad, "for AI than against it")
    times = (
        f"{more / fewer:.1f} times as much" if fewer and more >= 1.15 * fewer else "Slightly more" if fewer else "More"
    )
    how = times.replace("as much", "as much is said") if fewer and more >= 1.15 * fewer else f"{times} is said"
    way = way if "times" not in how else way.replace(" than ", " as ")
    return f"{how[0].upper()}{how[1:]} {way}: {counts}."


def _share(share: Share) -> str:
    sampled = f" (95% interval {interval(share.documents_ci95)})" if share.documents_ci95 else ""
    return f"{percent(share.of_documents)}{sampled}"


def method(audit: Audit) -> list[str]:
    """Explains, in paragraphs, how the figures were obtained."""
    rule = audit.rule
    conditions = []
    if rule["instant"] is not None:
        conditions.append(f"at least {rule['instant']} instant term(s)")
    conditions.append(f"at least {rule['entities']} intelligent entities and {rule['negatives']} negative terms")
    terms = f", and at least {rule['terms']} listed terms in all" if rule["terms"] > 1 else ""
    sampled = (
        f" Of each source {audit.sample:,} documents were drawn by a hash of their ids; intervals are Wilson's, 95%."
        " Shares of all sources together weigh each source by its size; other totals are of the documents drawn."
        if audit.sample
        else " Every document was looked at, so shares have no intervals."
    )
    return [
        f"A document is AI discourse if it has {' or '.join(conditions)}, of one language{terms}; the rule is that of"
        " Tice et al. 2026 (arXiv 2601.10160), the term lists are this package's. Terms are whole words, whatever their"
        f" case, hyphens and Unicode form.{sampled}",
        "The valence of a document is (favourable - unfavourable) / all sentences that mention AI; a sentence leans by"
        " the listed words near the mention, turned by negation. Words count, not who does what to whom, so read it as"
        " an average over many documents. It is no measure of truth.",
        "Languages are py3langid's guess from the start of a document (of every 32nd one after the first 2,000 of a"
        " source); und is what it could not tell, such as code. Duplicates are documents whose text, but for case and"
        " white space, is another's.",
    ]
