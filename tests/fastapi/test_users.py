from typing import Any

import httpx
import pytest

from sqlmodel_alembic_async import Database, UserPublic, UserPublicWithPets, count_pets, get_pet, get_user

from .conftest import application, client_of, created, problem_of

ROW_PATHS = ["archive", "restore", "anonymise"]


async def test_a_new_user_is_answered_with_its_address_and_its_version(client: httpx.AsyncClient, db: Database) -> None:
    answer = await client.post("/users", json={"name": " Ada ", "email": "ADA@example.com"})

    assert answer.status_code == 201
    user_id = answer.json()["id"]
    assert (answer.headers["location"], answer.headers["etag"]) == (f"/users/{user_id}", '"1"')
    async with db.reading() as session:
        stored = UserPublic.model_validate(await get_user(session, user_id))
    assert UserPublic.model_validate_json(answer.content) == stored
    assert (stored.name, stored.email) == ("Ada", "ada@example.com")
    assert (await client.get(answer.headers["location"])).content == answer.content


async def test_a_taken_email_is_a_conflict(client: httpx.AsyncClient) -> None:
    await created(client, "/users", name="Ada", email="ada@example.com")

    answer = await client.post("/users", json={"name": "Eve", "email": "ADA@example.com"})

    assert problem_of(answer) == (409, "already_exists", "email")


async def test_a_similar_user_is_refused_on_request(client: httpx.AsyncClient) -> None:
    first = await created(client, "/users", name="Ada", phone="030 123456")
    ada = {"name": "ADA", "phone": "+49 30 123456"}

    refused = await client.post("/users", params={"on_similar": "error"}, json=ada)
    allowed = await client.post("/users", json=ada)

    assert problem_of(refused) == (409, "similar_exists", None)
    assert refused.json()["candidates"] == [first]
    assert allowed.status_code == 201


async def test_a_misspelt_option_is_refused_instead_of_ignored(client: httpx.AsyncClient, db: Database) -> None:
    answer = await client.post("/users", params={"on_simlar": "error"}, json={"name": "Ada"})

    assert problem_of(answer) == (422, "invalid_request", "on_simlar")
    assert (await client.get("/users")).json()["items"] == []


async def test_pages_lead_to_each_other(client: httpx.AsyncClient) -> None:
    names = [f"Ada {number}" for number in range(5)]
    for name in names:
        await created(client, "/users", name=name)

    seen: list[str] = []
    answer = await client.get("/users", params={"limit": 2, "name_prefix": "ada"})
    while True:
        seen += [user["name"] for user in answer.json()["items"]]
        if answer.json()["next"] is None:
            break
        answer = await client.get(answer.links["next"]["url"])

    assert seen == names
    assert "link" not in answer.headers


async def test_the_link_to_the_next_page_leaves_the_offset_out(client: httpx.AsyncClient) -> None:
    for number in range(4):
        await created(client, "/users", name=f"Ada {number}")

    answer = await client.get("/users", params={"limit": 1, "offset": 1, "order_by": "-name"})
    following = await client.get(answer.links["next"]["url"])

    assert [answer.json()["items"][0]["name"], following.json()["items"][0]["name"]] == ["Ada 2", "Ada 1"]


async def test_a_cursor_belongs_to_one_list_and_one_order(client: httpx.AsyncClient) -> None:
    for name in ("Ada", "Eve"):
        await created(client, "/users", name=name)
    after = (await client.get("/users", params={"limit": 1})).json()["next"]

    answers = [
        await client.get("/users", params={"after": after, "order_by": "id"}),
        await client.get("/pets", params={"after": after}),
        await client.get("/users", params={"after": after[:-1]}),
        await client.get("/users", params={"after": ""}),
    ]

    assert [problem_of(answer) for answer in answers] == [(422, "invalid_cursor", "after")] * 4


async def test_archived_users_are_listed_on_request(client: httpx.AsyncClient) -> None:
    for name in ("Ada", "Eve"):
        await created(client, "/users", name=name)
    eve = (await client.get("/users", params={"name_prefix": "eve"})).json()["items"][0]["id"]
    await client.post(f"/users/{eve}/archive")

    listed = [
        [user["name"] for user in (await client.get("/users", params=params)).json()["items"]]
        for params in ({}, {"archived": "false"}, {"archived": "true"}, {"archived": "any"})
    ]

    assert listed == [["Ada"], ["Ada"], ["Eve"], ["Ada", "Eve"]]


