"""The services: coroutines on users and pets that take a session and never commit it."""
