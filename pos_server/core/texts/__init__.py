"""Texts for cashiers and customers: one module per language, all with the same names.

To add a language, add a module and its name to _MODULES. Values replace `{…}`, in the order that the language needs.
Texts for developers (errors) are English only.
"""

from collections.abc import Mapping

from ..payments.declines import DeclineCode
from . import en, zh

_MODULES = {"en": en, "zh": zh}
LANGUAGES: dict[str, Mapping[str, str]] = {language: module.TEXTS for language, module in _MODULES.items()}
SHIFT_LABELS: dict[str, Mapping[str, str]] = {language: module.SHIFT_LABELS for language, module in _MODULES.items()}
DEFAULT_LANGUAGE = "en"


def language_of(tag: str) -> str:
    """Return the language for a tag (RFC 5646): `zh` for `zh-Hans-CN`, the default for a language without texts."""
    primary = tag.partition("-")[0].lower()
    return primary if primary in LANGUAGES else DEFAULT_LANGUAGE


def text(language: str, key: str, **values: object) -> str:
    """Return the text of `key` in a language of LANGUAGES, with its values."""
    return LANGUAGES[language][key].format_map(values)


def decline_text(language: str, side: str, code: DeclineCode) -> str:
    """Return the text of a decline for the `cashier` or the `customer`. The status `canceled` has a different text."""
    return LANGUAGES[language][f"{side}.{'canceled_before' if code is DeclineCode.CANCELED else code}"]


def shift_text(language: str, key: str) -> str:
    """Return a label of the shift report."""
    return SHIFT_LABELS[language][key]
