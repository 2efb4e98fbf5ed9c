"""``hasten fleet``: one network a key, from a file of rows to a file of weights."""

from __future__ import annotations

import argparse
import bz2
import codecs
import contextlib
import csv
import functools
import gzip
import hashlib
import importlib
import inspect
import json
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hasten
from hasten.cli import output
from hasten.cli.fleet_arguments import MODELS, given, of_training
from hasten.core.errors import HastenError, UsageError, nearest

FAILED_ALL = 1
HEAD = 1 << 16  # bytes of a file that are looked at to tell what it is
SAVED = ".safetensors"  # what a fleet's file ends in
PASSED = (  # options that fit takes by the same name
    "loss", "optimizer", "lr", "epochs", "batch_size", "seed", "by", "features", "target", "window", "horizon",
    "season", "gaps", "engine", "workers", "shortest_first", "journal",
)  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Train or load, learn new rows, report, write.

    Returns:
        0; 1 where no model could be trained, none of the new rows learned, or a journal or a result not be written; 3
        where a proof did not hold.
    """
    output.apart(json=options.json, html=options.html, out=options.out)
    output.spares(filter(None, (options.file, options.update)), json=options.json, html=options.html)
    for path in (options.json, options.html, options.out):
        if path and path != output.STDOUT:
            output.check(path)
    from hasten.report import fleet as report

    if options.out and Path(options.out).suffix != SAVED:
        raise UsageError(
            f"--out {options.out}", f"a fleet's file is known by its ending, {SAVED}", f"--out fleet{SAVED}"
        )
    try:
        with only_writer(options):
            trained, learned, written = work(options)
    except UsageError:
        raise
    except HastenError as error:  # nothing wrong was asked: a full disk
        print(f"hasten: {error}", file=sys.stderr)
        return FAILED_ALL
    document = plain(trained.summary().document())
    if options.json or options.html:
        document["forecasts"] = plain(forecasts(trained))
    if options.json:
        from hasten.report.json import headed

        text = json.dumps(headed("fleet", hasten.__version__, document), indent=1) + "\n"
        written = output.attempt(options.json, lambda: output.write(options.json, text)) and written
    if options.html:
        from hasten.report.fleet_page import page as draw

        page = draw(document)
        written = output.attempt(options.html, lambda: output.write(options.html, page)) and written
    if not options.quiet and output.STDOUT not in (options.json, options.html):
        print(report.text(document))
    elif not (learned and len(trained)):  # which leaves with 1: it must be said somewhere
        print(f"hasten: {nothing_done(trained)}", file=sys.stderr)
    if any(not found["holds"] for found in document["proof"]):
        return 3
    return 0 if written and learned and len(trained) else FAILED_ALL


def nothing_done(trained: Any) -> str:
    """Why no model was trained, or no new row learned, with the first key's cause."""
    failed, what = trained.failed, "no model could be trained"
    if len(trained):
        failed, what = trained.summary().updates[-1]["failed"], "no new row could be learned"
    return "; ".join([what, *(f"{key}: {cause}" for key, cause in list(failed.items())[:1])])


