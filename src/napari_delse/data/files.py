"""Image files: opened without reading their pixels where the format allows it, labels written plane by plane.

Axes are letters as in TIFF and OME metadata: Y and X span the plane, S are colours, C channels, and all others
(Z, T, ...) count planes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from napari_delse.data.images import ArrayLike, Plane
from napari_delse.data.lazy_arrays import Chunks, Mapped, Pages
from napari_delse.data.ome_zarr import is_zarr, read_ome_zarr
from napari_delse.data.units import imagej_sizes, in_unit, unit_named

TIFF = (".tif", ".tiff", ".btf", ".tf8")
_WHOLE_PAGE = 1 << 28  # compressed pages up to this many bytes are decoded at once and kept
_SIZES = {f"PhysicalSize{axis}{unit}" for axis in "XYZ" for unit in ("", "Unit")} | {
    "TimeIncrement",
    "TimeIncrementUnit",
}
_PLAIN_SIZES = ("spacing", "unit", "yunit", "zunit", "finterval", "tunit")  # as ImageJ names them


@dataclass(frozen=True, eq=False)
class ImageFile:
    """An open image.

    Parameters
    ----------
    path : Path
        Its file.
    data : array-like
        Pixels, read where they are asked for.
    axes : str
        One letter per axis of ``data``.
    scale : dict
        Pixel size as its format stores it: arguments of ``tifffile.TiffWriter.write``, or of OME-Zarr "sizes",
        "units" and "origin" by axis.
    kind : str
        Flavour of TIFF: "ome", "imagej" or "" (others, and other formats); "zarr" for Zarr.
    """

    path: Path
    data: ArrayLike
    axes: str
    scale: dict[str, Any] = field(default_factory=dict)
    kind: str = ""

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.data.shape) or len(set(self.axes)) < len(self.axes):
            raise ValueError(
                f"{self.path} has {len(self.data.shape)} axes {tuple(self.data.shape)}, which {self.axes!r} does not "
                "name one by one; say them with --axes, such as ZYX or CYX"
            )
        if not {"Y", "X"} <= set(self.axes) or {"C", "S"} <= set(self.axes):
            raise ValueError(
                f"{self.path}: axes must hold Y and X, and C or S at most once, got {self.axes!r}; say them with --axes"
            )

    @property
    def channel_axis(self) -> int | None:
        """Axis of the colours or channels."""
        found = [i for i, axis in enumerate(self.axes) if axis in "CS"]
        return found[0] if found else None

    @property
    def plane_axes(self) -> str:
        """Letters of the axes that count planes."""
        return "".join(axis for axis in self.axes if axis not in "YXCS")

    @property
    def plane_counts(self) -> tuple[int, ...]:
        """Their lengths."""
        return tuple(self.data.shape[self.axes.index(axis)] for axis in self.plane_axes)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.data.shape[self.axes.index("Y")], self.data.shape[self.axes.index("X")]

    @property
    def pixel_size(self) -> tuple[dict[str, float], dict[str, str]]:
        """Size and unit of a step along Z, Y, X and T, as far as the file knows them."""
        if self.kind == "zarr":
            return dict(self.scale.get("sizes", {})), dict(self.scale.get("units", {}))
        stored = self.scale.get("metadata", {})
        if self.kind == "ome":
            names = {axis: f"PhysicalSize{axis}" for axis in "ZYX"} | {"T": "TimeIncrement"}
            known = {axis: stored[name] for axis, name in names.items() if name in stored}
            # The units OME takes where none is said.
            usual = {"Z": "micrometer", "Y": "micrometer", "X": "micrometer", "T": "second"}
            return known, {axis: stored.get(names[axis] + "Unit", usual[axis]) for axis in known}
        sizes: dict[str, float] = {}
        units: dict[str, str] = {}
        if "resolution" in self.scale:
            factor, unit = {2: (25.4, "millimeter"), 3: (10.0, "millimeter")}.get(
                self.scale.get("resolutionunit", 1), (1.0, stored.get("unit", ""))
            )
            per_x, per_y = self.scale["resolution"]
            sizes = {"Y": factor / per_y, "X": factor / per_x}
            units = {"Y": unit, "X": unit} if unit and unit != "pixel" else {}
            if units and "yunit" in stored:
                units["Y"] = stored["yunit"]
        if "spacing" in stored:
            sizes["Z"] = float(stored["spacing"])
            if unit := stored.get("zunit", units.get("X")):
                units["Z"] = unit
        if "finterval" in stored:
            sizes["T"], units["T"] = float(stored["finterval"]), stored.get("tunit", "second")
        return sizes, units

    @property
    def origin(self) -> dict[str, float]:
        """Where the first pixel lies, along the axes and in the units of `pixel_size`; empty where nothing says it."""
        return dict(self.scale.get("origin", {}))

    def read(self) -> npt.NDArray[Any]:
        """All pixels."""
        return np.asarray(self.data[(slice(None),) * len(self.axes)])

    def unmapped(self) -> ImageFile:
        """The same image, whose pixels do not stay in memory after they were read."""
        return replace(self, data=Mapped(self.data)) if isinstance(self.data, np.memmap) else self

    def plane(self, index: tuple[int, ...] = (), channels: tuple[int, ...] = ()) -> Plane:
        """One plane.

        Parameters
        ----------
        index : tuple of int
            Position on `plane_axes`.
        channels : tuple of int
            See `images.Plane`.
        """
        axis = self.channel_axis
        count = 1 if axis is None else self.data.shape[axis]
        colours = axis is not None and self.axes[axis] == "S"
        if colours and count == 2:  # grey and alpha
            channels = channels or (0,)
        return Plane(
            self.data,
            axes=(self.axes.index("Y"), self.axes.index("X")),
            channel_axis=axis,
            channels=channels,
            index=index,
            rgb=colours and count in (3, 4) and not channels,
        )


@contextmanager
def open_image(path: Path | str, axes: str | None = None, *, labels: bool = False) -> Iterator[ImageFile]:
    """Open a TIFF, PNG, JPEG or other picture, or an OME-Zarr folder.

    Uncompressed TIFF is mapped into memory; compressed TIFF is decoded page by page, or chunk by chunk with zarr
    where a page is large, and so is OME-Zarr; other formats are read whole.

    Parameters
    ----------
    path : path
        The file or folder.
    axes : str, optional
        Letters for the axes, where the file names them wrongly or not at all.
    labels : bool
        Whether it holds labels: then axes before Y and X that a plain TIFF does not name count planes, as do its
        "colours" there, and a Zarr array without names has times rather than channels.

    Yields
    ------
    ImageFile

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read as an image, or its axes are not what ``axes`` says.
    """
    path = Path(path)
    letters = axes.upper() if axes else None
    if is_zarr(path):
        array, usual, known = read_ome_zarr(path, labels=labels)
        yield ImageFile(path, Chunks(array), letters or usual, known, "zarr")
        return
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    if path.suffix.lower() in TIFF:
        import tifffile

        try:
            file = tifffile.TiffFile(path)
        except Exception as error:
            raise ValueError(f"{path} cannot be read as TIFF ({error}); export it again") from error
        with file:
            yield _from_tiff(path, file, letters, labels=labels)
        return
    import imageio.v3 as imageio

    try:
        # bytes, because imageio leaves files open that it cannot read
        data = np.asarray(imageio.imread(path.read_bytes(), extension=path.suffix.lower()))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as an image ({reason}); export it as TIFF or PNG") from error
    usual = {2: "YX", 3: "YXS", 4: "TYXS"}.get(data.ndim, "")
    if data.ndim == 3 and data.shape[-1] > 4:  # an animation without colours
        usual = "TYX"
    yield ImageFile(path, cast(ArrayLike, data), letters or usual)


def _from_tiff(path: Path, file: Any, letters: str | None, *, labels: bool) -> ImageFile:
    series = file.series[0]
    if 0 in series.shape or series.ndim < 2:
        raise ValueError(f"{path} has an image of shape {series.shape}; export it again")
    kind = "ome" if file.is_ome else "imagej" if file.is_imagej else ""
    is_named = bool(kind or (file.shaped_metadata or [{}])[0].get("axes"))
    usual = _names_of_planes(series.axes) if labels and not is_named else series.axes
    alike = sum(other.shape == series.shape for other in file.series)
    if kind == "ome" and alike > 1:
        warnings.warn(
            f"{path} holds {alike} images, such as positions of a stage, and only the first is read; export each to "
            "a file of its own",
            RuntimeWarning,
            stacklevel=4,
        )
    return ImageFile(path, _lazy(path, series), letters or usual, _scale(file, kind), kind)


def _names_of_planes(axes: str) -> str:
    """Different letters for axes before YX that have none of their own; tifffile calls three planes colours."""
    lead, plane = axes[:-2], axes[-2:]
    if plane != "YX":
        return axes
    kept = [axis for axis in lead if axis not in "SC" and lead.count(axis) == 1]
    free = (axis for axis in "QIABDEFGHJK" if axis not in kept)
    return "".join(axis if axis in kept else next(free) for axis in lead) + plane


def _lazy(path: Path, series: Any) -> ArrayLike:
    """Pixels of a TIFF series, read as late and as few as the file allows."""
    import tifffile

    if series.dataoffset is not None:  # uncompressed and in one piece
        try:
            return cast(ArrayLike, tifffile.memmap(path, series=0, mode="r"))
        except (ValueError, OSError, NotImplementedError):  # such as a file system that maps no files
            pass
    page = series.keyframe
    pages = math.prod(series.shape[: series.ndim - page.ndim])
    if page.nbytes > _WHOLE_PAGE:
        try:
            import zarr

            return Chunks(zarr.open(series.aszarr(level=0), mode="r"))
        except ImportError:
            warnings.warn(
                f"{path} is compressed in large pages, which need much memory; install zarr to read parts of them",
                RuntimeWarning,
                stacklevel=5,
            )
    if tuple(series.shape[series.ndim - page.ndim :]) == tuple(page.shape) and pages == len(series.pages):
        return Pages(series, page)
    return cast(ArrayLike, series.asarray())


def _scale(file: Any, kind: str) -> dict[str, Any]:
    """Pixel size of a TIFF, as the arguments that write it again."""
    scale: dict[str, Any] = {}
    if kind == "ome":
        try:
            root = ET.fromstring(file.ome_metadata)
        except ET.ParseError:
            return {}
        for element in root.iter():
            if element.tag.rpartition("}")[2] == "Pixels":
                found = {k: v for k, v in element.attrib.items() if k in _SIZES}
                return {"metadata": {k: v if k.endswith("Unit") else float(v) for k, v in found.items()}}
        return {}
    tags = file.pages[0].tags
    resolution = [tags[name].value for name in ("XResolution", "YResolution") if name in tags]
    if len(resolution) == 2 and all(len(r) == 2 and r[0] and r[1] for r in resolution):
        scale["resolution"] = tuple(r[0] / r[1] for r in resolution)
        if "ResolutionUnit" in tags:
            scale["resolutionunit"] = tags["ResolutionUnit"].value
    known = (file.imagej_metadata if kind == "imagej" else (file.shaped_metadata or [{}])[0]) or {}
    scale["metadata"] = {k: known[k] for k in _PLAIN_SIZES if k in known}
    return scale


def stem_of(path: Path) -> str:
    """A file's name without its format: what an image, its labels and its result have in common."""
    stem = path.stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem


