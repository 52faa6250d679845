"""What is read from outside: images, their planes, labelled samples and tables of prompts.

Imports the geometry alone.
"""
