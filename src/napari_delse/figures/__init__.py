"""Pictures that explain: masks over an image, and an evolution from the clicks to the contour.

Imports predictions and what they are made of.
"""
