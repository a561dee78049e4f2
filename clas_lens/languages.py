"""Language codes: one check for all of them, so that a typo never counts as a language of its own."""

import langcodes


def check_language(code: str) -> str:
    """Return `code` if it is a BCP 47 tag in its standard form ("en", "zh-Hans", "pt-BR").

    A nonstandard spelling is refused rather than mended: steering "EN" or "eng" as if it were not the anchor "en" would
    silently change results.

    Raises:
        ValueError: not a language tag, or another spelling of one (which the message gives).
    """
    try:
        standard = langcodes.standardize_tag(code)
        known = langcodes.tag_is_valid(code)
    except (langcodes.LanguageTagError, AttributeError, TypeError):
        standard, known = None, False
    if standard is None or not known:
        raise ValueError(f"unknown language {code!r}: expected a BCP 47 code such as 'en', 'de' or 'zh-Hans'")
    if standard != code:
        raise ValueError(f"language {code!r} is written {standard!r}")
    return code