def only_writer(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    """While no other command changes the fleet that this one reads and replaces: what it learned would be lost."""
    from hasten.fleet import whole

    path = Path(options.file)
    in_place = path.suffix == SAVED and Path(options.out or path).resolve() == path.resolve()
    return whole.alone(path) if in_place else contextlib.nullcontext()


def work(options: argparse.Namespace) -> tuple[Any, bool, bool]:
    """The fleet, trained or loaded; whether all went well with learning new rows, and with writing it."""
    saved_before = Path(options.file).suffix == SAVED
    trained = loaded(options) if saved_before else train(options)
    learned = learn(trained, Path(options.update)) if options.update else True
    out = options.out or (options.file if saved_before else "")
    written = saved(trained, out, options.journal, rows=not saved_before) if out else True
    return trained, learned, written


def saved(trained: Any, path: str, journal: str | None, rows: bool) -> bool:
    """Write the fleet; where that fails, the report is still to come, and hours of training are not lost without it.

    Args:
        rows: whether it was trained on rows, and not read from a file, beside which there is no journal.
    """
    try:
        trained.save(path)
    except UsageError as error:  # which says itself what to do
        print(f"hasten: {error}", file=sys.stderr)
        return False
    except HastenError as error:
        print(f"hasten: {error.what}", file=sys.stderr)
        kept = f"what was trained is kept in {journal}" if journal else "the weights are lost with this process"
        print(f"  {kept}; an older file is untouched", file=sys.stderr)
        also = "; --journal FOLDER keeps what was trained" if rows and not journal else ""
        print(f"  try: make room and call it again{also}", file=sys.stderr)
        return False
    return True


def train(options: argparse.Namespace) -> Any:
    """The fleet of a file of rows.

    Raises:
        UsageError: arguments are missing or do not fit together.
    """
    from hasten import fleet as fleets

    if not options.by or not options.target:
        raise UsageError(
            "rows need the column of their keys and the column to learn", "--by or --target is missing",
            "hasten fleet sales.parquet --by store --target sales --window 96 --horizon 24",
        )  # fmt: skip
    unused = () if options.hold_out else given(options, "--patience", "--baseline")
    if unused and not (unused == ["--baseline"] and options.baseline == "none"):
        raise UsageError(
            f"{unused[0]} looks at held-out rows, and none are held out", "--hold-out 0 stands beside it",
            f"leave {unused[0]} out, or --hold-out 0.2",
        )  # fmt: skip
    frame = read(Path(options.file), options.by)
    notes = {
        "model": options.model or MODELS[0],
        "sizes": [options.window or len(options.features), options.horizon or outputs(options, frame)],
        "season": max(options.season, 1) if options.window else 0,
    }
    stop = fleets.EarlyStop(options.patience, fraction=options.hold_out) if options.hold_out else None
    passed = {name: getattr(options, name) for name in PASSED}
    with watched(options.quiet) as progress:
        trained = fleets.fit(
            factory(notes),
            frame,
            **passed,
            stop=stop,
            time_column=options.time,
            baseline=options.baseline if options.baseline != "none" and stop is not None else "",
            progress=progress,
        )
        if options.prove:
            trained.prove(options.prove)
    trained.notes = notes
    return trained


def outputs(options: argparse.Namespace, frame: Any) -> int:
    """Numbers that a model of rows gives for each: one, or one a class."""
    if options.loss != "cross_entropy" or options.target not in frame.column_names:
        return 1
    classes = [value for value in frame[options.target].unique().to_pylist() if isinstance(value, (int, float))]
    return 1 + int(max((value for value in classes if 0 <= value < math.inf), default=0))


def loaded(options: argparse.Namespace) -> Any:
    """The fleet of a file that ``--out`` has written.

    Raises:
        UsageError: it is no fleet, nothing is asked of it, or its model cannot be made again.
    """
    from hasten import fleet as fleets
    from hasten.fleet import files

    if not options.update:
        raise UsageError(f"{options.file} is trained already", "--update is missing", "--update NEWROWS")
    if options.prove:
        raise UsageError(
            "--prove compares a training with the plain loop, and this fleet is trained already",
            "--prove stands beside a fleet's file",
            "--prove where the fleet is trained, without it here",
        )
    others = of_training(options)
    if others:
        are, it = ("is", "it") if len(others) == 1 else ("are", "they")
        raise UsageError(
            f"{options.file} is trained already, and {', '.join(others)} {are} for training",
            f"{it} stand{'s' * (it == 'it')} beside a fleet's file, which goes on as it was trained",
            f"leave {', '.join(others)} out, or train anew from rows",
        )
    notes = files.notes(Path(options.file))
    if options.model:
        notes["model"] = options.model
    if "model" not in notes:
        raise UsageError(
            "the fleet's file does not name its model", "it was written by Fleet.save", "--model module:factory"
        )
    return fleets.Fleet.load(options.file, factory(notes))


def learn(trained: Any, path: Path) -> bool:
    """Let a fleet learn a file of new rows; once only, whenever the command was killed and called again.

    Returns:
        False where there were rows and none could be learned.

    Raises:
        UsageError: the rows cannot be read, or are of other keys.
    """
    trained.reopen()
    by = trained.session.columns.get("by")
    if not by:
        raise UsageError(
            "this fleet was trained on arrays, and no columns of a file are known that would be like them",
            "it was trained in Python on a mapping", "Fleet.load(path, make_model).update({key: …}) in Python",
        )  # fmt: skip
    rows = read(path, by)
    digest = digest_of(path)
    if trained.notes.get("learned") == digest:
        print(f"hasten: {path} is what this fleet learned last; nothing was done", file=sys.stderr)
        return True
    update = trained.update(rows)
    if update.rows:
        trained.notes["learned"] = digest
    return bool(update.rows or not update.failed)


def digest_of(path: Path) -> str:
    """Of a file, or of all files of a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            digest.update(part.read_bytes())
    return digest.hexdigest()


def read(path: Path, by: str) -> Any:
    """The rows of a file.

    Args:
        by: the column of keys, which are text: CSV does not say so, and 0412 would become 412.

    Raises:
        UsageError: it cannot be read, or pyarrow is not installed.
    """
    from hasten.fleet.extras import need

    if not path.exists():
        raise UsageError(f"there is no file {path}", "a typing error", "a .parquet, .csv or .csv.gz file")
    _check_kind(path, by)
    pa = need("pyarrow", "reading a file of rows")
    try:
        if path.suffix.lower() == ".parquet" or path.is_dir():
            return read_parquet(path, by)
        return read_csv(path, by)
    except (OSError, ValueError, pa.ArrowException) as error:  # files of a folder may hold a column as other kinds
        raise UsageError(
            f"cannot read {path}: {str(error).splitlines()[0]}",
            "a typing error, or neither Parquet nor CSV",
            "a .parquet, .csv or .csv.gz file",
        ) from None


def read_parquet(path: Path, by: str) -> Any:
    """The rows of a Parquet file, or of a folder of them. Keys that names of folders tell (``store=0412/``) are text.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    from hasten.fleet.extras import need

    pa, parquet = need("pyarrow", "reading a file of rows"), need("pyarrow.parquet", "reading a file of rows")
    whole = parquet.ParquetDataset(path) if path.is_dir() else None
    if whole is None or not whole.fragments or by in (held := set(whole.fragments[0].physical_schema.names)):
        return parquet.read_table(path)
    told = {
        field.name: getattr(field.type, "value_type", field.type) for field in whole.schema if field.name not in held
    }
    kinds = {name: pa.string() if name == by else kind for name, kind in told.items()}
    hive = need("pyarrow.dataset", "reading a file of rows").partitioning(pa.schema(kinds), flavor="hive")
    return parquet.read_table(path, partitioning=hive)


def read_csv(path: Path, by: str) -> Any:
    """The rows of a CSV file. Where no commas stand between its columns, they may stand in its numbers: whichever way
    more columns are numbers is taken.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    from hasten.fleet.extras import need

    pa, csvs = need("pyarrow", "reading a file of rows"), need("pyarrow.csv", "reading a file of rows")
    mark = delimiter(path)

    def table(point: str) -> Any:
        text = csvs.ConvertOptions(column_types={by: "string"}, decimal_point=point)
        return csvs.read_csv(path, parse_options=csvs.ParseOptions(delimiter=mark), convert_options=text)

    found = table(".")
    if mark == "," or not any(pa.types.is_string(field.type) for field in found.schema if field.name != by):
        return found
    return max((found, table(",")), key=lambda t: sum(pa.types.is_floating(field.type) for field in t.schema))


def _check_kind(path: Path, by: str) -> None:
    """Refuse what can be no file of rows with this column, before anything is installed to read it.

    Raises:
        UsageError: it is neither Parquet nor CSV, or its first line lacks the column.
    """
    if path.is_dir() and path.suffix.lower() != ".parquet" and not any(path.rglob("*.parquet")):
        raise UsageError(
            f"{path} is a folder without Parquet files", "another folder, or one of CSV files",
            "a folder of .parquet files, or one .parquet, .csv or .csv.gz file",
        )  # fmt: skip
    compressed: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}
    why, cause, change = "", "a typing error, or neither Parquet nor CSV", "a .parquet, .csv or .csv.gz file"
    if not path.is_file() or path.suffix.lower() in (".zst", ".lz4", ".br", ".snappy"):  # which Python cannot open
        return
    try:
        with compressed.get(path.suffix.lower(), open)(path, "rb") as file:
            head: bytes = file.read(HEAD)
    except (OSError, EOFError, zlib.error) as error:
        why = str(error)
    else:
        line = head.partition(b"\n")[0].decode("utf-8", "replace").strip("\ufeff\r")
        if path.suffix.lower() == ".parquet":
            why = "" if head.startswith(b"PAR1") else "it does not begin as Parquet does"
        elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            why, cause = "it is text in UTF-16, and rows are read in UTF-8", "what a spreadsheet has written"
            change = f"iconv -f UTF-16 -t UTF-8 {path.name} > rows.csv"
        elif b"\0" in head:
            why = "it is no text"
        elif by not in (columns := next(csv.reader([line], delimiter=mark_of(line)), [])) and line.count('"') % 2 == 0:
            why = f"there is no column {by!r} in its first line, {line[:60]!r}"
            change = nearest(by, columns) or change
    if why:
        raise UsageError(f"cannot read {path}: {why}", cause, change)


def mark_of(line: str) -> str:
    """What stands between the columns of a head: a comma, or where it has none, a semicolon or a tab."""
    return next((mark for mark in (",", ";", "\t") if mark in line), ",")


def delimiter(path: Path) -> str:
    """What stands between the columns of a CSV file."""
    from hasten.fleet.extras import need

    with need("pyarrow", "reading a file of rows").input_stream(str(path)) as file:
        return mark_of(file.read(HEAD).partition(b"\n")[0].decode("utf-8", "replace"))


def factory(notes: Mapping[str, Any]) -> Callable[..., Any]:
    """What makes a key's model.

    Args:
        notes: ``model``, its name or ``module:factory``; ``sizes``, its inputs and outputs, where known; ``season``.

    Raises:
        UsageError: there is no such model, or it does not take numbers of inputs and outputs.
    """
    from hasten.fleet import models

    if (found := models.of_notes(notes)) is not None:
        return found
    module, _, name = notes["model"].partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"there is no model {notes['model']}: {error}",
            "a typing error, or the module is not in this folder",
            "--model mlp, or --model mymodels:make with make(inputs, outputs) in mymodels.py",
        ) from None
    sizes = notes.get("sizes", ())
    try:
        with contextlib.suppress(ValueError):  # of compiled code, of which nothing is known
            inspect.signature(make).bind_partial(*sizes)
    except TypeError as error:
        raise UsageError(
            f"the model {notes['model']} is called with the numbers of inputs and outputs, {tuple(sizes)}: {error}",
            "a factory of other arguments",
            f"def {name}(inputs, outputs): …",
        ) from None
    return functools.partial(make, *sizes)


def forecasts(trained: Any, each: int = 3) -> list[dict[str, Any]]:
    """The last held-out window of the worst, median and best keys, with what was predicted. Series only. Where nothing
    is held out, the last window, and keys by their training loss."""
    measure = "loss" if trained.recipe.stop is None else "held"
    rows = sorted((r for r in trained.summary().rows if not r.cause), key=lambda r: getattr(r, measure))
    jobs = {job.key: job for job in trained.session.jobs}
    middle = max(0, len(rows) // 2 - each // 2)
    groups = {"best": rows[:each], "median": rows[middle : middle + each], "worst": rows[-each:]}
    found = []
    for group, members in groups.items():
        for row in members:
            task = jobs[row.key].task
            if task.X.ndim != 2 or task.y.ndim != 2 or not trained.session.columns.get("window"):
                continue
            at = [(jobs[row.key].held if len(jobs[row.key].held) else task.learnable())[-1]]
            seen, came = (a.astype(float) * task.scale + task.shift for a in (task.X[at], task.y[at]))
            predicted = trained.predict(row.key, seen)
            found.append(
                {"key": row.key, "group": group, measure: getattr(row, measure), "seen": seen[0].tolist(),
                 "came": came[0].tolist(), "predicted": predicted.reshape(-1).tolist()}
            )  # fmt: skip
    return found


def plain(value: Any) -> Any:
    """Numbers that JSON knows: NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


@contextlib.contextmanager
def watched(quiet: bool) -> Iterator[Callable[[Any], None] | None]:
    """A live line on stderr, where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    from hasten.report.fleet import progress_line

    console = Console(stderr=True, highlight=False, emoji=False, markup=False)
    with Live("", console=console, refresh_per_second=4, transient=True) as live:
        yield lambda progress: live.update(progress_line(progress))
