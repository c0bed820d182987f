import httpx
import pytest

from sqlmodel_alembic_async import Database, PetPublic, get_pet

from .conftest import application, client_of, created, problem_of

CHIP = "276098100000001"


async def test_a_new_pet_is_answered_as_it_is_stored(client: httpx.AsyncClient, db: Database) -> None:
    values = {"name": "Rex", "species": "Dog", "birth_date": "2020-02-29", "weight_g": 12345, "neutered": False}

    answer = await client.post("/pets", json=values)

    pet = PetPublic.model_validate_json(answer.content)
    async with db.reading() as session:
        assert PetPublic.model_validate(await get_pet(session, pet.id)) == pet
    assert answer.headers["location"] == f"/pets/{pet.id}"
    assert (pet.species, pet.weight_g, pet.neutered) == ("dog", 12345, False)
    assert (await client.get(f"/pets/{pet.id}")).json() == answer.json()


async def test_an_unknown_owner_is_an_invalid_owner_id(client: httpx.AsyncClient) -> None:
    rex = await created(client, "/pets", name="Rex")

    answers = [
        await client.post("/pets", json={"name": "Rex", "owner_id": 4711}),
        await client.put(f"/pets/{rex}/owner", json={"owner_id": 4711}),
    ]

    assert [problem_of(answer) for answer in answers] == [(422, "user_not_found", "owner_id")] * 2
    assert [answer.json()["errors"][0]["loc"] for answer in answers] == [["body", "owner_id"]] * 2


