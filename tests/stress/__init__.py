"""The stress campaign: `python -m tests.stress`. Its scenarios, made small, are tests/test_concurrency.py."""
