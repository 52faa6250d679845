"""A model that learns from a person's own labels: survey, job, training, verdict, and the models kept.

Imports `train`, `predict` and `data`, and reads what `annotation` wrote down.
"""
