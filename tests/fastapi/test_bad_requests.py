"""Bad requests through HTTP: each is refused with a problem, stores nothing, and no answer has a value of them."""

import gzip
import itertools
import re
import string
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from sqlmodel_alembic_async import Database, list_pets, list_users
from sqlmodel_alembic_async.fastapi import Problem, create_router

from .openapi import operations, schema

SECRET = "hunter2secret"
JSON = {"content-type": "application/json"}
CSV = {"content-type": "text/csv"}
MAX_IMPORT_BYTES = 100_000

DOCUMENTED = {
    (name.split()[0], re.compile(re.sub(r"\{\w+\}", "[^/]+", name.split()[1]))): set(operation["responses"])
    for name, operation in operations(schema()).items()
}

IDS = [
    "0",
    "-1",
    str(2**31),
    str(2**70),
    "9" * 5000,
    "1e3",
    "1_0",
    "%201",
    "1%20",
    "+1",
    "1.0",
    "0x1",
    "1%00",
    "1%0D%0A",
]
# Digits beside 0 to 9, which int() accepts: full-width, Arabic, superscript; and a byte that is not UTF-8.
IDS += ["%EF%BC%91", "%D9%A1", "%C2%B2", "%FF", "null", "true", "1;2", "1,2", SECRET]