async def test_users_that_changed_are_listed(client: httpx.AsyncClient) -> None:
    await created(client, "/users", name="Ada")
    moment = (await client.get("/users")).json()["items"][0]["updated_at"]

    since = await client.get("/users", params={"changed_since": moment})
    later = await client.get("/users", params={"changed_since": "2999-01-01T00:00:00+02:00"})

    assert [len(answer.json()["items"]) for answer in (since, later)] == [1, 0]


async def test_a_user_is_not_sent_again_while_it_is_the_same(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada")

    statuses = [
        (await client.get(f"/users/{ada}", headers={"if-none-match": tag})).status_code
        for tag in ('"1"', 'W/"1"', '"7", "1"', "*", '"2"', '"7"')
    ]

    assert statuses == [304, 304, 304, 304, 200, 200]


async def test_a_user_is_answered_with_the_pets_and_without_a_version(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada")
    await created(client, "/pets", name="Rex", owner_id=ada)

    answer = await client.get(f"/users/{ada}", params={"with_pets": True}, headers={"if-none-match": '"1"'})

    assert [pet.name for pet in UserPublicWithPets.model_validate_json(answer.content).pets] == ["Rex"]
    assert "etag" not in answer.headers


async def test_a_change_leaves_what_is_left_out_and_null_clears(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada", city="Ulm", phone="030 123456")

    answer = await client.patch(f"/users/{ada}", json={"phone": None, "address": "Am See 1"})

    assert answer.status_code == 200
    assert answer.headers["etag"] == '"2"'
    assert [answer.json()[name] for name in ("city", "phone", "address")] == ["Ulm", None, "Am See 1"]
    assert problem_of(await client.patch(f"/users/{ada}", json={"name": None})) == (422, "invalid_request", "name")


async def test_a_stale_form_never_wins(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada")
    path = f"/users/{ada}"

    first = await client.patch(path, json={"city": "Ulm"}, headers={"if-match": '"1"'})
    stale = await client.patch(path, json={"city": "Bonn"}, headers={"if-match": '"1"'})
    weak = await client.patch(path, json={"city": "Bonn"}, headers={"if-match": 'W/"2"'})
    one_of_two = await client.patch(path, json={"city": "Kiel"}, headers={"if-match": '"1", "2"'})
    any_version = await client.patch(path, json={"city": "Jena"}, headers={"if-match": "*"})

    assert first.status_code == one_of_two.status_code == any_version.status_code == 200
    assert problem_of(stale) == problem_of(weak) == (412, "stale_version", None)
    assert (await client.get(path)).json()["city"] == "Jena"


async def test_a_router_may_require_if_match(db: Database) -> None:
    async with client_of(application(db, require_if_match=True)) as client:
        ada = await created(client, "/users", name="Ada")

        without = await client.patch(f"/users/{ada}", json={"city": "Ulm"})
        with_it = await client.patch(f"/users/{ada}", json={"city": "Ulm"}, headers={"if-match": '"1"'})

    assert problem_of(without) == (428, "precondition_required", None)
    assert with_it.status_code == 200


@pytest.mark.parametrize("path", ROW_PATHS)
async def test_every_change_of_a_user_heeds_if_match(client: httpx.AsyncClient, path: str) -> None:
    ada = await created(client, "/users", name="Ada")
    eve = await created(client, "/users", name="Eve")
    stale = {"if-match": '"9"'}

    answers = [
        await client.post(f"/users/{ada}/{path}", headers=stale),
        await client.request("DELETE", f"/users/{ada}", headers=stale),
        await client.post(f"/users/{ada}/merge", json={"drop_id": eve}, headers=stale),
    ]
    fresh = await client.post(f"/users/{ada}/{path}", headers={"if-match": '"1"'})

    assert [problem_of(answer) for answer in answers] == [(412, "stale_version", None)] * 3
    assert fresh.status_code == 200


async def test_a_user_with_pets_is_deleted_only_on_request(client: httpx.AsyncClient, db: Database) -> None:
    ada = await created(client, "/users", name="Ada")
    rex = await created(client, "/pets", name="Rex", owner_id=ada)

    refused = await client.delete(f"/users/{ada}")
    misspelt = await client.delete(f"/users/{ada}", params={"pets": "relese"})
    released = await client.delete(f"/users/{ada}", params={"pets": "release"})
    again = await client.delete(f"/users/{ada}")

    assert problem_of(refused) == (409, "user_has_pets", None)
    assert problem_of(misspelt) == (422, "invalid_request", "pets")
    assert (released.status_code, released.content) == (204, b"")
    assert problem_of(again) == (404, "user_not_found", None)
    async with db.reading() as session:
        assert (await get_pet(session, rex)).owner_id is None


async def test_a_user_is_archived_and_restored(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada")

    archived = await client.post(f"/users/{ada}/archive")
    restored = await client.post(f"/users/{ada}/restore")

    assert archived.json()["archived_at"] is not None
    assert restored.json()["archived_at"] is None
    assert [answer.headers["etag"] for answer in (archived, restored)] == ['"2"', '"3"']


async def test_a_user_is_anonymised(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada", email="ada@example.com")

    answer = await client.post(f"/users/{ada}/anonymise")

    assert (answer.json()["name"], answer.json()["email"]) == ("Anonymised", None)


async def test_users_are_merged_after_a_dry_run(client: httpx.AsyncClient, db: Database) -> None:
    keep = await created(client, "/users", name="Ada", city="Ulm")
    drop = await created(client, "/users", name="Ada L.", email="ada@example.com", city="Bonn")
    await created(client, "/pets", name="Rex", owner_id=drop)

    planned = await client.post(f"/users/{keep}/merge", json={"drop_id": drop, "dry_run": True})
    merged = await client.post(f"/users/{keep}/merge", json={"drop_id": drop})

    expected: dict[str, Any] = {
        "dropped_id": drop,
        "filled": {"email": "ada@example.com"},
        "conflicts": {"name": {"kept": "Ada", "dropped": "Ada L."}, "city": {"kept": "Ulm", "dropped": "Bonn"}},
        "moved_pets": 1,
    }
    assert {name: planned.json()[name] for name in expected} == expected
    assert {name: merged.json()[name] for name in expected} == expected
    assert (planned.json()["dry_run"], planned.json()["kept"]["email"]) == (True, None)
    assert (merged.json()["dry_run"], merged.json()["kept"]["email"]) == (False, "ada@example.com")
    async with db.reading() as session:
        assert await count_pets(session, owner_id=keep) == 1


async def test_a_merge_tells_which_of_the_two_does_not_exist(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada")
    gone = ada + 1

    assert problem_of(await client.post(f"/users/{gone}/merge", json={"drop_id": ada})) == (404, "user_not_found", None)
    missing = await client.post(f"/users/{ada}/merge", json={"drop_id": gone})
    assert problem_of(missing) == (422, "user_not_found", "drop_id")
    assert missing.json()["errors"][0]["loc"] == ["body", "drop_id"]
    itself = await client.post(f"/users/{ada}/merge", json={"drop_id": ada})
    assert problem_of(itself) == (422, "invalid_request", "drop_id")


async def test_duplicates_are_found_the_most_similar_first(client: httpx.AsyncClient) -> None:
    for number in range(3):
        for name in (f"Ada {number}", f"ADA {number}"):
            await created(client, "/users", name=name, postal_code=f"1000{number}")

    first = (await client.get("/users/duplicates", params={"limit": 2})).json()
    all_of_them = (await client.get("/users/duplicates")).json()

    assert (len(first["items"]), first["more"]) == (2, True)
    assert (len(all_of_them["items"]), all_of_them["more"]) == (3, False)
    assert [user["name"] for user in first["items"][0]["rows"]] == ["Ada 0", "ADA 0"]
    assert first["items"][0]["score"] >= 1
    assert first["items"][0]["reasons"]
