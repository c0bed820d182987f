"""Signatures as people read them, in help() and in IPython, which also completes the names of parameters."""

import functools
import operator
from collections.abc import Callable, Iterable
from inspect import Parameter, Signature, signature
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from sqlalchemy.orm import Mapped


class _Unchanged:
    def __repr__(self) -> str:
        return "<unchanged>"


UNCHANGED = _Unchanged()  # Shown as the default of a field that stays as it is if it is left out.

Function = TypeVar("Function", bound=Callable[..., Any])


def plain_types(owner: type[Any]) -> dict[str, Any]:
    """Return the annotations of a class without validators and Mapped[], and `X | None` for `Optional[X]`."""
    return {name: _plain(hint) for name, hint in get_type_hints(owner).items()}


def _plain(hint: Any) -> Any:
    if get_origin(hint) is Mapped:
        [hint] = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return functools.reduce(operator.or_, get_args(hint))
    return hint


def signature_of(types: dict[str, Any], defaults: dict[str, Any]) -> Signature:
    """Return the signature of a class that takes these keywords; one without a default is required."""
    return Signature(list(_keywords(types, defaults)))


def _keywords(types: dict[str, Any], defaults: dict[str, Any]) -> Iterable[Parameter]:
    for name, kind in types.items():
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=defaults.get(name, Parameter.empty), annotation=kind)


def spell_out(filters: type[Any], **defaults: Any) -> Callable[[Function], Function]:
    """Show each filter as a parameter of its own, in place of `**filters`; a call stays as it is.

    Args:
        filters: The TypedDict of the filters.
        defaults: What a filter is if it is not given, if that is not None.

    """

    def decorate(function: Function) -> Function:
        shown = signature(function)
        types = plain_types(filters)
        spelled_out = _keywords(types, {name: defaults.get(name) for name in types})
        first = [each for each in shown.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
        function.__signature__ = shown.replace(parameters=[*first, *spelled_out])  # type: ignore[attr-defined]  # inspect reads it
        return function

    return decorate