MALFORMED = {
    "not UTF-8": f'{{"name": "{SECRET} é"}}'.encode("latin-1"),
    "UTF-16": f'{{"name": "{SECRET}"}}'.encode("utf-16"),
    "UTF-16 without a mark": f'{{"name": "{SECRET}"}}'.encode("utf-16-le"),
    "UTF-32": f'{{"name": "{SECRET}"}}'.encode("utf-32"),
    "a byte order mark": b'\xef\xbb\xbf{"name": "hunter2secret"}',
    "an encoded surrogate": b'{"name": "hunter2secret\xed\xa0\x80"}',
    "NaN": b'{"name": "hunter2secret", "notes": NaN}',
    "Infinity": b'{"name": "hunter2secret", "notes": Infinity}',
    "-Infinity": b'{"name": "hunter2secret", "notes": [-Infinity]}',
    "a name twice": b'{"name": "hunter2secret", "name": "Ada"}',
    "a name twice, escaped": b'{"name": "hunter2secret", "n\\u0061me": "Ada"}',
    "a name twice, nested": b'{"name": "hunter2secret", "notes": [{"a": 1, "a": 1}]}',
    "a million lists": b'{"name": "hunter2secret", "notes": ' + b"[" * 10**6 + b"]" * 10**6 + b"}",
    "a million objects": b'{"name":' * 10**6,
    "a number of 50,000 digits": b'{"name": "hunter2secret", "notes": ' + b"9" * 50_000 + b"}",
    "NUL": b'{"name": "hunter2secret\x00"}',
    "a line break": b'{"name": "hunter2secret\n"}',
    "cut off": b'{"name": "hunter2secret',
    "two values": b'{"name": "hunter2secret"} {}',
    "a comma too many": b'{"name": "hunter2secret",}',
    "other quotes": b"{'name': 'hunter2secret'}",
    "a comment": b'{"name": "hunter2secret"} // hunter2secret',
    "space": b"  ",
    "gzip": gzip.compress(b'{"name": "hunter2secret"}'),
}
REFUSED = {
    "empty": b"",
    "null": b"null",
    "an array": b'["hunter2secret"]',
    "a text": b'"hunter2secret"',
    "a number": b"1e999",
    "NUL, escaped": b'{"name": "hunter2secret\\u0000"}',
    "NUL in a key": b'{"name": "Ada", "hunter2 secret\\u0000": 1}',
    "a lone surrogate": b'{"name": "hunter2secret\\ud800"}',
    "a lone surrogate in a key": b'{"name": "Ada", "hunter2secret\\udfff": 1}',
    "500 objects": b'{"name":' * 500 + b'"hunter2secret"' + b"}" * 500,
    "an unknown key": b'{"name": "Ada", "not a field": "hunter2secret"}',
    "a column that is no field": b'{"name": "hunter2secret", "version": 7, "id": 7, "name_key": "hunter2secret"}',
    "a key of Python": b'{"name": "Ada", "__class__": "hunter2secret", "__dict__": {"hunter2 secret": 1}}',
    "a text that is an object": b'{"name": {"hunter2secret": "hunter2secret"}}',
    "a text that is a list": b'{"name": ["hunter2secret"]}',
    "a text that is a number": b'{"name": 1e999}',
    "a text that is too long": b'{"name": "' + b"hunter2secret" * 10 + b'"}',
    "7 MB": b'{"name": "' + b"hunter2secret" * 540_000 + b'"}',
    "notes beyond the limit": b'{"name": "hunter2secret", "notes": "' + b"x" * 1_000_001 + b'"}',
    "a terminal's escape": b'{"name": "hunter2secret\\u001b[31m"}',
    "header lines": b'{"name": "hunter2secret\\r\\nSet-Cookie: a=b"}',
}
REFUSED_USERS = REFUSED | {
    "an e-mail address": b'{"name": "Ada", "email": "hunter2secret"}',
    "an e-mail address without a domain": b'{"name": "Ada", "email": "hunter2secret@"}',
    "an e-mail address with header lines": b'{"name": "Ada", "email": "a@example.com\\r\\nBcc: hunter2secret@a.com"}',
}
REFUSED_PETS = REFUSED | {
    "a date": b'{"name": "Rex", "birth_date": "hunter2secret"}',
    "a day that does not exist": b'{"name": "hunter2secret", "birth_date": "2025-02-30"}',
    "a year of five digits": b'{"name": "hunter2secret", "birth_date": "10000-01-01"}',
    "a date that is a number": b'{"name": "hunter2secret", "birth_date": 1e30}',
    "a date and a time": b'{"name": "hunter2secret", "birth_date": "2025-01-01T12:00:00"}',
    "a choice": b'{"name": "Rex", "sex": "hunter2secret"}',
    "a microchip": b'{"name": "Rex", "microchip": "hunter2secret"}',
    "an infinite weight": b'{"name": "hunter2secret", "weight_g": 1e999}',
    "a weight of 4,000 digits": b'{"name": "hunter2secret", "weight_g": ' + b"9" * 4000 + b"}",
    "a weight that is a bool": b'{"name": "hunter2secret", "weight_g": true}',
    "a weight that is a text": b'{"name": "Rex", "weight_g": "hunter2secret"}',
    "a rule across fields": b'{"name": "hunter2secret", "deceased_on": "2025-01-01"}',
    "an owner that is 0": b'{"name": "hunter2secret", "owner_id": 0}',
    "an owner beyond the limit": b'{"name": "hunter2secret", "owner_id": 1180591620717411303424}',
    "an owner that is a text": b'{"name": "hunter2secret", "owner_id": "1"}',
    "an owner that is a bool": b'{"name": "hunter2secret", "owner_id": true}',
}

NOT_JSON = {
    "none": None,
    "an empty one": "",
    "text": "text/plain",
    "a form": "application/x-www-form-urlencoded",
    "multipart": "multipart/form-data; boundary=hunter2secret",
    "multipart without a boundary": "multipart/form-data",
    "JSON as text": "text/json",
    "almost JSON": "application/jsonp",
    "two": "application/json, text/plain",
    "an unknown one": "hunter2secret/hunter2secret",
}

