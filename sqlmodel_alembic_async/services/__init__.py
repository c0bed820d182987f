"""The public services: coroutines that take a session first; their caller commits or rolls back.

Each flushes the session's pending changes first; the errors of that flush are raised, too. Constraints and triggers of
a host application may cause InvalidValueError, ConflictError and AlreadyExistsError beyond what a docstring names.
"""
