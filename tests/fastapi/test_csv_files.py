import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from sqlmodel_alembic_async import Database, count_pets

from .conftest import application, client_of, created, problem_of

CSV = {"content-type": "text/csv"}


async def test_an_export_is_a_file_that_an_import_takes(client: httpx.AsyncClient, db: Database) -> None:
    ada = await created(client, "/users", name="Ada", external_ref="a1")
    await created(client, "/pets", name="Zoë", owner_id=ada, external_ref="p1")
    await created(client, "/pets", name="Mia", species="cat", external_ref="p2")

    exported = await client.get("/pets/export")
    cats = await client.get("/pets/export", params={"species": "cat"})
    again = await client.post("/pets/import", content=exported.content, headers=CSV)

    assert exported.headers["content-type"] == "text/csv; charset=utf-8"
    assert exported.headers["content-disposition"] == 'attachment; filename="pets.csv"'
    assert int(exported.headers["content-length"]) == len(exported.content)
    assert (exported.text.count("\n"), cats.text.count("\n")) == (3, 2)
    assert (again.status_code, again.json()["unchanged"]) == (200, 2)


async def test_a_large_export_comes_in_parts(client: httpx.AsyncClient) -> None:
    rows = "".join(f"Rex {number},{'x' * 1000}\n" for number in range(200))
    await client.post("/pets/import", content=f"name,notes\n{rows}", headers=CSV)

    exported = await client.get("/pets/export")

    assert exported.text.count("\n") == 201
    assert len(exported.content) == int(exported.headers["content-length"]) > 200_000


async def test_an_export_that_fails_is_an_error_and_no_file(db: Database) -> None:
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE pet RENAME TO hidden")
    try:
        async with client_of(application(db)) as client:
            answer = await client.get("/pets/export")
    finally:
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql("ALTER TABLE hidden RENAME TO pet")

    assert problem_of(answer) == (500, "database_error", None)


