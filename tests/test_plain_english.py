"""Phrases that are hard to read, with plain alternatives: CONTRIBUTING.md, habit 8."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTEAD = {
    r"for ever": "permanently, indefinitely",
    r"by turns": "alternately",
    r"as ever": "as before, also",
    r"of (now|then|before)": "current, at that time, previous",
    r"besides": "also, concurrently, other than",
    r"(give|gives|given|gave|giving) back": "return, refund",
    r"tak(e|es|en|ing) along": "invalidate, include",
    r"whoever": "a noun: an operator, the caller",
    r"anew": "again",
    r"whose time is over": "expired",
    r"(is|are|was|were) told": "receives, is notified",
    r"(is|are|was|were) heard": "received",
    r"passes by no": "is subject to every",
}
# Sentences that start with a subordinate clause. Case-sensitive, because only the start of a sentence counts.
STARTS = {
    r"(?:^[\s#*-]*|[.:;\"|(]\s*)Of (a|an|the|two|each|all|one)": "put it after the noun: the payments of a till",
    r"\"\"\"(What|Who|Whose|How|Whether)": "start with a noun or a verb",
    r"(description|help|summary)=f?\"(what|who|how|whether)": "start with a noun or a verb",
}
# Applied migrations never change.
_NEVER = ("pos_server/ledger/migrations/", "tests/test_plain_english.py")
_FOLDERS = ("clients", "docker", "docs", "loadtest", "pos_server", "scripts", "tests")
_SUFFIXES = ("cfg", "md", "py", "sh", "sql", "yaml")


def phrases() -> list[tuple[re.Pattern[str], str]]:
    """Return the patterns with their alternatives. Spaces also match line breaks with the next line's comment sign."""
    plain = [(rf"\b{phrase}\b", instead, re.IGNORECASE) for phrase, instead in INSTEAD.items()]
    starts = [(rf"{phrase}\b", instead, re.MULTILINE) for phrase, instead in STARTS.items()]
    return [(re.compile(text.replace(" ", r"[\s#-]+"), flags), instead) for text, instead, flags in plain + starts]


def test_no_text_has_a_banned_phrase() -> None:
    files = [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "docker" / "Dockerfile"]
    for folder in _FOLDERS:
        files += (path for suffix in _SUFFIXES for path in (ROOT / folder).rglob(f"*.{suffix}"))
    findings = []
    for path in sorted(files):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(_NEVER):
            continue
        text = path.read_text("utf-8")
        findings += [
            f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}. Better: {instead}."
            for phrase, instead in phrases()
            for match in phrase.finditer(text)
        ]
    assert not findings, "\n".join(findings)
