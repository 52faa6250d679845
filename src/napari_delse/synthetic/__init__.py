"""Seeded synthetic images with instance labels, for training without any data set.

Imports no other module of the package.
"""
