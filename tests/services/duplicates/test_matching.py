"""When two rows may be one."""

import gc
from datetime import date
from itertools import combinations
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlmodel_alembic_async import Pet, PetCreate, User, UserCreate
from sqlmodel_alembic_async.services.duplicates.matching import (
    MAX_GROUP_SIZE,
    DuplicateIndex,
    DuplicateReason,
    Group,
    Key,
    Member,
    _packed,
    _unpacked,
    keys_of,
    member_of,
    score,
    valid_reasons,
)
from sqlmodel_alembic_async.services.statements.column_values import new_values

CHIP = "985141000123456"
BORN = date(2020, 5, 17)

# Two users, and the reasons why they may be one.
USERS: list[tuple[dict[str, Any], dict[str, Any], set[str]]] = [
    ({"phone": "+49 30 12345"}, {"phone": "030 12345"}, {"name_and_phone"}),
    ({"phone": "+44 (0)20 7946 0958"}, {"phone": "020-7946-0958"}, {"name_and_phone"}),
    ({"phone": "206-555-1234 ext. 7"}, {"phone": "(206) 555 1234"}, {"name_and_phone"}),
    ({"phone": "555 1234 x12"}, {"phone": "555-1234"}, {"name_and_phone"}),
    ({"phone": "Fax 5551234"}, {"phone": "555-1234"}, {"name_and_phone"}),
    ({"phone": "12345"}, {"phone": "012345"}, {"name_and_phone"}),
    ({"phone": "+49 30 0012345"}, {"phone": "0012345"}, {"name_and_phone"}),
    ({"phone": "\uff11\uff12\uff13\uff14\uff15"}, {"phone": "12345"}, {"name_and_phone"}),
    ({"phone": "\u0661\u0662\u0663\u0664\u0665"}, {"phone": "12345"}, {"name_and_phone"}),
    ({"phone": "555-1234"}, {"phone": "555-1235"}, set()),
    ({"phone": "00000"}, {"phone": "00000"}, set()),
    ({"phone": "(206) 555-5555"}, {"phone": "555-5555"}, set()),
    ({"name": "Ada", "phone": "555-1234"}, {"name": "Bob", "phone": "555-1234"}, set()),
    ({"name": "Zo\u00eb", "phone": "555-1234"}, {"name": "ZOE\u0308", "phone": "555-1234"}, {"name_and_phone"}),
    ({"postal_code": "98116"}, {"postal_code": "98116-1234"}, {"name_and_postal_code"}),
    ({"postal_code": "07302"}, {"postal_code": "7302"}, {"name_and_postal_code"}),
    ({"postal_code": "sw1a 1aa"}, {"postal_code": "SW1A1AA"}, {"name_and_postal_code"}),
    ({"postal_code": "12345-678"}, {"postal_code": "12345-679"}, set()),
    ({"postal_code": "00000"}, {"postal_code": "00000"}, set()),
    ({"postal_code": "-"}, {"postal_code": "-"}, set()),
    ({"name": "Ada", "postal_code": "98116"}, {"name": "Bob", "postal_code": "98116"}, set()),
    ({"name": "Ada", "email": "a@b.org"}, {"name": "Bob", "email": "a+pets@b.org"}, {"mailbox"}),
    ({"name": "Ada", "email": "a.b@gmail.com"}, {"name": "Bob", "email": "ab+x@googlemail.com"}, {"mailbox"}),
    ({"name": "Ada", "email": "a.b@b.org"}, {"name": "Bob", "email": "ab@b.org"}, set()),
    ({"email": "a.b@b.org"}, {"email": "ab@b.org"}, {"name_and_email"}),
    ({"email": "ada_l@b.org"}, {"email": "ada-l+x@c.org"}, {"name_and_email"}),
    ({"email": "a@b.org"}, {"email": "a+pets@b.org"}, {"mailbox", "name_and_email"}),
    ({"email": "+a@b.org"}, {"email": "+b@b.org"}, set()),
    ({"email": "_@b.org"}, {"email": "-@c.org"}, set()),
    ({"name": "Ada", "email": "info@b.org"}, {"name": "Bob", "email": "info@c.org"}, set()),
    ({"city": "Rome", "address": "Via 1"}, {"city": "Rome", "address": "Via 1"}, set()),
    (
        {"phone": "555-1234", "postal_code": "98116", "email": "a@b.org"},
        {"phone": "5551234", "postal_code": "98116", "email": "a+1@b.org"},
        {"name_and_phone", "name_and_postal_code", "mailbox", "name_and_email"},
    ),
]

