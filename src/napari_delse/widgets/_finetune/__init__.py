"""What the fine-tuning widget alone is made of: what to learn from, the run, its curves, and the models.

Imports the shared modules of the widgets.
"""
