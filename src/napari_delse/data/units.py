"""Units of pixel sizes and frame intervals, in the words of the formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Unit:
    """A unit in the words of the formats.

    Parameters
    ----------
    name : str
        As OME-Zarr (UDUNITS-2) calls it.
    symbol : str
        As OME-TIFF calls it.
    plain : str
        As ImageJ calls it, in ASCII.
    factor : float
        In meters or seconds.
    """

    name: str
    symbol: str
    plain: str
    factor: float


LENGTHS = {
    unit.name: unit
    for unit in (
        Unit("picometer", "pm", "pm", 1e-12),
        Unit("angstrom", "Å", "angstrom", 1e-10),
        Unit("nanometer", "nm", "nm", 1e-9),
        Unit("micrometer", "µm", "um", 1e-6),
        Unit("millimeter", "mm", "mm", 1e-3),
        Unit("centimeter", "cm", "cm", 1e-2),
        Unit("inch", "in", "inch", 0.0254),
        Unit("meter", "m", "m", 1.0),
    )
}
TIMES = {
    unit.name: unit
    for unit in (
        Unit("nanosecond", "ns", "ns", 1e-9),
        Unit("microsecond", "µs", "us", 1e-6),
        Unit("millisecond", "ms", "ms", 1e-3),
        Unit("second", "s", "s", 1.0),
        Unit("minute", "min", "min", 60.0),
        Unit("hour", "h", "h", 3600.0),
        Unit("day", "d", "d", 86400.0),
    )
}
_NAMES = {
    name: unit
    for unit in (*LENGTHS.values(), *TIMES.values())
    for name in (unit.name, unit.name.replace("meter", "metre"), unit.symbol, unit.plain)
} | {
    "micron": LENGTHS["micrometer"],
    "microns": LENGTHS["micrometer"],
    "μm": LENGTHS["micrometer"],
    "\\u00b5m": LENGTHS["micrometer"],  # as ImageJ escapes it
    "sec": TIMES["second"],
    "seconds": TIMES["second"],
    "minutes": TIMES["minute"],
    "hours": TIMES["hour"],
    "hr": TIMES["hour"],
}
NO_UNIT = ("", "pixel", "pixels", "dimensionless")


def unit_named(name: str, axis: str) -> Unit | None:
    """The unit of a name, if it is one for this axis."""
    unit = _NAMES.get(name.strip()) or _NAMES.get(name.strip().lower())
    return unit if unit is not None and known_units(axis).get(unit.name) is unit else None


def known_units(axis: str) -> dict[str, Unit]:
    """The units that an axis may have, by their names."""
    return TIMES if axis == "T" else LENGTHS if axis in "ZYX" else TIMES | LENGTHS


def imagej_sizes(sizes: Mapping[str, float], units: Mapping[str, Unit]) -> dict[str, Any]:
    """Sizes along Z and T as ImageJ keeps them: it has one unit for X, Y and Z, and a frame interval in seconds.

    Parameters
    ----------
    sizes : mapping of str to float
        By axis.
    units : mapping of str to Unit
        By axis, where it is known.

    Returns
    -------
    dict
        "unit", "spacing" and "finterval", as far as they are known.
    """
    unit = units.get("X")
    found: dict[str, Any] = {"unit": unit.plain} if unit else {}
    if "Z" in sizes:
        found["spacing"] = in_unit(sizes["Z"], units.get("Z"), unit)
    if "T" in sizes and "T" in units:
        found["finterval"] = in_unit(sizes["T"], units["T"], TIMES["second"])
    return found


def in_unit(size: float, own: Unit | None, wanted: Unit | None) -> float:
    """A size in another unit, where both are known."""
    return size if own is None or wanted is None else size * own.factor / wanted.factor