def label_dtype(largest: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds a label: uint8, uint16 or uint32."""
    return np.min_scalar_type(max(0, largest)) if largest < 2**32 else np.dtype(np.uint64)


def write_labels(
    path: Path,
    planes: Iterable[npt.NDArray[Any]],
    dtype: np.dtype[Any],
    like: ImageFile,
    *,
    ome: bool = False,
    tile: int | None = None,
    software: str | None = None,
) -> tuple[int, ...]:
    """Write label planes as one TIFF, compressed unless it is for ImageJ, with the axes and the pixel size of an image.

    OME and ImageJ files get labels of their kind (ImageJ knows no more than 16 bit and 2 GB), other images a plain
    TIFF whose description names the axes.

    Parameters
    ----------
    path : Path
        File to write; not complete before this function returns, so hand over a temporary one.
    planes : iterable of array, each of shape (Y, X)
        In the order of the image's plane axes; only one is held at a time.
    dtype : dtype
        Of the labels.
    like : ImageFile
        The image.
    ome : bool
        Write OME-TIFF whatever the image is.
    tile : int, optional
        Side of square tiles: then ``planes`` yields tiles instead, plane by plane in rows from the left, each of the
        full size.
    software : str, optional
        What made it, for the tag of that name.

    Returns
    -------
    tuple of int
        Shape of what was written.
    """
    import tifffile

    axes = like.plane_axes + "YX"
    shape = (*like.plane_counts, *like.plane_shape)
    size = math.prod(shape) * dtype.itemsize
    kind = _kind("ome" if ome else like.kind, axes, dtype, size)
    if tile is not None and kind == "imagej":  # which reads pages in one piece only
        kind = ""
    scale = _plain_scale(like) if like.kind == "zarr" and kind != "ome" else like.scale
    tags = {key: scale[key] for key in ("resolution", "resolutionunit") if key in scale}
    # OME names pixel sizes in its own way: they pass only from OME to OME.
    sizes = scale.get("metadata", {}) if (kind == "ome") == (like.kind == "ome") else {}
    with tifffile.TiffWriter(path, bigtiff=size > 2**31, ome=kind == "ome", imagej=kind == "imagej") as writer:
        writer.write(
            iter(np.ascontiguousarray(plane, dtype=dtype) for plane in planes),
            shape=shape,
            dtype=dtype,
            photometric="minisblack",
            # ImageJ takes all planes but the first to follow it uncompressed.
            compression=None if kind == "imagej" else "zlib",
            metadata={"axes": axes, **sizes},
            tile=None if tile is None else (tile, tile),
            software=software,
            **tags,
        )
    return shape


def _plain_scale(like: ImageFile) -> dict[str, Any]:
    """The pixel size of an OME-Zarr image, as the arguments that write a plain TIFF."""
    sizes, names = like.pixel_size
    if not {"Y", "X"} <= set(sizes):
        return {}
    units = {axis: unit for axis, name in names.items() if (unit := unit_named(name, axis)) is not None}
    resolution = (1 / sizes["X"], 1 / in_unit(sizes["Y"], units.get("Y"), units.get("X")))
    return {"resolution": resolution, "resolutionunit": 1, "metadata": imagej_sizes(sizes, units)}


def _kind(wanted: str, axes: str, dtype: np.dtype[Any], size: int) -> str:
    """The flavour of TIFF that can hold such labels: the wanted one or a plain one."""
    if wanted == "ome" and set(axes) <= set("TZYXARHEPM"):
        return wanted
    ordered = [axis for axis in "TZYX" if axis in axes] == list(axes)
    return wanted if wanted == "imagej" and ordered and dtype.itemsize <= 2 and size < 2**31 else ""
