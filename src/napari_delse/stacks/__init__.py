"""Label planes of many planes and many files: in threads or on a cluster, interrupted and gone on with.

Imports `propagation`, `predict`, `export` and `data`.
"""
