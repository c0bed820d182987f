"""What callers do with users and pets: coroutines that take a session and never commit it."""
