"""What people read, by language: one module each, the same keys in all. A new language is a module and a line here.

`{…}` are filled in; each language says them in its own order. Texts that only developers read (errors) are English.
"""

from collections.abc import Mapping

from ..payments.payment import DeclineCode
from . import en, zh

LANGUAGES: dict[str, Mapping[str, str]] = {"en": en.TEXTS, "zh": zh.TEXTS}
_SHIFT_LABELS: dict[str, Mapping[str, str]] = {"en": en.SHIFT_LABELS, "zh": zh.SHIFT_LABELS}
DEFAULT_LANGUAGE = "en"


def language_of(tag: str) -> str:
    """The language we have for a tag (RFC 5646): `zh-Hans-CN` is read as `zh`, what we lack as the default."""
    primary = tag.partition("-")[0].lower()
    return primary if primary in LANGUAGES else DEFAULT_LANGUAGE


def text(language: str, key: str, **values: object) -> str:
    """The text of `key` in a language of LANGUAGES, with its values filled in."""
    return LANGUAGES[language][key].format_map(values)


def decline_text(language: str, side: str, code: DeclineCode) -> str:
    """What a decline says to the `cashier` or the `customer`. `canceled` is a status too, with a text of its own."""
    return LANGUAGES[language][f"{side}.{'canceled_before' if code is DeclineCode.CANCELED else code}"]


def shift_text(language: str, key: str) -> str:
    """A label of a shift's report."""
    return _SHIFT_LABELS[language][key]
