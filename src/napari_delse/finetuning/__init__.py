"""A model that learns from a person's own labels: survey, job, training, verdict, and the models kept.

Imports `train` and `predict`, and reads what `annotation` wrote down.
"""