QUERIES = [
    *("limit=%EF%BC%91", "limit=0", "limit=-1", "limit=1001", "limit=1e3", "limit=1_0", "limit=%201", "limit=1.0"),
    *("limit=", "limit", "limit=true", "limit=1%00", "limit=1;offset=1", "limit=" + "9" * 5000, "limit=1&limit=2"),
    *("offset=-1", "offset=9223372036854775808", "offset=" + "9" * 30, "order_by=hunter2secret", "order_by="),
    *("archived=hunter2secret", "archived=", "archived=2", "archived=true&archived=false", "name_prefix="),
    *("name_prefix=%00", "name_prefix=%20", "name_prefix=" + "x" * 101),
    *("name_contains=hunter2secret%00", "name_contains[]=hunter2secret", "name_prefix=a&name_prefix=hunter2secret"),
    *(
        "changed_since=hunter2secret",
        "changed_since=1",
        "changed_since=2025-01-01",
        "changed_since=2025-01-01T00:00:00",
    ),
    *("changed_since=2025-01-01T00:00:00%2B99:99", "changed_since=0001-01-01T00:00:00%2B14:00"),
    *(
        "after=hunter2secret",
        "after=",
        "after=%00",
        "after=%FF",
        "after=%ED%A0%80",
        "after=" + "A" * 4001,
        "after=W10=",
    ),
    *("after=bnVsbA==", "after=%0D%0AX-Evil:%20hunter2secret", "not%20a%20field=hunter2secret", "=hunter2secret"),
    *("%0D%0AX-Evil:%20hunter2secret=1", "%00=hunter2secret", "x" * 60_000 + "=hunter2secret"),
]
PET_QUERIES = [
    *("owner_id=0", "owner_id=-1", "owner_id=%EF%BC%91", "owner_id=1e3", "owner_id=", "owner_id=1&owner_id=2"),
    *(
        "ownerless=hunter2secret",
        "ownerless=",
        "species=",
        "species=%00",
        "species=%0A",
        "sex=hunter2secret",
        "status=",
    ),
    *(
        "born_from=hunter2secret",
        "born_from=2025-02-30",
        "born_from=1",
        "born_from=10000-01-01",
        "born_from=0000-01-01",
    ),
    *("born_from=2025-01-01T12:00:00", "microchipped=hunter2secret", "breed=" + "x" * 101),
]
OTHER_QUERIES = [
    ("POST", "/users?on_similar=hunter2secret"),
    ("POST", "/users?on_similar="),
    ("POST", "/users?on_similar=error&on_similar=allow"),
    ("POST", "/users?not%20a%20field=hunter2secret"),
    ("DELETE", "/users/1?pets=hunter2secret"),
    ("DELETE", "/users/1?pets=refuse&pets=release"),
    ("GET", "/users/1?with_pets=hunter2secret"),
    ("GET", "/users/duplicates?limit=0"),
    ("GET", "/pets/duplicates?limit=1001"),
    ("GET", "/pets/duplicates?order_by=name"),
    ("GET", f"/microchips/{SECRET}"),
    ("GET", "/microchips/%00"),
    ("GET", "/microchips/%0D%0AX-Evil:%20hunter2secret"),
    ("GET", "/microchips/" + "1" * 101),
    ("GET", "/microchips/" + "%EF%BC%91" * 15),
]

IF_MATCH = [
    *(
        "hunter2secret",
        '"hunter2secret',
        "1",
        "'1'",
        '"1" "2"',
        '"1",',
        ',"1"',
        "W/",
        'w/"1"',
        '*, "1"',
        "",
        " ",
        '"',
        '"\t"',
    ),
    *('"\x01"', '"é"', '"' * 20_000, '"1"\r\nX-Evil: hunter2secret'),
]
STALE = [
    '"hunter2secret"',
    '""',
    '"0"',
    '"-1"',
    '"01"',
    'W/"1"',
    '"1.0"',
    '"99999999999999"',
    '"2", "3"',
    '"2",' * 9_000 + '"3"',
]

