"""Personal data in a text: what a pattern can see and, where there is one, a checksum confirms.

Two severities, as of the Gemma report's memorization study (arXiv:2403.08295, section 7): *sensitive* is what lets
somebody act in another's name (cards, accounts, national numbers, keys), *personal* what leads to them (mail, phone,
address). Shapes are found by expressions, checked by python-stdnum (checksums) and phonenumbers (numbering plans).
Nothing reads the context, so that a name is never found, and a number that only looks like one now and then is.
"""

import dataclasses
import functools
import importlib.util
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from gemma_keras.install_advice import install_command
from pipelines.host.errors import ConfigError

Severity = Literal["sensitive", "personal"]
Span = tuple[int, int]
Finder = Callable[[str], Iterator[Span]]

SENSITIVE = (
    "private_key", "api_key", "credit_card", "iban", "us_ssn", "us_itin", "br_cpf", "cn_ric", "es_dni", "fr_nir",
    "in_aadhaar", "it_codice_fiscale", "pl_pesel",
)  # fmt: skip
"""Kinds of the higher severity, in the order in which they are looked for: where two claim the same letters, the first
has them."""
PERSONAL = ("email", "ip_address", "phone", "street_address")
KINDS = (*SENSITIVE, *PERSONAL)
PACKAGES = ("phonenumbers", "stdnum")


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One piece of personal data.

    Args:
        kind: one of `KINDS`. start, end: letters [start, end) of the text.
    """

    kind: str
    start: int
    end: int
    severity: Severity


def find_personal_data(text: str, regions: Sequence[str] = ("US",), kinds: Sequence[str] = KINDS) -> list[Found]:
    """The personal data in a text, from left to right; no two overlap.

    Args:
        regions: countries (ISO 3166, two letters) that a phone number without a country's code may be of.
        kinds: those that are looked for.

    Raises:
        ConfigError: phonenumbers or python-stdnum is not installed.
    """
    need_packages()
    taken: list[Found] = []
    for kind in KINDS:
        if kind not in kinds:
            continue
        severity: Severity = "sensitive" if kind in SENSITIVE else "personal"
        spans = _phones(text, tuple(regions)) if kind == "phone" else _FINDERS[kind](text)
        for start, end in spans:
            if all(end <= other.start or start >= other.end for other in taken):
                taken.append(Found(kind, start, end, severity))
    return sorted(taken, key=lambda one: one.start)


def highest_severity(found: Sequence[Found]) -> Severity | None:
    """That of the worst piece; None where there is none."""
    if not found:
        return None
    return "sensitive" if any(one.severity == "sensitive" for one in found) else "personal"


def redacted(text: str, found: Sequence[Found]) -> str:
    """The text with a name in brackets in place of each piece: `write to [EMAIL]`.

    Args:
        found: of this text, from left to right, none over another.
    """
    pieces, last = [], 0
    for one in found:
        pieces += [text[last : one.start], f"[{one.kind.upper()}]"]
        last = one.end
    return "".join([*pieces, text[last:]])


def need_packages() -> None:
    """Stops where the packages are missing that numbers are checked by.

    Raises:
        ConfigError: with the command that installs them.
    """
    missing = missing_packages()
    if missing:
        raise ConfigError(f"personal data: {' and '.join(missing)} not installed: {install_command('filters')}")


@functools.cache
def missing_packages() -> tuple[str, ...]:
    """Those of `PACKAGES` that are not installed."""
    return tuple(name for name in PACKAGES if importlib.util.find_spec(name) is None)


def unknown_regions(regions: Sequence[str]) -> list[str]:
    """Those that are no country of phonenumbers."""
    import phonenumbers

    return [region for region in regions if region not in phonenumbers.SUPPORTED_REGIONS]


_EDGE = r"(?<![\w.-])", r"(?![\w-])"
"""Around a number: it is no part of a longer one, of a word or of a decimal fraction."""


def _number(pattern: str) -> re.Pattern[str]:
    return re.compile(f"{_EDGE[0]}(?:{pattern}){_EDGE[1]}")


_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?P<what>[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:[\s\S]{0,20000}?-----END (?P=what)-----|[A-Za-z0-9+/=\s]{0,20000})"
)
_TOKENS = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,}|glpat-[A-Za-z0-9_-]{20,}"  # GitHub, GitLab
    r"|sk-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}"  # OpenAI and Anthropic, Hugging Face
    r"|(?:sk|rk)_live_[A-Za-z0-9]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}"  # Stripe, Slack
    r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}"  # Google
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"  # npm, PyPI, SendGrid
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"  # JSON web tokens
    r")(?![A-Za-z0-9_])"
)
_ASSIGNED = re.compile(
    r"(?i:api[_ -]?key|secret(?:[_ -]?(?:access)?[_ -]?key)?|access[_ -]?token|auth[_ -]?token|client[_ -]?secret"
    r"|password|passwd)[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?P<value>[A-Za-z0-9+/_=-]{16,200})(?![A-Za-z0-9+/_=.(-])"
)
"""A value that is given a name: `api_key = "..."`. Letters and digits must be mixed, which no word is."""
_CARD = _number(r"\d{12,19}|\d{4}(?P<a>[ -])\d{4}(?P=a)\d{4}(?P=a)\d{1,7}|\d{4}(?P<b>[ -])\d{6}(?P=b)\d{4,5}")
_BRANDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12,15}|3(?:0[0-5]|[68]\d)\d{11}|35\d{14,17}|(?:2131|1800)\d{11}"
    r"|(?:0604|50\d\d|5[6-8]\d\d|6\d{3})\d{8,15}"
)
"""Leading digits and lengths of the issuers' numbers (ISO/IEC 7812), the widest that they have had."""
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}")
_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.%+'-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}"
    r"(?![\w@(-])"
)
_IPV4 = re.compile(r"(?<![\w.])(?<![vV])(?<![vV]ersion )\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{1,4}:)[0-9A-Fa-f:]{8,39}(?![\w:])")
_STREET = re.compile(
    r"(?<![\w.,$-])\d{1,6}(?: (?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.?)?(?: [A-Z][a-z'’]+){1,3} "
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Terrace|Way|Parkway|Pkwy|Circle"
    r"|Highway|Hwy)\b\.?(?:,? (?:Apt|Suite|Unit)\.? ?#?\w{1,6})?"
)
_DIGITS = re.compile(r"\d(?:[ ()./x-]{0,3}\d){6}")
"""Without seven digits nearly side by side there is no phone number."""
_GROUPED = re.compile(
    r"(?<![\w.,-])(?:(?:\+|00)?1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}(?: ?x\d{1,6})?(?![\w-]|\.\d)"
    r"|(?<![\w.,-])\d{3} \d{3} \d{4}(?![\w-]|\.\d| \d)"
)
"""A number of North America in its usual groups, whether or not its area has been given out."""
_CALLED = re.compile(
    r"(?i:\b(?:call|phone|tel|telephone|mobile|cell|fax|whatsapp|reach)\b[^\d\n(\[='\"]{0,24})(?P<number>\d{9,12})\b"
)
"""Digits without groups are a phone number where a word says so."""


