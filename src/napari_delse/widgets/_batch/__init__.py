"""What the batch widget alone is made of: its tabs, plans and runs over layers and files.

Imports the shared modules of the widgets.
"""
