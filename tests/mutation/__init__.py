"""Mutation testing: `python -m tests.mutation` changes the package in small ways and looks whether a test fails.

The published tools do not fit this suite. mutmut 3 mutates the bodies of functions only, not the tables of codes and
the limits at the top of a module, and forks a process that has threads and event loops. cosmic-ray and poodle run the
same command for every mutant: without a choice of tests, one mutant costs minutes. None of the three drops an argument
of a call or a part of an SQL text.
"""
