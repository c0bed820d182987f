"""Pages and figures as they look in a terminal and in a notebook."""

from datetime import date
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from IPython.core.formatters import DisplayFormatter
from IPython.lib.pretty import pretty
from sqlmodel import text
from sqlmodel.ext.asyncio.session import AsyncSession as PlainSession

from sqlmodel_alembic_async import (
    AsyncSession,
    Database,
    Page,
    Pet,
    PetCreate,
    UserCreate,
    create_pet,
    create_pets,
    create_user,
    create_users,
    list_pets,
    list_users,
    pet_statistics,
)

from .conftest import Statements


class Cells(HTMLParser):
    """What a browser makes of a table."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page(*pets: Pet) -> Page[Pet]:
    return Page(list(pets), None)


def test_a_page_shows_the_columns_that_some_row_has_a_value_in() -> None:
    rex = Pet(id=99, name="Rex", species="dog", owner_id=7, neutered=False, birth_date=date(2020, 5, 1), version=2)
    mia = Pet(id=100, name="Mia", sex="female", neutered=True, weight_g=4200)

    assert pretty(page(rex, mia)).splitlines() == [
        " id  name  owner_id  species  sex      neutered  birth_date  weight_g",
        "---  ----  --------  -------  -------  --------  ----------  --------",
        " 99  Rex          7  dog      unknown  no        2020-05-01",
        "100  Mia                      female   yes                       4200",
        "2 rows",
    ]


async def test_lists_of_users_and_pets_are_tables(session: AsyncSession) -> None:
    ada = await create_user(session, UserCreate(name="Ada", city="London"))
    rex = await create_pet(session, PetCreate(name="Rex", owner_id=ada.id))

    users, pets = await list_users(session), await list_pets(session)

    assert [line.split() for line in pretty(users).splitlines() if "-" not in line] == [
        ["id", "name", "city"],
        [str(ada.id), "Ada", "London"],
        ["1", "row"],
    ]
    assert Cells(pets._repr_html_()).texts == ["id", "name", "owner_id", str(rex.id), "Rex", str(ada.id), "1 row"]
    assert repr(users) == str(users) == f"Page(items=[User(id={ada.id}, name='Ada', city='London')], next=None)"


async def test_a_page_says_how_to_go_on_and_that_it_is_empty(session: AsyncSession) -> None:
    assert pretty(await list_pets(session)) == "no rows"
    assert (await list_users(session))._repr_html_() == "<div><p>no rows</p></div>"
    await create_users(session, [UserCreate(name="Ada"), UserCreate(name="Bob")])

    first = await list_users(session, limit=1)

    assert pretty(first).splitlines()[-1] == "1 row, more with after=page.next"
    assert first._repr_html_().endswith("<p>1 row, more with after=page.next</p></div>")


async def test_to_show_a_page_asks_the_database_nothing(db: Database, statements: Statements) -> None:
    async with PlainSession(db.engine) as session:  # Its commit expires every row.
        rex = await create_pet(session, PetCreate(name="Rex", species="dog"))
        pets, rex_id = await list_pets(session), rex.id
        await session.commit()
        before = len(statements)

        shown = pretty(pets)
        html = pets._repr_html_()

    assert shown.split() == ["id", "-" * max(2, len(str(rex_id))), str(rex_id), "1", "row"]
    assert "Rex" not in html
    assert len(statements) == before


def test_wide_and_combining_characters_leave_the_columns_in_line() -> None:
    pets = page(
        Pet(id=1, name="たま", color="black"),
        Pet(id=2, name="z\N{COMBINING DIAERESIS}\u200doe", color="red"),
        Pet(id=3, name="Rex", color="blue"),
    )

    assert pretty(pets).splitlines() == [
        "id  name  color",
        "--  ----  -----",
        " 1  たま  black",
        " 2  z\N{COMBINING DIAERESIS}\u200doe   red",
        " 3  Rex   blue",
        "3 rows",
    ]


@pytest.mark.parametrize(
    ("notes", "shown"),
    [
        ("one\n\ttwo\r\nthree", "one two three"),
        ("x" * 30, "x" * 30),
        ("x" * 31, "x" * 29 + "…"),
        ("x" * 28 + " yz", "x" * 28 + "…"),
        ("猫" * 16, "猫" * 14 + "…"),
        ("é" * 1_000_000, "é" * 29 + "…"),
        ("a" + "\n" * 400 + "b", "a…"),
        ("a" + "\N{COMBINING ACUTE ACCENT}" * 1000, "a" + "\N{COMBINING ACUTE ACCENT}" * 299 + "…"),
        ("\x1b[31mred\u202e", "\ufffd[31mred\ufffd"),
        ("\ud800", "\ufffd"),
    ],
)
def test_notes_take_one_line_of_limited_width(notes: str, shown: str) -> None:
    line = pretty(page(Pet(id=1, name="Rex", notes=notes))).splitlines()[2]

    assert line == f" 1  Rex   {shown}"


def test_a_notebook_is_given_both() -> None:
    pets = page(Pet(id=1, name="Rex"))

    formats, _ = DisplayFormatter().format(pets)

    assert formats == {"text/plain": pretty(pets), "text/html": pets._repr_html_()}


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "&amp; 'quoted' \"twice\"", "a\x1bb"])
async def test_html_is_well_formed_and_escaped(name: str) -> None:
    pets = page(Pet(id=1, name=name, species=name, neutered=True))

    html = pets._repr_html_()

    ElementTree.fromstring(html)
    cells = Cells(html)
    assert cells.tags == {"div", "table", "thead", "tbody", "tr", "th", "td", "p"}
    shown = name.replace("\x1b", "\ufffd")
    assert cells.texts == ["id", "name", "species", "neutered", "1", shown, shown, "yes", "1 row"]
    assert html.count("text-align: right") == 1
    assert "color" not in html


async def test_figures_are_a_table(session: AsyncSession) -> None:
    species = "<script>alert(1)</script>"
    await create_pets(session, [PetCreate(name="Rex", species=species, birth_date=date(2020, 5, 1))] * 9)
    await create_pet(session, PetCreate(name="Mia"))

    figures = await pet_statistics(session)

    assert pretty(figures).splitlines() == [
        "                                      pets",
        "---------  -------------------------  ----",
        "species    <script>alert(1)</script>     9",
        "           not known                     1",
        "status     active                       10",
        "           missing                       0",
        "           deceased                      0",
        "sex        male                          0",
        "           female                        0",
        "           unknown                      10",
        "owner      yes                           0",
        "           no                           10",
        "microchip  yes                           0",
        "           no                           10",
        "born in    2020                          9",
        "           not known                     1",
        "10 pets",
    ]
    html = figures._repr_html_()
    ElementTree.fromstring(html)
    assert "script" not in Cells(html).tags
    assert Cells(html).texts[1:4] == ["species", species, "9"]


async def test_many_species_are_summed_up(session: AsyncSession) -> None:
    kinds = [f"kind {number:02}" for number in range(21)]
    await create_pets(session, [PetCreate(name="Rex", species=kind) for kind in (*kinds[:20], *kinds)])

    figures = await pet_statistics(session)

    lines = pretty(figures).splitlines()
    assert lines[20:23] == [
        "           kind 18       2",
        "           2 others      3",
        "status     active       41",
    ]
    assert len(figures.by_species) == 21
    assert lines[-1] == "41 pets"


async def test_one_pet_is_not_called_pets(session: AsyncSession) -> None:
    await create_pet(session, PetCreate(name="Rex"))

    assert pretty(await pet_statistics(session)).endswith("\n1 pet")


async def test_a_row_with_control_characters_of_others_is_shown(session: AsyncSession) -> None:
    pet = await create_pet(session, PetCreate(name="Rex"))
    await (await session.connection()).execute(text("UPDATE pet SET color = :color"), {"color": "a\x07b"})

    assert pretty(await list_pets(session)).splitlines()[2].split() == [str(pet.id), "Rex", "a\ufffdb"]


def test_html_stands_row_by_row_with_numbers_on_the_right() -> None:
    pets = page(Pet(id=1, name="Rex"), Pet(id=2, name="Mia", neutered=False))

    assert pets._repr_html_() == (
        "<div><table><thead><tr><th>id</th><th>name</th><th>neutered</th></tr></thead><tbody>"
        '<tr><td style="text-align: right">1</td><td style="text-align: left">Rex</td>'
        '<td style="text-align: left"></td></tr>'
        '<tr><td style="text-align: right">2</td><td style="text-align: left">Mia</td>'
        '<td style="text-align: left">no</td></tr>'
        "</tbody></table><p>2 rows</p></div>"
    )


@pytest.mark.parametrize(
    ("character", "places"),
    [
        ("a", 1),
        ("é", 1),
        ("猫", 2),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A}", 2),
        ("\N{HALFWIDTH KATAKANA LETTER A}", 1),
        ("\N{COMBINING ACUTE ACCENT}", 0),
        ("\N{COMBINING ENCLOSING CIRCLE}", 0),
        ("\N{ZERO WIDTH JOINER}", 0),
    ],
)
def test_a_character_takes_these_places(character: str, places: int) -> None:
    line = pretty(page(Pet(id=1, name=f"o{character}", color="red"), Pet(id=2, name="12345", color="red"))).splitlines()

    assert line[2] == f" 1  o{character}{' ' * (4 - places)}  red"


@pytest.mark.parametrize(("length", "is_cut"), [(300, False), (301, True)])
def test_of_a_text_three_hundred_characters_are_looked_at(length: int, is_cut: bool) -> None:
    notes = "a" + "\N{COMBINING ACUTE ACCENT}" * (length - 1)

    line = pretty(page(Pet(id=1, name="Rex", notes=notes))).splitlines()[2]

    assert line.endswith("…") is is_cut


def test_a_page_of_one_row_says_so() -> None:
    assert [pretty(page(*pets)).splitlines()[-1] for pets in ((), (Pet(id=1),), (Pet(id=1), Pet(id=2)))] == [
        "no rows",
        "1 row",
        "2 rows",
    ]