FILES = {
    "empty": b"",
    "an unknown header": b"hunter2secret\n1\n",
    "a header with header lines": b'"name\r\nX-Evil: hunter2secret"\nRex\n',
    "a header twice": b"name,name\nhunter2secret,Rex\n",
    "5,000 headers": b",".join(b"hunter2secret%d" % number for number in range(5_000)) + b"\n1\n",
    "NUL": b"name\nhunter2secret\x00\n",
    "not UTF-8": "name\nhunter2secret é\n".encode("latin-1"),
    "UTF-16": "name\nhunter2secret\n".encode("utf-16"),
    "an encoded surrogate": b"name\nhunter2secret\xed\xa0\x80\n",
    "an open quote": b'name\n"hunter2secret\n',
    "too many cells": b"name\nhunter2secret,hunter2secret\n",
    "a long cell": b"name\n" + b"hunter2secret" * 1_000 + b"\n",
    "a date": b"name,birth_date\nRex,hunter2secret\n",
    "an owner without a name": b"name,owner_email\nRex,hunter2secret@example.com\n",
    "a good row before a bad one": b"name,birth_date\nRex,\nhunter2secret,1\n",
    "gzip": gzip.compress(b"name\nhunter2secret\n"),
    "too long": b"name\n" + b"hunter2secret\n" * 10_000,
}
IMPORT_QUERIES = [
    *("columns=hunter2secret", "columns={", "columns=[]", "columns=null", "columns=NaN", "columns=" + "[" * 5_000),
    *('columns={"not a field":"hunter2secret"}', 'columns={"name":"hunter2secret"}', 'columns={"name":1}'),
    *(
        'columns={"%0D%0AX-Evil: hunter2secret":"name"}',
        'columns={"\\ud800":"name"}',
        'columns={"a":"name","b":"name"}',
    ),
    *(
        'columns={"name":null}',
        "date_format=hunter2secret",
        "date_format=%25",
        "date_format=%25Y%25Y",
        "date_format=%00",
    ),
    *("date_format=", "date_format=" + "x" * 101, "placeholder_names=hunter2secret", "keep_going=hunter2secret"),
    *("dry_run=2", "dry_run=true&dry_run=false", "not%20a%20field=hunter2secret"),
]
NOT_CSV = [None, "", "text/plain", "application/json", "multipart/form-data; boundary=hunter2secret", "hunter2secret"]
NOT_CSV += [
    "text/csv; charset=utf-16",
    "text/csv; charset=latin-1",
    "text/csv; charset=hunter2secret",
    "text/csv, text/plain",
]


class Stranger:
    """Sends bad requests, and checks that each is refused."""

    def __init__(self, client: httpx.AsyncClient, database: Database) -> None:
        self.client = client
        self._database = database
        self._stored: list[dict[str, Any]] = []
        self.ids: dict[str, int] = {}

    async def prepare(self) -> None:
        """Store a user and a pet, which bad requests must not change."""
        for table in ("users", "pets"):
            answer = await self.client.post(f"/{table}", json={"name": "Ada"})
            self.ids[table] = answer.json()["id"]
        self._stored = await self._rows()

    async def _rows(self) -> list[dict[str, Any]]:
        async with self._database.reading() as session:
            users = await list_users(session, archived=None)
            pets = await list_pets(session, archived=None)
        return [row.model_dump() for row in [*users.items, *pets.items]]

    async def refused(self, method: str, path: str, *statuses: int, label: str = "", **options: Any) -> None:
        """Send a request; it must be refused with one of the statuses, by default 422. The id 1 is the stored row's."""
        table = path.split("/")[1].partition("?")[0]
        path = re.sub(r"^/(users|pets)/1(?=[/?]|$)", rf"/\1/{self.ids.get(table)}", path)
        answer = await self.client.request(method, path, **options)

        shown = f"{label}: {method} {path[:80]}: {answer.status_code} {answer.text[:500]}"
        assert answer.status_code in (statuses or (422,)), shown
        assert answer.headers["content-type"] == "application/problem+json", shown
        problem = Problem.model_validate_json(answer.content)
        assert answer.json().keys() <= Problem.model_fields.keys(), shown
        assert problem.status == answer.status_code, shown
        assert len(answer.content) < (200_000 if problem.report else 20_000), shown
        assert SECRET not in answer.text + str(answer.headers), shown
        assert "x-evil" not in answer.headers, shown
        where = path.partition("?")[0]
        documented = (
            found for (each, pattern), found in DOCUMENTED.items() if each == method and pattern.fullmatch(where)
        )
        assert any(str(answer.status_code) in found for found in documented), f"not documented: {shown}"

    async def changed_nothing(self) -> bool:
        return await self._rows() == self._stored