async def test_every_filter_narrows_the_list(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada")
    await created(client, "/pets", name="Rex", species="dog", breed="Pug", owner_id=ada, microchip=CHIP, sex="male")
    await created(client, "/pets", name="Mia", birth_date="2020-01-01", status="missing")
    narrowed = {
        "name_prefix": "RE",
        "name_contains": "ex",
        "owner_id": str(ada),
        "ownerless": "false",
        "species": "DOG",
        "species_known": "true",
        "breed": "Pug",
        "breed_known": "true",
        "sex": "male",
        "status": "active",
        "microchipped": "true",
    }

    for name, value in narrowed.items():
        items = (await client.get("/pets", params={name: value})).json()["items"]
        assert [pet["name"] for pet in items] == ["Rex"], name
    for name in ("born_from", "born_until"):
        items = (await client.get("/pets", params={name: "2020-01-01"})).json()["items"]
        assert [pet["name"] for pet in items] == ["Mia"], name


async def test_the_lists_wait_for_no_writer(client: httpx.AsyncClient, db: Database) -> None:
    rex = await created(client, "/pets", name="Rex")

    async with db.transaction():
        assert [pet["id"] for pet in (await client.get("/pets", timeout=20)).json()["items"]] == [rex]
        assert (await client.get(f"/pets/{rex}", timeout=20)).status_code == 200
        assert (await client.get("/pets/statistics", timeout=20)).json()["total"] == 1


async def test_a_pet_gets_another_owner_and_none(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada")
    rex = await created(client, "/pets", name="Rex")

    given = await client.put(f"/pets/{rex}/owner", json={"owner_id": ada, "on": "2024-05-01"})
    released = await client.put(f"/pets/{rex}/owner", json={"owner_id": None}, headers={"if-match": '"2"'})
    stale = await client.put(f"/pets/{rex}/owner", json={"owner_id": ada}, headers={"if-match": '"2"'})

    assert [given.json()[name] for name in ("owner_id", "acquired_on")] == [ada, "2024-05-01"]
    assert [released.json()[name] for name in ("owner_id", "acquired_on")] == [None, None]
    assert problem_of(stale) == (412, "stale_version", None)


async def test_a_deceased_pet_is_not_given_away(client: httpx.AsyncClient) -> None:
    ada = await created(client, "/users", name="Ada")
    rex = await created(client, "/pets", name="Rex", status="deceased")

    assert problem_of(await client.put(f"/pets/{rex}/owner", json={"owner_id": ada})) == (409, "pet_deceased", None)


async def test_a_change_that_contradicts_what_is_stored_is_refused(client: httpx.AsyncClient) -> None:
    rex = await created(client, "/pets", name="Rex")

    answer = await client.patch(f"/pets/{rex}", json={"birth_date_estimated": True})

    assert problem_of(answer) == (422, "invalid_value", None)


async def test_a_pet_is_changed_archived_restored_and_deleted(client: httpx.AsyncClient) -> None:
    rex = await created(client, "/pets", name="Rex")
    path = f"/pets/{rex}"

    answers = [
        await client.patch(path, json={"color": "red"}, headers={"if-match": '"1"'}),
        await client.post(f"{path}/archive", headers={"if-match": '"2"'}),
        await client.post(f"{path}/restore", headers={"if-match": '"3"'}),
        await client.delete(path, headers={"if-match": '"4"'}),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 204]
    assert answers[1].json()["archived_at"] is not None
    assert problem_of(await client.get(path)) == (404, "pet_not_found", None)


async def test_a_stale_change_of_a_pet_is_refused(db: Database) -> None:
    async with client_of(application(db, require_if_match=True)) as client:
        rex = await created(client, "/pets", name="Rex")
        path, stale = f"/pets/{rex}", {"if-match": '"9"'}

        answers = [
            await client.patch(path, json={"color": "red"}, headers=stale),
            await client.post(f"{path}/archive", headers=stale),
            await client.post(f"{path}/restore", headers=stale),
            await client.delete(path, headers=stale),
        ]
        required = await client.patch(path, json={"color": "red"})

    assert [problem_of(answer) for answer in answers] == [(412, "stale_version", None)] * 4
    assert problem_of(required) == (428, "precondition_required", None)


async def test_pets_are_merged(client: httpx.AsyncClient) -> None:
    keep = await created(client, "/pets", name="Rex")
    drop = await created(client, "/pets", name="Rex", birth_date="2020-01-01")

    answer = await client.post(f"/pets/{keep}/merge", json={"drop_id": drop})

    assert answer.json()["filled"] == {"birth_date": "2020-01-01"}
    assert answer.json()["kept"]["birth_date"] == "2020-01-01"
    assert problem_of(await client.get(f"/pets/{drop}")) == (404, "pet_not_found", None)


async def test_duplicates_of_pets_are_found(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        await created(client, "/pets", name="Rex", birth_date="2020-01-01", species="dog")

    found = (await client.get("/pets/duplicates")).json()

    assert [[pet["name"] for pet in group["rows"]] for group in found["items"]] == [["Rex", "Rex"]]


async def test_figures_show_what_is_not_known(client: httpx.AsyncClient) -> None:
    await created(client, "/pets", name="Rex", species="dog", birth_date="2020-01-01")
    await created(client, "/pets", name="Mia")

    figures = (await client.get("/pets/statistics")).json()
    of_dogs = (await client.get("/pets/statistics", params={"species": "dog"})).json()

    assert figures["by_species"] == [{"species": "dog", "pets": 1}, {"species": None, "pets": 1}]
    assert figures["born_per_year"] == [{"year": 2020, "pets": 1}, {"year": None, "pets": 1}]
    assert figures["by_sex"] == {"male": 0, "female": 0, "unknown": 2}
    assert (figures["total"], of_dogs["total"]) == (2, 1)


async def test_a_microchip_leads_to_its_pet(client: httpx.AsyncClient) -> None:
    rex = await created(client, "/pets", name="Rex", microchip=CHIP)

    found = (await client.get("/microchips/276 098.100-000 001")).json()
    unknown = (await client.get("/microchips/276098100000002")).json()

    assert (found["number"], found["issuer"], found["pet"]["id"]) == (CHIP, "Germany", rex)
    assert (unknown["issuer"], unknown["pet"]) == ("Germany", None)
    for number in ("12345", "%20", "x" * 200):
        assert problem_of(await client.get(f"/microchips/{number}")) == (422, "invalid_request", "number")


@pytest.mark.parametrize("path", ["export", "import", "statistics", "duplicates"])
async def test_a_path_of_the_router_is_never_an_id(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.delete(f"/pets/{path}")).status_code == 405
