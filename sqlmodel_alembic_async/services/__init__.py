"""What callers can do: coroutines that take a session first, and leave the transaction to their caller.

Each flushes the session's pending changes first, and raises what that flush raises. Constraints and triggers of a host
application may add InvalidValueError, ConflictError and AlreadyExistsError to what a docstring names.
"""
