"""The statements that are built once for their form."""

from sqlmodel_alembic_async import AsyncSession, UserCreate, count_users, create_users, list_users


async def test_a_search_tells_the_last_characters_of_a_plane_apart(session: AsyncSession) -> None:
    odd = ["\ufffd", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff", "\ue000", "\ud7ff"]
    await create_users(session, [UserCreate(name=f"Ada {character} Byron") for character in odd])

    for character in odd:
        for part in (character, f"A {character} b"):
            found = (await list_users(session, name_contains=part)).items
            assert [user.name for user in found] == [f"Ada {character} Byron"]
            assert await count_users(session, name_contains=part) == 1