def _matches(pattern: re.Pattern[str], is_right: Callable[[str], bool] = lambda text: True) -> Finder:
    return lambda text: (match.span() for match in pattern.finditer(text) if is_right(match[0]))


def _stdnum(name: str) -> Callable[[str], bool]:
    """Whether python-stdnum's module of that name finds a number right."""
    return lambda number: bool(_stdnum_modules()[name].is_valid(number))


@functools.cache
def _stdnum_modules() -> dict[str, Any]:
    """The modules of python-stdnum that know a checksum, by their last name."""
    from stdnum import iban, luhn
    from stdnum.br import cpf
    from stdnum.cn import ric
    from stdnum.es import dni
    from stdnum.fr import nir
    from stdnum.in_ import aadhaar
    from stdnum.it import codicefiscale
    from stdnum.pl import pesel
    from stdnum.us import itin, ssn

    modules = (aadhaar, codicefiscale, cpf, dni, iban, itin, luhn, nir, pesel, ric, ssn)
    return {module.__name__.rpartition(".")[2]: module for module in modules}


def _is_card(number: str) -> bool:
    digits = re.sub(r"[ -]", "", number)
    return _BRANDS.fullmatch(digits) is not None and len(set(digits)) > 1 and _stdnum_modules()["luhn"].is_valid(digits)


