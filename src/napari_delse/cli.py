"""The command ``napari-delse``. What costs time to import is imported by the commands that need it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from napari_delse.commands import evaluate, figure, files, models, segment, train
from napari_delse.commands.common import Command, Group, sentence_of

app = typer.Typer(
    name="napari-delse",
    help="Four clicks on an object's extreme points, one mask: deep level set evolution (DELSE).",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; errors are one sentence on stderr and exit code 2.

    Parameters
    ----------
    args : sequence of str, optional
        Arguments; those of the process by default. With NAPARI_DELSE_DEBUG in the environment, errors keep their
        traceback.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        sys.exit(_run(args))


def _run(args: Sequence[str] | None) -> int:
    """Run the command line; returns the exit code."""
    try:
        code = app(args=args, prog_name="napari-delse", standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if type(error).__name__ == "Abort":  # what typer makes of Ctrl-C
            return 130
        sentence = sentence_of(error)
        if sentence is None or os.environ.get("NAPARI_DELSE_DEBUG"):
            raise
        print(f"napari-delse: {sentence}", file=sys.stderr)
        return 2
    return code if isinstance(code, int) else 0


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
        print(f"napari-delse: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        from napari_delse import __version__

        print(f"napari-delse {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None and not version:
        print(context.get_help())


for _command in (
    segment.demo,
    segment.segment,
    evaluate.evaluate,
    train.train,
    figure.figure,
    files.export,
    files.replay,
):
    app.command(cls=train.TrainCommand if _command is train.train else Command)(_command)

app.add_typer(models.models, cls=Group)
