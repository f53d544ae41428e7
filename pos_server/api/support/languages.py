"""The language of texts for people, from the header `Accept-Language` (RFC 9110 section 12.5.4)."""

from ...core.texts import DEFAULT_LANGUAGE, LANGUAGES, language_of

TAGS_MAX = 20


def accepted_language(header: str) -> str:
    """Return the preferred language in LANGUAGES (`zh` for `fr, zh-CN;q=0.8, en;q=0.5`), else the default language."""
    best_language, best_weight = DEFAULT_LANGUAGE, 0.0
    for part in header.split(",", TAGS_MAX)[:TAGS_MAX]:
        tag, _, quality = (piece.strip() for piece in part.partition(";"))
        language = language_of(tag)
        is_available = tag.partition("-")[0].lower() in LANGUAGES
        if is_available and _weight(quality) > best_weight:
            best_language, best_weight = language, _weight(quality)
    return best_language


def _weight(quality: str) -> float:
    name, _, value = quality.partition("=")
    if name != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