# Two pets, and the reasons why they may be one.
PETS: list[tuple[dict[str, Any], dict[str, Any], set[str]]] = [
    ({"species": "dog"}, {"species": "dog"}, set()),
    (
        {"species": "dog", "breed": "Pug", "color": "black", "notes": "ZIP code 98116"},
        {"species": "dog", "breed": "Pug", "color": "black", "notes": "ZIP code 98116"},
        set(),
    ),
    ({"owner_id": 1, "species": "dog"}, {"owner_id": 1, "species": "Dog"}, {"owner_name_and_species"}),
    ({"owner_id": 1, "species": "dog"}, {"owner_id": 1, "species": "\uff24og"}, {"owner_name_and_species"}),
    ({"owner_id": 1, "species": "dog"}, {"owner_id": 1, "species": "cat"}, set()),
    ({"owner_id": 1, "species": "dog"}, {"owner_id": 1}, {"owner_and_name"}),
    ({"owner_id": 1}, {"owner_id": 1}, {"owner_and_name"}),
    ({"owner_id": 1, "species": "dog"}, {"owner_id": 2, "species": "dog"}, set()),
    ({"name": "Rex", "owner_id": 1, "species": "dog"}, {"name": "Max", "owner_id": 1, "species": "dog"}, set()),
    (
        {"owner_id": 1, "species": "dog", "birth_date": BORN},
        {"owner_id": 2, "species": "dog", "birth_date": BORN},
        {"name_species_and_birth_date"},
    ),
    ({"species": "dog", "birth_date": BORN}, {"species": "cat", "birth_date": BORN}, set()),
    ({"birth_date": BORN}, {"birth_date": BORN}, set()),
    (
        {"species": "dog", "birth_date": BORN, "birth_date_estimated": True},
        {"species": "dog", "birth_date": BORN},
        set(),
    ),
    (
        {"name": "Rex", "microchip": CHIP},
        {"name": "Max", "notes": "Chip: 985-141-000.123 456\nsince 2019"},
        {"microchip"},
    ),
    ({"microchip": CHIP}, {"external_ref": "985141 000123456"}, {"microchip", "name_and_microchip"}),
    ({"microchip": CHIP}, {"notes": CHIP, "microchip": "123456789"}, {"microchip", "name_and_microchip"}),
    ({"microchip": CHIP}, {"microchip": "900141000123456"}, {"name_and_microchip"}),
    ({"microchip": CHIP}, {"microchip": "000123456"}, {"name_and_microchip"}),
    ({"microchip": CHIP}, {"microchip": "1000123456"}, {"name_and_microchip"}),
    ({"name": "Rex", "microchip": CHIP}, {"name": "Max", "microchip": "000123456"}, set()),
    ({"microchip": "A1B2C3D4E5"}, {"microchip": "B1B2C3D4E5"}, set()),
    ({"microchip": CHIP}, {"notes": f"0{CHIP}"}, set()),
    ({"microchip": CHIP}, {"notes": f"{CHIP}7"}, set()),
    ({"microchip": CHIP}, {"notes": f"mother {CHIP}, father 985141000123457"}, set()),
    ({"microchip": CHIP}, {"microchip": "985141000123457", "notes": f"brother of {CHIP}"}, set()),
    ({"notes": "999000000000001"}, {"notes": "999000000000001"}, set()),
    ({"notes": "phone 020 7946 0958"}, {"notes": "phone 020 7946 0958"}, set()),
    (
        {"owner_id": 1, "species": "dog", "microchip": CHIP},
        {"owner_id": 1, "species": "dog", "microchip": "985141000999999"},
        set(),
    ),
    (
        {"owner_id": 1, "species": "dog", "microchip": CHIP},
        {"owner_id": 1, "species": "dog", "microchip": "123456789"},
        {"owner_name_and_species"},
    ),
    (
        {"owner_id": 1, "species": "dog", "microchip": CHIP},
        {"owner_id": 1, "species": "dog"},
        {"owner_name_and_species"},
    ),
    ({"microchip": "985141023456789"}, {"microchip": "123456789"}, set()),  # Eight digits of the nine are the same.
]


