from datetime import UTC, date, datetime
from typing import Any

import pytest
from fastapi import Request

from sqlmodel_alembic_async import Page, Pet, PetPublic, User, UserPublic
from sqlmodel_alembic_async.fastapi import PagePublic, answers

NOW = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


def stored(model: type[Any], shape: type[Any], **values: Any) -> Any:
    """Return a row as a database holds it."""
    row = model(**dict.fromkeys(shape.model_fields) | {"created_at": NOW, "updated_at": NOW} | values)
    row.__dict__.setdefault("name_key", "secret")
    return row


def rex(**values: Any) -> Pet:
    fixed = {"id": 1, "name": "Rex", "version": 3, "sex": "male", "status": "active", "birth_date_estimated": False}
    return stored(Pet, PetPublic, **fixed | {"birth_date": date(2020, 2, 29)} | values)  # type: ignore[no-any-return]


def request(path: str, query: str = "") -> Request:
    return Request({"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []})


def test_a_row_is_written_as_pydantic_writes_it() -> None:
    pet = rex()

    answer = answers.row_response(pet)

    assert bytes(answer.body).decode() == PetPublic.model_validate(pet).model_dump_json()
    assert (answer.headers["content-type"], answer.headers["etag"]) == ("application/json", '"3"')


def test_the_names_of_the_columns_of_a_user_are_those_of_the_shape() -> None:
    ada = stored(User, UserPublic, id=2, name="Ada", version=1)

    assert bytes(answers.row_response(ada).body).decode() == UserPublic.model_validate(ada).model_dump_json()


def test_a_row_that_is_not_loaded_is_never_sent_in_part() -> None:
    pet = rex()
    del pet.__dict__["microchip"]

    with pytest.raises(KeyError, match="microchip"):
        answers.row_response(pet)


def test_a_page_is_one_of_its_model() -> None:
    page = Page([rex(), rex(id=2)], "cursor")

    answer = answers.page(request("/api/pets", "limit=2&offset=4&name_prefix=%C3%A9%22%3E"), page)

    assert [pet.id for pet in PagePublic[PetPublic].model_validate_json(answer.body).items] == [1, 2]
    assert answer.headers["link"] == '</api/pets?limit=2&name_prefix=%C3%A9%22%3E&after=cursor>; rel="next"'


def test_a_page_that_follows_another_one_leads_to_the_one_after() -> None:
    answer = answers.page(request("/pets", "after=first&limit=1"), Page([rex()], "second"))

    assert answer.headers["link"] == '</pets?limit=1&after=second>; rel="next"'


def test_the_last_page_leads_nowhere() -> None:
    answer = answers.page(request("/pets"), Page([rex()], None))

    assert "link" not in answer.headers
    assert PagePublic[PetPublic].model_validate_json(answer.body).next is None


def test_a_new_row_is_below_the_path_of_the_list() -> None:
    answer = answers.created(request("/api/pets"), rex(id=7))

    assert (answer.status_code, answer.headers["location"]) == (201, "/api/pets/7")


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("/\u0442\u0435\u0441\u0442/pets", "/%D1%82%D0%B5%D1%81%D1%82/pets"),
        ("/a b\r\nX-Y: 1/pets", "/a%20b%0D%0AX-Y%3A%201/pets"),
        ("/a?b#c%/pets", "/a%3Fb%23c%25/pets"),
        ("//evil.example/pets", "/%2Fevil.example/pets"),
    ],
)
@pytest.mark.parametrize("host", [b"test", b"[", b"test/other", b""])
def test_addresses_are_quoted_and_take_nothing_from_the_host(path: str, quoted: str, host: bytes) -> None:
    asked = request(path, "offset=2")
    asked.scope["headers"] = [(b"host", host)]

    assert answers.created(asked, rex(id=7)).headers["location"] == f"{quoted}/7"
    assert answers.page(asked, Page([rex()], "next")).headers["link"] == f'<{quoted}?after=next>; rel="next"'
