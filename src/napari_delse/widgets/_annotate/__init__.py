"""What the annotate widget alone is made of: editing, its tabs and keys, the view into the evolution, export.

Imports the shared modules of the widgets.
"""