def _is_global(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _api_keys(text: str) -> Iterator[Span]:
    yield from (match.span() for match in _TOKENS.finditer(text))
    for match in _ASSIGNED.finditer(text):
        value = match["value"]
        if any(map(str.isdigit, value)) and any(map(str.isalpha, value)):
            yield match.span("value")


def _ibans(text: str) -> Iterator[Span]:
    """The longest beginning of each candidate that is right: capitals behind the number look like more of it."""
    for match in _IBAN.finditer(text):
        ends = [end for end in range(match.end(), match.start() + 14, -1) if text[end : end + 1].isalnum() is False]
        for end in ends:
            if _stdnum_modules()["iban"].is_valid(text[match.start() : end], check_country=False):
                yield match.start(), end
                break


def _phones(text: str, regions: Sequence[str]) -> Iterator[Span]:
    if _DIGITS.search(text) is None:
        return
    yield from (match.span() for match in _GROUPED.finditer(text))
    yield from (match.span("number") for match in _CALLED.finditer(text))
    import phonenumbers

    for region in regions:
        for match in phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.POSSIBLE):
            # A bracket around the whole is none of the number's own.
            start = match.start + (match.raw_string[0] in "([" and not {")", "]"} & set(match.raw_string))
            is_known = match.raw_string.startswith("+") or phonenumbers.is_valid_number(match.number)
            if is_known and _is_written(text, start, match.end):
                yield start, match.end


def _is_written(text: str, start: int, end: int) -> bool:
    """As people write a phone number: in groups of two digits or more, or without any, and in no calculation, fraction,
    list or quotation marks, where digits are a value."""
    _, *others = re.findall(r"\d+", text[start:end])
    before, after = text[:start].rstrip(" ")[-1:], text[end:].lstrip(" ")[:1]
    is_value = (
        {before, after} & set("*/=<>[]^%$_\"'")
        or before == after == ","
        or text[max(0, start - 1) : start] in tuple(".,-+")
    )
    return all(len(group) >= 2 for group in others) and not is_value


_FINDERS: dict[str, Finder] = {
    "private_key": _matches(_PRIVATE_KEY),
    "api_key": _api_keys,
    "credit_card": _matches(_CARD, _is_card),
    "iban": _ibans,
    # Nine digits without dashes are any number.
    "us_ssn": _matches(_number(r"\d{3}([ -])\d{2}\1\d{4}"), _stdnum("ssn")),
    "us_itin": _matches(_number(r"9\d{2}-\d{2}-\d{4}"), _stdnum("itin")),
    "br_cpf": _matches(_number(r"\d{3}\.\d{3}\.\d{3}-\d{2}"), _stdnum("cpf")),
    "cn_ric": _matches(_number(r"[1-9]\d{16}[\dX]"), _stdnum("ric")),
    "es_dni": _matches(_number(r"\d{8}-?[A-Z]"), _stdnum("dni")),
    "fr_nir": _matches(_number(r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}"), _stdnum("nir")),
    "in_aadhaar": _matches(_number(r"[2-9]\d{3} \d{4} \d{4}"), _stdnum("aadhaar")),
    "it_codice_fiscale": _matches(_number(r"[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z]"), _stdnum("codicefiscale")),
    "pl_pesel": _matches(_number(r"\d{11}"), _stdnum("pesel")),
    "email": _matches(_EMAIL),
    "ip_address": lambda text: (
        match.span() for pattern in (_IPV4, _IPV6) for match in pattern.finditer(text) if _is_global(match[0])
    ),
    "street_address": _matches(_STREET),
}