@pytest.fixture
async def client(db: Database) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(create_router(db, max_import_bytes=MAX_IMPORT_BYTES))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.fixture
async def stranger(client: httpx.AsyncClient, db: Database) -> AsyncIterator[Stranger]:
    stranger = Stranger(client, db)
    await stranger.prepare()
    yield stranger
    assert await stranger.changed_nothing()


async def test_an_invalid_id_is_refused(stranger: Stranger) -> None:
    drop = {"drop_id": 2, "dry_run": False}
    for row_id in IDS:
        for table in ("users", "pets"):
            await stranger.refused("GET", f"/{table}/{row_id}")
            await stranger.refused("PATCH", f"/{table}/{row_id}", json={"name": SECRET})
            await stranger.refused("DELETE", f"/{table}/{row_id}")
            await stranger.refused("POST", f"/{table}/{row_id}/archive")
            await stranger.refused("POST", f"/{table}/{row_id}/merge", json=drop)
        await stranger.refused("POST", f"/users/{row_id}/anonymise")
        await stranger.refused("PUT", f"/pets/{row_id}/owner", json={"owner_id": None})


async def test_a_body_that_is_not_json_is_refused(stranger: Stranger) -> None:
    for label, body in MALFORMED.items():
        for table in ("users", "pets"):
            await stranger.refused("POST", f"/{table}", 400, label=label, content=body, headers=JSON)
            await stranger.refused("PATCH", f"/{table}/1", 400, label=label, content=body, headers=JSON)
            await stranger.refused("POST", f"/{table}/1/merge", 400, label=label, content=body, headers=JSON)
        await stranger.refused("PUT", "/pets/1/owner", 400, label=label, content=body, headers=JSON)


async def test_a_body_that_is_no_user_is_refused(stranger: Stranger) -> None:
    for label, body in REFUSED_USERS.items():
        await stranger.refused("POST", "/users", label=label, content=body, headers=JSON)
        await stranger.refused("PATCH", "/users/1", label=label, content=body, headers=JSON)
        await stranger.refused("POST", "/users/1/merge", label=label, content=body, headers=JSON)


async def test_a_body_that_is_no_pet_is_refused(stranger: Stranger) -> None:
    for label, body in REFUSED_PETS.items():
        await stranger.refused("POST", "/pets", label=label, content=body, headers=JSON)
        await stranger.refused("PATCH", "/pets/1", label=label, content=body, headers=JSON)
        await stranger.refused("PUT", "/pets/1/owner", label=label, content=body, headers=JSON)


async def test_a_body_beyond_the_limit_is_refused(stranger: Stranger) -> None:
    body = b'{"name": "' + b"hunter2secret" * 770_000 + b'"}'
    for method, path in (
        ("POST", "/users"),
        ("PATCH", "/pets/1"),
        ("PUT", "/pets/1/owner"),
        ("POST", "/users/1/merge"),
    ):
        await stranger.refused(method, path, 413, content=body, headers=JSON)


