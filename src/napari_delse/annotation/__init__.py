"""A person's work on labels: clicks, commits, undo, and the journal from which all of it is replayed.

No window and no network: front ends stand above. Imports the geometry and `data`.
"""
