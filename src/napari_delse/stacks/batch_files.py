"""Which files a run over many images reads and writes."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from napari_delse.data.files import TIFF, stem_of
from napari_delse.data.ome_zarr import image_folder, is_zarr
from napari_delse.stacks.batches import Job, Mode

FORMATS = {"tiff": ".tif", "ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr"}
_PICTURES = (*TIFF, ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_PREFIXES: dict[str, Mode] = {"labels:": "labels", "propagate:": "propagate"}


def mode_of(prompts: str) -> tuple[Mode, Path]:
    """What ``--prompts`` says: FILE, labels:PATH or propagate:PATH.

    Raises
    ------
    ValueError
        If no path follows.
    FileNotFoundError
        If there is nothing.
    """
    mode: Mode = "table"
    rest = prompts
    for prefix, named in _PREFIXES.items():
        if prompts.startswith(prefix):
            mode, rest = named, prompts.removeprefix(prefix)
    if not rest:
        raise ValueError(f"--prompts {prompts} must name a file or folder, such as {prompts}coarse.tif")
    if not Path(rest).exists():
        raise FileNotFoundError(f"--prompts: there is no {rest}; give a file, or a folder of files")
    return mode, Path(rest)


def inputs_of(given: Iterable[str]) -> list[Path]:
    """Images that files, folders and patterns mean, each once.

    Folders are not searched deeper, but for the pattern ``**``; hidden files and what has no suffix of an image are
    left out.

    Raises
    ------
    FileNotFoundError
        If one of them means nothing.
    """
    found: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_file() or is_zarr(path):
            here = [path]
        elif path.is_dir():
            here = [one for one in sorted(path.iterdir()) if _is_image(one)]
        else:
            here = [one for one in map(Path, sorted(glob.glob(text, recursive=True))) if _is_image(one)]  # noqa: PTH207
        if not here:
            what = "holds no images" if path.is_dir() else "is no file, folder or pattern of images"
            raise FileNotFoundError(f"{text} {what}; expected {', '.join(_PICTURES)} or OME-Zarr folders")
        found += here
    return list(dict.fromkeys(found))


def _is_image(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return is_zarr(path) if path.is_dir() else path.suffix.lower() in _PICTURES


def jobs_of(
    images: Sequence[Path], mode: Mode, prompts: Path, folder: Path, format_name: str | None = None
) -> list[Job]:
    """A job for each image: its prompts by name, and its result in a folder under the same name.

    Parameters
    ----------
    images : sequence of path
        Such as from `inputs_of`.
    mode : {"table", "labels", "propagate"}
        What the prompts are.
    prompts : path
        The prompts of all images, or a folder with files of their names.
    folder : path
        For the results.
    format_name : str, optional
        One of `FORMATS`; by default OME-Zarr for OME-Zarr, OME-TIFF for OME-TIFF and TIFF for others.

    Raises
    ------
    ValueError
        If two images would have one result, or a result would replace what is read.
    """
    if format_name is not None and format_name not in FORMATS:
        raise ValueError(f"--format must be one of {', '.join(FORMATS)}, got {format_name!r}")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out-dir {folder} is a file; give a folder")
    jobs: dict[Path, Job] = {}
    for image in images:
        out = folder / (stem_of(image) + (FORMATS[format_name] if format_name else _suffix(image)))
        table = folder / f"{stem_of(image)}_objects.csv"
        if out in jobs:
            raise ValueError(
                f"{jobs[out].image} and {image} would both become {out}; rename one, or give each an --out-dir"
            )
        jobs[out] = Job(image, mode, prompts_of(image, mode, prompts), out, table)
    spare_inputs(jobs.values(), "give another --out-dir")
    return list(jobs.values())


def spare_inputs(jobs: Collection[Job], remedy: str) -> None:
    """Refuse jobs that would write over what they, or others, read, or over a folder that it is in.

    Raises
    ------
    ValueError
        Ends with the remedy.
    """
    named = {path for job in jobs for path in (job.image, job.prompts)}
    read = {_identity(one) for path in named for at in (path, _read_at(path)) for one in (at, *at.absolute().parents)}
    for job in jobs:
        for path in (job.out, job.table):
            if path is not None and _identity(path) in read:
                raise ValueError(f"{path} is what is read; {remedy}")


def _read_at(path: Path) -> Path:
    """The folder in an OME-Zarr folder that is read, or the path itself."""
    if is_zarr(path):
        with suppress(ValueError, ImportError):  # one that cannot be read is an error of its own image
            return image_folder(path)
    return path


def _identity(path: Path) -> object:
    """Equal for all names of one file or folder."""
    try:
        found = path.stat()
    except OSError:
        return path.resolve()
    return (found.st_dev, found.st_ino) if found.st_ino else path.resolve()  # some network drives number no files


def _suffix(image: Path) -> str:
    if image.is_dir():
        return ".ome.zarr"
    return ".ome.tif" if image.stem.lower().endswith(".ome") and image.suffix.lower() in TIFF else ".tif"


def prompts_of(image: Path, mode: Mode, prompts: Path) -> Path:
    """The prompts of an image: the file that is given, or the one of its name in the folder.

    That may be missing, which is then an error of this image alone.

    Raises
    ------
    ValueError
        If several files have this name.
    """
    if not prompts.is_dir() or is_zarr(prompts):
        return prompts
    suffixes = (".csv",) if mode == "table" else _PICTURES
    found = [
        one
        for one in sorted(prompts.iterdir())
        if stem_of(one) == stem_of(image)
        and (one.suffix.lower() in suffixes if one.is_file() else mode != "table" and is_zarr(one))
    ]
    if len(found) > 1:
        raise ValueError(f"{found[0].name} and {found[1].name} in {prompts} both belong to {image}; remove one")
    return found[0] if found else prompts / (stem_of(image) + (".csv" if mode == "table" else ".tif"))
