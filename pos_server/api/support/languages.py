"""The language of texts for people: the first one of `Accept-Language` (RFC 9110 section 12.5.4) that there is."""

from ...core.texts import DEFAULT_LANGUAGE, LANGUAGES, language_of

TAGS_MAX = 20


def accepted_language(header: str) -> str:
    """A language of LANGUAGES: `fr, zh-CN;q=0.8, en;q=0.5` is read as `zh`, what we lack as the default."""
    found, weight = DEFAULT_LANGUAGE, 0.0
    for part in header.split(",")[:TAGS_MAX]:
        tag, _, quality = (piece.strip() for piece in part.partition(";"))
        language = language_of(tag)
        is_ours = tag.partition("-")[0].lower() in LANGUAGES
        if is_ours and _weight(quality) > weight:
            found, weight = language, _weight(quality)
    return found


def _weight(quality: str) -> float:
    name, _, value = quality.partition("=")
    if name != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
