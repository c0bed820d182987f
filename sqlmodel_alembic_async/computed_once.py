"""An attribute that is computed at the first access."""

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Result = TypeVar("Result")


class ComputedOnce(Generic[Result]):
    """A functools.cached_property that gives all threads the same value, without a lock.

    Python 3.11's cached_property holds a lock. If another thread forks meanwhile, it stays locked in the child process.
    """

    def __init__(self, compute: Callable[[Any], Result]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Result: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Result:
        if instance is None:
            return self
        value: Result = instance.__dict__.setdefault(self._name, self._compute(instance))
        return value
