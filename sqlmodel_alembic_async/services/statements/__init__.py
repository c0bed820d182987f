"""The statements that the services execute: on one row, on many rows, for pages, and in savepoints."""
