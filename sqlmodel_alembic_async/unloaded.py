"""Name the cure when a program reads an attribute of a row that is not loaded and cannot be loaded without await."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidRequestError, MissingGreenlet, SQLAlchemyError
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.util.concurrency import in_greenlet


def explain_unloaded(table: type[Any], **other_ways: str) -> None:
    """Let the errors of unloaded attributes of a table tell how to load them; loaded attributes cost nothing.

    Args:
        table: A table class.
        other_ways: For a relationship, what loads it beside refresh().

    """
    event.listen(table, "mapper_configured", lambda mapper, cls: _explain(mapper, other_ways), propagate=True)


def _explain(mapper: Mapper[Any], other_ways: dict[str, str]) -> None:
    manager: Any = mapper.class_manager
    manager.expired_attribute_loader = _explaining_expired(mapper, manager.expired_attribute_loader)
    for name, other_way in other_ways.items():
        attribute: Any = manager[name].impl
        attribute.callable_ = _explaining_relationship(mapper, name, other_way, attribute.callable_)


def _explaining_expired(mapper: Mapper[Any], load: Callable[..., Any]) -> Callable[..., Any]:
    def load_or_explain(state: InstanceState[Any], *rest: Any) -> Any:
        session = state.session
        if session is None or in_greenlet() or not _is_async(session, mapper):
            return load(state, *rest)
        # Without this error, the session would flush first, fail in the flush, and refuse everything until rollback().
        raise MissingGreenlet(
            f"this {mapper.class_.__name__} is expired, for example by a rollback: read it again with"
            f" `await session.refresh({mapper.class_.__name__.lower()})`"
        )

    return load_or_explain


def _is_async(session: Session, mapper: Mapper[Any]) -> bool:
    try:
        return session.get_bind(mapper).dialect.is_async
    except SQLAlchemyError:
        return False  # The session has no engine, and says so.


def _explaining_relationship(
    mapper: Mapper[Any], name: str, other_way: str, load: Callable[..., Any]
) -> Callable[..., Any]:
    row = mapper.class_.__name__.lower()

    def load_or_explain(*state: Any, **options: Any) -> Any:
        try:
            return load(*state, **options)
        except InvalidRequestError as error:
            raise InvalidRequestError(
                f'{error}: load it with `await session.refresh({row}, ["{name}"])`{other_way}'
            ) from None

    return load_or_explain