@contextmanager
def full_storage() -> Iterator[None]:
    """Let no file of this process grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_temporary_storage_is_a_problem(client: httpx.AsyncClient, db: Database) -> None:
    rows = "".join(f"Rex {number},{'x' * 1000}\n" for number in range(200))
    await client.post("/pets/import", content=f"name,notes\n{rows}", headers=CSV)

    with full_storage():
        exported = await client.get("/pets/export")
        imported = await client.post("/pets/import", content=f"name,notes\n{rows * 10}", headers=CSV)

    assert problem_of(exported) == (500, "storage_error", None)
    assert problem_of(imported) == (500, "storage_error", None)
    async with db.reading() as session:
        assert await count_pets(session) == 200


async def test_an_import_reports_what_it_did(client: httpx.AsyncClient, db: Database) -> None:
    answer = await client.post("/pets/import", content="name,species\nRex,dog\nMia,cat\n", headers=CSV)

    assert answer.json() == {
        "created": 2,
        "updated": 0,
        "unchanged": 0,
        "rejected": 0,
        "without_key": 2,
        "dry_run": False,
        "rejections": [],
        "reasons": {},
    }
    async with db.reading() as session:
        assert await count_pets(session) == 2


async def test_a_dry_run_stores_nothing(client: httpx.AsyncClient, db: Database) -> None:
    answer = await client.post("/pets/import", params={"dry_run": True}, content="name\nRex\n", headers=CSV)

    assert (answer.json()["created"], answer.json()["dry_run"]) == (1, True)
    async with db.reading() as session:
        assert await count_pets(session) == 0


async def test_a_rejected_dry_run_is_reported_as_one(client: httpx.AsyncClient) -> None:
    answer = await client.post("/pets/import", params={"dry_run": True}, content="name\n-\n", headers=CSV)

    assert problem_of(answer) == (422, "import_rejected", None)
    assert answer.json()["report"]["dry_run"] is True


async def test_a_rejected_import_says_why_without_a_value(client: httpx.AsyncClient, db: Database) -> None:
    file = "name,birth_date\nRex,2020-01-01\nMia,31.12.2020-secret\n"

    rejected = await client.post("/pets/import", content=file, headers=CSV)
    kept_going = await client.post("/pets/import", params={"keep_going": True}, content=file, headers=CSV)

    assert problem_of(rejected) == (422, "import_rejected", None)
    [rejection] = rejected.json()["report"]["rejections"]
    assert (rejection["line"], rejection["column"]) == (3, "birth_date")
    assert "secret" not in rejected.text + kept_going.text
    assert kept_going.json()["rejections"] == [rejection]
    assert kept_going.json()["reasons"] == {rejection["reason"]: 1}
    async with db.reading() as session:
        assert await count_pets(session) == 1


async def test_a_header_is_named_only_if_the_client_mapped_it(client: httpx.AsyncClient) -> None:
    file = "Pet Name,secret\n,x\n"

    mapped = {"Pet Name": "name", "secret": None}
    unknown = await client.post("/pets/import", content=file, headers=CSV)
    known = await client.post("/pets/import", params={"columns": json.dumps(mapped)}, content=file, headers=CSV)

    assert [each["column"] for each in unknown.json()["report"]["rejections"]] == [None, None]
    assert "secret" not in unknown.text
    assert [each["column"] for each in known.json()["report"]["rejections"]] == ["Pet Name"]


async def test_every_option_of_an_import_is_heeded(client: httpx.AsyncClient) -> None:
    params = {
        "columns": json.dumps({"Pet Name": "name", "Born": "birth_date", "Ignored": None}),
        "date_format": "%d.%m.%Y",
        "placeholder_names": "keep",
    }

    answer = await client.post(
        "/pets/import", params=params, content="Pet Name,Born,Ignored\nunknown,31.01.2020,x\n", headers=CSV
    )

    assert answer.json()["created"] == 1
    [pet] = (await client.get("/pets")).json()["items"]
    assert (pet["name"], pet["birth_date"]) == ("unknown", "2020-01-31")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("columns", '{"Pet Name": "nme"}'),
        ("columns", "[1]"),
        ("columns", "name"),
        ("date_format", "%d"),
        ("date_format", "\0"),
        ("placeholder_names", "drop"),
        ("dryrun", "true"),
    ],
)
async def test_a_wrong_option_of_an_import_is_refused(
    client: httpx.AsyncClient, db: Database, name: str, value: str
) -> None:
    answer = await client.post("/pets/import", params={name: value}, content="name\nRex\n", headers=CSV)

    assert problem_of(answer) == (422, "invalid_request", name)
    async with db.reading() as session:
        assert await count_pets(session) == 0


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "text/csv; charset=latin-1",
        "multipart/form-data; boundary=x",
        "text/csv; charset=utf-8; " + 'x="' + ";" * 200,  # Python takes quadratic time for it.
    ],
)
async def test_only_csv_in_utf_8_is_imported(client: httpx.AsyncClient, content_type: str) -> None:
    answer = await client.post("/pets/import", content="name\nRex\n", headers={"content-type": content_type})

    assert problem_of(answer) == (415, "unsupported_media_type", None)


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf8"', "us-ascii"])
async def test_utf_8_may_be_named(client: httpx.AsyncClient, charset: str) -> None:
    headers = {"content-type": f"text/csv; charset={charset}; header=present"}

    assert (await client.post("/pets/import", content="name\nRex\n", headers=headers)).status_code == 200


async def test_a_file_in_another_encoding_is_rejected(client: httpx.AsyncClient) -> None:
    answer = await client.post("/pets/import", content="name\nZoë\n".encode("latin-1"), headers=CSV)

    assert problem_of(answer) == (422, "import_rejected", None)


async def test_a_file_may_be_as_long_as_the_limit(db: Database) -> None:
    file = "name\nRex\n"
    async with client_of(application(db, max_import_bytes=len(file))) as client:
        accepted = await client.post("/pets/import", content=file, headers=CSV)
        refused = await client.post("/pets/import", content=file + "\n", headers=CSV)

    assert accepted.status_code == 200
    assert problem_of(refused) == (413, "too_large", None)
    async with db.reading() as session:
        assert await count_pets(session) == 1


async def test_the_transaction_begins_when_the_file_is_there(client: httpx.AsyncClient, db: Database) -> None:
    async def slowly():  # type: ignore[no-untyped-def]  # httpx takes any async iterable
        yield b"name\n"
        async with db.transaction():  # It would wait for itself.
            yield b"Rex\n"

    answer = await client.post("/pets/import", content=slowly(), headers=CSV, timeout=20)

    assert answer.json()["created"] == 1
