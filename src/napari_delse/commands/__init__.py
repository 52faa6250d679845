"""The commands of ``napari-delse``, gathered by `napari_delse.cli`.

May import every room but the widgets; what costs time to import is imported inside the commands.
"""