def user(row_id: int, **values: Any) -> Any:
    return SimpleNamespace(id=row_id, **new_values(UserCreate(**{"name": "Ada", **values})))


def pet(row_id: int, **values: Any) -> Any:
    return SimpleNamespace(id=row_id, **new_values(PetCreate(**{"name": "Rex", **values})))


def groups(model: type[User] | type[Pet], rows: list[Any]) -> list[Group]:
    index = DuplicateIndex()
    for row in rows:
        index.add(member_of(row), keys_of(model, row))
    return index.take_groups()


def told(model: type[User] | type[Pet], rows: list[Any]) -> list[tuple[tuple[int, ...], set[str]]]:
    return [(group.ids, set(group.reasons)) for group in groups(model, rows)]


@pytest.mark.parametrize(("one", "other", "reasons"), USERS)
def test_two_users_may_be_one_for_these_reasons(one: dict[str, Any], other: dict[str, Any], reasons: set[str]) -> None:
    expected = [((1, 2), reasons)] if reasons else []

    assert told(User, [user(1, **one), user(2, **other)]) == expected
    assert told(User, [user(2, **one), user(1, **other)]) == expected


@pytest.mark.parametrize(("one", "other", "reasons"), PETS)
def test_two_pets_may_be_one_for_these_reasons(one: dict[str, Any], other: dict[str, Any], reasons: set[str]) -> None:
    expected = [((1, 2), reasons)] if reasons else []

    assert told(Pet, [pet(1, **one), pet(2, **other)]) == expected
    assert told(Pet, [pet(2, **one), pet(1, **other)]) == expected


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        ("microchip", "name_and_microchip"),
        ("name_and_phone", "mailbox"),
        ("owner_name_and_species", "name_and_postal_code"),
        ("owner_and_name", "name_and_email"),
        ("owner_and_name", "name_species_and_birth_date"),
    ],
)
def test_a_reason_that_tells_more_is_worth_more(stronger: DuplicateReason, weaker: DuplicateReason) -> None:
    assert score([stronger]) > score([weaker]) > 0


def test_every_reason_has_a_weight() -> None:
    assert [score([reason]) > 0 for reason in get_args(DuplicateReason)] == [True] * 9


def test_a_phone_that_came_in_unchecked_tells_nothing() -> None:
    rows = [SimpleNamespace(**vars(user(row_id)) | {"phone": "none"}) for row_id in (1, 2)]

    assert told(User, rows) == []


def test_the_strongest_group_is_first_and_then_the_smallest_id() -> None:
    rows = [
        user(1, name="Weak", postal_code="98116"),
        user(2, name="Weak", postal_code="98116"),
        user(3, phone="555-1234", postal_code="98116"),
        user(4, phone="555-1234", postal_code="98116"),
        user(5, name="Also weak", postal_code="98116"),
        user(6, name="Also weak", postal_code="98116"),
    ]

    assert [group.ids for group in groups(User, rows)] == [(3, 4), (1, 2), (5, 6)]


def test_rows_that_agree_in_more_are_a_group_of_their_own_before_the_larger_one() -> None:
    rows = [user(1, phone="555-1234", postal_code="1"), user(2, phone="555-1234", postal_code="1")]
    rows.append(user(3, postal_code="1"))

    assert told(User, rows) == [
        ((1, 2), {"name_and_phone", "name_and_postal_code"}),
        ((1, 2, 3), {"name_and_postal_code"}),
    ]


def test_a_chain_joins_no_strangers() -> None:
    rows = [user(1, phone="555-1234"), user(2, phone="555-1234", postal_code="98116"), user(3, postal_code="98116")]

    assert told(User, rows) == [((1, 2), {"name_and_phone"}), ((2, 3), {"name_and_postal_code"})]


def test_a_pet_without_a_number_is_shown_beside_two_that_have_one_each() -> None:
    rows = [pet(1, owner_id=1, microchip=CHIP), pet(2, owner_id=1, microchip="985141000999999"), pet(3, owner_id=1)]

    assert told(Pet, rows) == [((1, 2, 3), {"owner_and_name"})]


