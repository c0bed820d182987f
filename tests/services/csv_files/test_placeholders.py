"""Cells that stand for something else: what is one, and the mark that an export gives it."""

import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlmodel_alembic_async import (
    AsyncSession,
    PetCreate,
    UserCreate,
    create_pet,
    create_user,
    export_pets,
    import_pets,
    list_pets,
)
from sqlmodel_alembic_async.services.csv_files.placeholders import escaped, is_placeholder, unescaped

from .exports import exported


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "'=x", "''-", "＝x", "＠", "'plain", "a=b"])  # noqa: RUF001
async def test_a_cell_that_a_spreadsheet_would_run_is_defused_and_restored(session: AsyncSession, text: str) -> None:
    await create_pet(session, PetCreate(name=text, external_ref="p1"))
    file = io.StringIO(newline="")

    await export_pets(session, file)

    cell = next(csv.DictReader(io.StringIO(file.getvalue(), newline="")))["name"]
    assert cell[0] not in "=+-@＝＋－＠"  # noqa: RUF001
    assert cell == (text if text in ("'plain", "a=b") else f"'{text}")
    file.seek(0)
    report = await import_pets(session, file)
    assert (report.unchanged, report.rejections) == (1, [])
    assert [pet.name for pet in (await list_pets(session)).items] == [text]


def test_a_tab_at_the_beginning_is_defused() -> None:
    assert [escaped("color", text) for text in ("\tx", "\rx", "x\t")] == ["'\tx", "'\rx", "x\t"]


@given(
    field=st.sampled_from(["name", "owner_name", "breed", "color"]),
    text=st.text(st.sampled_from("'=-?9x ") | st.characters(exclude_categories=["Cs"]), max_size=5),
)
def test_what_is_escaped_is_restored(field: str, text: str) -> None:
    assert unescaped(field, escaped(field, text)) == text


async def test_a_text_that_an_import_would_take_for_a_placeholder_is_marked(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="TBD", city="unknown"))
    await create_pet(session, PetCreate(name="99", breed="Unknown", color="unknown", species="n/a", owner_id=ada.id))
    await create_pet(session, PetCreate(name="Rex", breed="-", color="-"))

    first, second = await exported(session)

    assert [first[name] for name in ("name", "breed", "color", "species")] == ["'99", "'Unknown", "unknown", "n/a"]
    assert (first["owner_name"], first["owner_city"]) == ("'TBD", "unknown")
    assert (second["name"], second["breed"], second["color"]) == ("Rex", "'-", "'-")


@pytest.mark.parametrize("text", ["unknown", "N/A", "not named yet", "UNKNOWN", "xxxx", "-", "99", "1/2", "?" * 50])
def test_a_word_or_digits_and_punctuation_alone_stand_for_what_is_not_known(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["Unknown dog", "xxxxx", "9a", "犬", "🐶", "\u0301", "\u093e", "1" * 50 + "a"])
def test_what_says_something_stands_for_itself(text: str) -> None:
    assert not is_placeholder(text)


@pytest.mark.parametrize(
    ("field", "is_marked"), [("name", True), ("owner_name", True), ("breed", True), ("color", False)]
)
def test_a_mark_is_removed_only_where_an_export_would_have_set_it(field: str, is_marked: bool) -> None:
    assert unescaped(field, "'unknown") == ("unknown" if is_marked else "'unknown")
    assert unescaped(field, "'=1+1") == "=1+1"
    assert unescaped(field, "'plain") == "'plain"


@pytest.mark.parametrize("mark", ["", "'"])
def test_a_text_that_is_too_long_for_a_name_is_not_searched_for_a_word(mark: str) -> None:
    started = time.thread_time()

    found = [is_placeholder("-" * length) for length in (100, 1000, 4_000_000)]
    unescaped("name", mark + "9" * 4_000_000)

    assert found == [True, True, False]
    assert time.thread_time() - started < 0.2
