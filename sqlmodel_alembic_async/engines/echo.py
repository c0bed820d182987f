"""Log SQL statements: the `echo` of an engine applies at once, also to open connections and to derived engines."""

import logging
from typing import Any, Literal

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.base import OptionEngine

# "values": with the values of the statements, which are personal data. SQLAlchemy also knows "debug".
Echo = bool | Literal["values", "debug"]

_LOGGER = "sqlalchemy.engine.Engine"


def get_echo(engine: Engine) -> Echo:
    """Return whether an engine logs its statements, and "values" if it logs their values, too."""
    echo: Any = engine.echo
    return "values" if echo is True and not engine.hide_parameters else echo or False


def set_echo(engine: Engine, echo: Echo) -> None:
    """Let an engine log its statements, or stop that.

    Args:
        engine: The engine, not one that is derived from it.
        echo: True logs statements, "values" also their values, which SQLAlchemy's errors then quote, too.

    Raises:
        ValueError: `echo` has an unknown value.

    """
    if echo not in (True, False, None, "values", "debug"):
        raise ValueError('echo must be True, False or "values"')
    logger = logging.getLogger(_LOGGER)
    if echo and logger.hasHandlers() and not logger.handlers:
        logger.addHandler(logging.NullHandler())  # SQLAlchemy would add a handler, and each line would appear twice.
    if echo == "values":
        engine.hide_parameters = False
        engine.echo = True
    else:
        if get_echo(engine) == "values":
            engine.hide_parameters = True
        engine.echo = echo


def follow_echo(engine: Engine) -> None:
    """Apply a change of the engine's `echo` to open connections, too."""
    event.listen(engine, "before_cursor_execute", _update)


def _update(connection: Connection, *statement: object) -> None:
    connection._echo = connection.engine._should_log_info()


def _shared(name: str) -> Any:
    return property(
        lambda engine: getattr(engine._proxied, name),
        lambda engine, value: setattr(engine._proxied, name, value),
    )


class DerivedEngine(OptionEngine):
    """An engine with other execution options, which logs whenever the engine logs that it is derived from."""

    # An OptionEngine has copies of these, as they were when it was built.
    echo = _shared("echo")
    logger = _shared("logger")
    hide_parameters = _shared("hide_parameters")