async def test_the_answer_to_very_many_errors_is_short(stranger: Stranger) -> None:
    names = list(map("".join, itertools.islice(itertools.product(string.ascii_lowercase, repeat=3), 10_000)))
    for table in ("users", "pets"):
        await stranger.refused("POST", f"/{table}", json=dict.fromkeys(names[:100], SECRET))
        await stranger.refused("POST", f"/{table}", 413, json=dict.fromkeys(names[:101], SECRET))
        await stranger.refused("POST", f"/{table}", 413, json={"name": dict.fromkeys(range(200_000), SECRET)})
        await stranger.refused("GET", f"/{table}?" + "&".join(names))
        await stranger.refused("GET", f"/{table}?" + "limit&" * 10_000)


async def test_a_body_of_another_media_type_is_refused(stranger: Stranger) -> None:
    for label, media_type in NOT_JSON.items():
        headers = {} if media_type is None else {"content-type": media_type}
        for body in (b'{"name": "hunter2secret"}', b"name=hunter2secret", b"--hunter2secret--"):
            await stranger.refused("POST", "/users", label=label, content=body, headers=headers)
            await stranger.refused("PATCH", "/pets/1", label=label, content=body, headers=headers)


async def test_a_form_is_refused(stranger: Stranger) -> None:
    await stranger.refused("POST", "/users", data={"name": SECRET})
    await stranger.refused("POST", "/users", files={"name": SECRET})
    await stranger.refused("POST", "/pets/import", 415, files={"file": (SECRET, f"name\n{SECRET}\n", "text/csv")})


async def test_an_invalid_query_is_refused(stranger: Stranger) -> None:
    for query in QUERIES:
        await stranger.refused("GET", f"/users?{query}")
        await stranger.refused("GET", f"/pets?{query}")
    for query in PET_QUERIES:
        for path in ("/pets", "/pets/statistics", "/pets/export"):
            await stranger.refused("GET", f"{path}?{query}")
    for method, path in OTHER_QUERIES:
        await stranger.refused(method, path, json={"name": SECRET} if method == "POST" else None)


async def test_a_cursor_of_another_list_is_refused(stranger: Stranger) -> None:
    for name in ("Bob", "Eve"):
        await stranger.client.post("/users", json={"name": name})
    cursor = (await stranger.client.get("/users?limit=1")).json()["next"]
    await stranger.prepare()

    assert (await stranger.client.get(f"/users?after={cursor}")).status_code == 200
    await stranger.refused("GET", f"/pets?after={cursor}")
    await stranger.refused("GET", f"/users?after={cursor}&order_by=-name")
    await stranger.refused("GET", f"/users?after={cursor}&offset=1")
    await stranger.refused("GET", f"/users?after={cursor}&after={cursor}")
    for forged in (cursor[:-1], cursor + "A", cursor[::-1], cursor.swapcase(), f"{cursor}%00"):
        await stranger.refused("GET", f"/users?after={forged}")


async def test_an_if_match_that_is_no_etag_is_refused(stranger: Stranger) -> None:
    requests = [
        ("PATCH", "/users/1", {"city": SECRET}),
        ("DELETE", "/pets/1", None),
        ("POST", "/users/1/anonymise", None),
    ]
    for tags in IF_MATCH:
        for method, path, body in requests:
            await stranger.refused(method, path, 400, json=body, headers={"if-match": tags.encode("latin-1")})
        await stranger.refused("GET", "/users/1", 400, headers={"if-none-match": tags.encode("latin-1")})
    for tags in STALE:
        for method, path, body in requests:
            await stranger.refused(method, path, 412, json=body, headers={"if-match": tags.encode("latin-1")})


async def test_a_file_that_is_no_list_of_pets_is_refused(stranger: Stranger) -> None:
    for label, file in FILES.items():
        status = 413 if len(file) > MAX_IMPORT_BYTES else 422
        for query in ("", "?dry_run=true"):
            await stranger.refused("POST", f"/pets/import{query}", status, label=label, content=file, headers=CSV)