def test_pets_whose_species_differ_are_shown_where_another_one_has_none() -> None:
    rows = [pet(1, owner_id=1, species="dog"), pet(2, owner_id=1, species="dog"), pet(3, owner_id=1)]

    assert told(Pet, rows) == [((1, 2), {"owner_name_and_species"}), ((1, 2, 3), {"owner_and_name"})]


def test_what_most_have_is_a_placeholder() -> None:
    walk_in = [user(row_id, name="Walk-in", postal_code="98116") for row_id in range(1, MAX_GROUP_SIZE + 1)]

    assert [group.ids for group in groups(User, walk_in)] == [tuple(range(1, MAX_GROUP_SIZE + 1))]
    for more in (1, 2, 3):
        walk_in.append(user(MAX_GROUP_SIZE + more, name="Walk-in", postal_code="98116"))
        assert groups(User, walk_in) == []


some_users = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["Ada", "ADA", "Bob"])},
        optional={
            "phone": st.sampled_from(["555-1234", "+1 555 1234", "00000", "98765"]),
            "postal_code": st.sampled_from(["98116", "98116-1234", "7302"]),
            "email": st.sampled_from(["a@b.org", "a+x@b.org", "a.b@gmail.com", "ab@gmail.com", "a@c.org"]),
        },
    ),
    max_size=8,
)
some_pets = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["Rex", "REX", "Max"])},
        optional={
            "owner_id": st.sampled_from([1, 2]),
            "species": st.sampled_from(["dog", "Dog", "cat"]),
            "birth_date": st.sampled_from([BORN, date(2021, 1, 1)]),
            "microchip": st.sampled_from([CHIP, "900141000123456", "000123456", "A1B2C3D4E5"]),
            "notes": st.sampled_from([CHIP, f"{CHIP} 900141000123456", "none"]),
        },
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(values=some_users | some_pets, order=st.randoms(use_true_random=False))
def test_a_group_agrees_in_each_of_its_reasons_and_no_pair_is_missed(values: list[dict[str, Any]], order: Any) -> None:
    model = User if any(value.keys() & {"phone", "postal_code", "email"} for value in values) else Pet
    rows = [(user if model is User else pet)(row_id, **value) for row_id, value in enumerate(values, 1)]

    found = groups(model, rows)

    by_id = {row.id: row for row in rows}
    for group in found:
        for one, other in combinations(group.ids, 2):
            shared = keys_of(model, by_id[one]) & keys_of(model, by_id[other])
            assert set(group.reasons) <= {reason for reason, _ in shared}
    for one, other in combinations(rows, 2):
        reasons = valid_reasons(keys_of(model, one) & keys_of(model, other), [member_of(one), member_of(other)])
        shown = {reason for group in found if {one.id, other.id} <= set(group.ids) for reason in group.reasons}
        assert set(reasons) <= shown
    assert len({group.ids for group in found}) == len(found)
    assert [score(group.reasons) for group in found] == sorted((score(group.reasons) for group in found), reverse=True)
    order.shuffle(rows)
    assert groups(model, rows) == found


def test_an_index_is_neither_copied_nor_visited_in_one_long_step() -> None:
    index = DuplicateIndex()
    for number in range(20_000):
        keys: set[Key] = {("owner_and_name", f"{number // 2}"), ("microchip", f"{number}")}
        index.add(Member(number, 15 * (number % 2), True), keys)

    dictionaries = [shard for shards in index._first.values() for shard in shards]
    gc.collect()
    assert sum(map(len, dictionaries)) == 30_000
    assert max(map(len, [*dictionaries, *index._shared])) < 1000
    assert not any(map(gc.is_tracked, dictionaries))
    assert len(index.take_groups()) == 0  # "owner_and_name" does not count for what has a species.
    assert not any([*dictionaries, *index._shared])


@pytest.mark.parametrize("member", [Member(1, 0, False), Member(2**31 - 1, 15, True), Member(7, 2**20, False)])
def test_a_member_is_unpacked_as_it_was(member: Member) -> None:
    index = DuplicateIndex()
    other = member._replace(id=member.id + 1)
    for each in (other, member):
        index.add(each, [("microchip", "1")])

    assert _unpacked(_packed(member)) == member
    assert index.take_groups() == [Group((member.id, other.id), frozenset({("microchip", "1")}), ("microchip",))]
