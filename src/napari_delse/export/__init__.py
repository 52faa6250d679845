"""Labels for other programs: TIFF, OME-TIFF, OME-Zarr, COCO, GeoJSON and ImageJ ROIs.

Imports the geometry and `data`.
"""