async def test_invalid_options_of_an_import_are_refused(stranger: Stranger) -> None:
    for query in IMPORT_QUERIES:
        await stranger.refused("POST", f"/pets/import?{query}", content=b"name\nhunter2secret\n", headers=CSV)
    for media_type in NOT_CSV:
        headers = {} if media_type is None else {"content-type": media_type}
        await stranger.refused("POST", "/pets/import", 415, content=b"name\nhunter2secret\n", headers=headers)


async def test_a_name_that_the_client_made_up_is_repeated_only_if_it_is_short_and_an_identifier(
    client: httpx.AsyncClient,
) -> None:
    names = {"nmae": "nmae", "not a name": "?", "a\r\nX-Evil: 1": "?", "x" * 65: "?", "\u001b[31m": "?"}
    for name, shown in names.items():
        answer = await client.post("/users", json={"name": "Ada", name: SECRET})
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["body", shown])


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "FOO"])
async def test_another_method_changes_nothing(method: str, stranger: Stranger) -> None:
    for path in (
        "/users",
        f"/users/{stranger.ids['users']}",
        "/pets/export",
        "/pets/import",
        "/microchips/1",
        "/health/live",
    ):
        answer = await stranger.client.request(method, path, headers=JSON, content=b'{"name": "hunter2secret"}')
        assert answer.status_code == 405
        assert SECRET not in answer.text


async def test_another_path_changes_nothing(stranger: Stranger) -> None:
    for path in (
        "/users//1",
        "//users",
        "/USERS",
        "/users/1/pets",
        "/pets/export/owner",
        "/pets/..%2fusers",
        "/users/1/archive/",
    ):
        answer = await stranger.client.post(path, json={"name": SECRET})
        assert answer.status_code in (404, 405, 307)
        assert SECRET not in answer.text
    # The host's framework redirects to the path without the slash.
    assert (await stranger.client.get("/users/")).headers["location"] == "http://test/users"


@pytest.mark.parametrize(
    "host", ["[", "evil.example/path", "evil.example?a=b", "evil.example#", "a b", "é", "\r\nX-Evil: 1"]
)
async def test_no_host_header_gets_into_an_answer(host: str, client: httpx.AsyncClient) -> None:
    headers = {"host": host.encode("latin-1")}
    created = await client.post("/users", json={"name": "Ada"}, headers=headers)
    await client.post("/users", json={"name": "Bob"})
    listed = await client.get("/users?limit=1", headers=headers)

    assert (created.status_code, created.headers["location"]) == (201, f"/users/{created.json()['id']}")
    assert listed.headers["link"] == f'</users?limit=1&after={listed.json()["next"]}>; rel="next"'


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("/動物", "/%E5%8B%95%E7%89%A9"),
        ("/%0D%0AX-Evil:%201", "/%0D%0AX-Evil%3A%201"),
        ("/a%3Fb%23c", "/a%3Fb%23c"),
        ("/100%25", "/100%25"),
        ("/%3E;rel=evil,%3C", "/%3E%3Brel%3Devil%2C%3C"),
    ],
)
async def test_a_prefix_from_the_client_is_quoted_in_headers(sent: str, shown: str, db: Database) -> None:
    app = FastAPI()
    app.include_router(create_router(db, prefix="/{tenant}"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        created = await client.post(f"{sent}/users", json={"name": 'A >; rel="evil", <'})
        await client.post(f"{sent}/users", json={"name": 'B >; rel="evil", <'})
        listed = await client.get(f"{sent}/users?limit=1&name_contains=%3E;%20rel=%22evil%22,%20%3C&offset=0")

        assert (created.status_code, created.headers["location"]) == (201, f"{shown}/users/{created.json()['id']}")
        following = re.fullmatch(r'<([^<> ]+)>; rel="next"', listed.headers["link"])
        assert following
        assert following[1].startswith(f"{shown}/users?limit=1&name_contains=%3E%3B+rel%3D%22evil%22%2C+%3C&after=")
        rest = await client.get(following[1])
        assert [user["name"] for user in rest.json()["items"]] == ['B >; rel="evil", <']
