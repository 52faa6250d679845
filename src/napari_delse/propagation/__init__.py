"""Objects carried from a few labelled planes through the planes between them, in z or in time.

Imports predictions, the geometry and the planes of `data`.
"""
