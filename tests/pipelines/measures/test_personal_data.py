"""Personal data: shapes and checksums by hand, people who do not exist, and real rows that hold none."""

import json
import random
import string

import faker
import pytest
from real_data import REAL_DATA, needs_data

from pipelines.host.errors import ConfigError
from pipelines.measures import personal_data
from pipelines.measures.personal_data import KINDS, Found, find_personal_data, highest_severity, redacted

pytestmark = pytest.mark.no_backend

SENTENCES = ("You can reach me under {}.", "My details: {}.", "{}", "Thanks! ({})", "Ann, {}, see you")


def kinds_in(text: str, **options) -> dict[str, str]:
    return {one.kind: text[one.start : one.end] for one in find_personal_data(text, **options)}


@pytest.mark.parametrize(
    ("text", "kind", "part"),
    [
        ("my card 4111 1111 1111 1111, thanks", "credit_card", "4111 1111 1111 1111"),
        ("378282246310005", "credit_card", "378282246310005"),
        ("to GB82 WEST 1234 5698 7654 32 AS SOON", "iban", "GB82 WEST 1234 5698 7654 32"),
        ("DE89370400440532013000.", "iban", "DE89370400440532013000"),
        ("SSN 536-90-4399", "us_ssn", "536-90-4399"),
        ("CPF 390.533.447-05", "br_cpf", "390.533.447-05"),
        ("DNI 54362315K", "es_dni", "54362315K"),
        ("RCCMNL83S18D969H", "it_codice_fiscale", "RCCMNL83S18D969H"),
        ("PESEL 44051401359", "pl_pesel", "44051401359"),
        ("AKIAIOSFODNN7EXAMPLE", "api_key", "AKIAIOSFODNN7EXAMPLE"),
        ("token = ghp_" + "a1B2" * 9, "api_key", "ghp_" + "a1B2" * 9),
        ("api_key: 'q9w8e7r6t5y4u3i2o1'", "api_key", "q9w8e7r6t5y4u3i2o1"),
        ("mail a.b+c@example.co.uk.", "email", "a.b+c@example.co.uk"),
        ("ping 8.8.8.8 now", "ip_address", "8.8.8.8"),
        ("2001:4860:4860::8888", "ip_address", "2001:4860:4860::8888"),
        ("(212) 555-0143 after six", "phone", "(212) 555-0143"),
        ("+44 20 7946 0958", "phone", "+44 20 7946 0958"),
        ("phone: 2125550143", "phone", "2125550143"),
        ("lives at 12 North Maple Street", "street_address", "12 North Maple Street"),
    ],
)
def test_what_is_found(text, kind, part):
    assert kinds_in(text) == {kind: part}


@pytest.mark.parametrize(
    "text",
    [
        "my card 4111 1111 1111 1112",  # Luhn's sum
        "1111111111111111",
        "GB82 WEST 1234 5698 7654 33",  # 97
        "536-00-4399",  # no such group
        "666-90-4399",
        "CPF 390.533.447-06",
        "DNI 54362315A",
        "version 8.8.8.8 and v1.2.3.4, 192.168.0.1, 999.8.8.8",
        "x = a@b or a @ b.T",
        "[5159780352, 28147497, 2125550143]",
        "0.2125550143 and 28980 - 18480 = 10500",
        "'0123456789' == '2 3 4 6 9 3 2 2 11'",
        "password = get_password_from_user()",
        "the api_key is secret",
        "He ran 12 Miles on Main Street",
    ],
)
def test_what_is_not(text):
    assert find_personal_data(text) == []


def test_a_private_key_is_found_whole_and_nothing_within_it():
    key = f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIEow4111111111111111' * 20}\n-----END RSA PRIVATE KEY-----"
    assert kinds_in(f"a {key} b") == {"private_key": key}


def test_pieces_come_from_left_to_right_with_their_severity_and_can_be_redacted():
    text = "Mail ann@example.org or pay 4111111111111111."
    found = find_personal_data(text)
    assert found == [Found("email", 5, 20, "personal"), Found("credit_card", 28, 44, "sensitive")]
    assert redacted(text, found) == "Mail [EMAIL] or pay [CREDIT_CARD]."
    assert [highest_severity(found), highest_severity(found[:1]), highest_severity([])] == [
        "sensitive", "personal", None,
    ]  # fmt: skip
    assert redacted("nothing", []) == "nothing"


def test_kinds_and_regions_can_be_chosen():
    assert kinds_in("ann@example.org, 8.8.8.8", kinds=("email",)) == {"email": "ann@example.org"}
    assert kinds_in("Tel. 030 901820", regions=("DE",)) == {"phone": "030 901820"}
    assert kinds_in("Tel. 030 901820", regions=("US",)) == {}


def test_unknown_countries_are_named():
    assert personal_data.unknown_regions(["US", "usa", "DE"]) == ["usa"]


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(personal_data, "missing_packages", lambda: ("phonenumbers",))
    with pytest.raises(ConfigError, match="phonenumbers not installed: pip install"):
        find_personal_data("text")


def planted(kind: str, count: int) -> list[str]:
    """Values of a kind that nobody has."""
    people = faker.Faker("en_US")
    people.seed_instance(7)
    letters = random.Random(7)
    make = {
        "email": people.email,
        "phone": people.phone_number,
        "credit_card": people.credit_card_number,
        "iban": people.iban,
        "us_ssn": people.ssn,
        "ip_address": people.ipv4_public,
        "api_key": lambda: "AKIA" + "".join(letters.choices(string.ascii_uppercase + string.digits, k=16)),
    }
    return [make[kind]() for _ in range(count)]


@pytest.mark.parametrize("kind", ["email", "phone", "credit_card", "iban", "us_ssn", "ip_address", "api_key"])
def test_nineteen_of_twenty_made_up_values_are_found_whole(kind):
    values = planted(kind, 300)
    texts = [SENTENCES[number % len(SENTENCES)].format(value) for number, value in enumerate(values)]
    whole = [kinds_in(text).get(kind) == value for text, value in zip(texts, values, strict=True)]
    assert sum(whole) >= 0.95 * len(values)


@needs_data
def test_arithmetic_holds_no_personal_data():
    lines = (REAL_DATA / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:2000]
    rows = [json.loads(line) for line in lines]
    assert sum(bool(find_personal_data(f"{row['question']}\n{row['answer']}")) for row in rows) == 0


def test_every_kind_is_looked_for():
    assert set(personal_data._FINDERS) | {"phone"} == set(KINDS)
