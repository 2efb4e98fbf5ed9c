"""What ``hasten solve`` does: one pass over a file, alpha by exact validation, the answer as a ``Solution``."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hasten.core.solution import Alpha, Coefficient, Method, Solution
from hasten.solve import path as paths
from hasten.solve import storage
from hasten.solve.accuracy import Answer, centred, climb, from_moments
from hasten.solve.choice import Candidate, Validation, ranked
from hasten.solve.columns import class_texts
from hasten.solve.combine import shortened
from hasten.solve.digest import Digest
from hasten.solve.encode import encoded
from hasten.solve.files import BATCH_ROWS, open_file
from hasten.solve.moments import Moments
from hasten.solve.problems import BadData, CannotWrite
from hasten.solve.scan import scan_source
from hasten.solve.shards import ending, files_of
from hasten.solve.source import Block, Source, first_block

FOLDS = 10  # kept apart, so that later updates can choose alpha without the rows
ALPHAS = np.logspace(-8, 2, 31)  # times the number of rows, for columns of unit variance
MOST_CLASSES = 1000


class Spent(Exception):
    """The budget is."""


class Timed(Source):
    """Rows that are read again while the budget lasts."""

    def __init__(self, source: Source, deadline: float) -> None:
        self.source, self.deadline, self.rows = source, deadline, source.rows

    def blocks(self, first: int = 0) -> Iterator[Block]:
        for block in self.source.blocks(first):
            if time.perf_counter() > self.deadline:
                raise Spent
            yield block


def solve(
    path: str | Sequence[str], target: str, *, features: Sequence[str] = (), task: str = "auto",
    budget: float = math.inf, update: str = "", save: str = "", checkpoint: str = "", progress: bool = False,
) -> tuple[Solution, CannotWrite | None]:  # fmt: skip
    """Fit a file.

    Args:
        path: ``.parquet``, ``.csv`` or ``.npy``; a folder of such files, a pattern of names, or several.
        target: column to predict; with ``update`` that of the saved moments.
        features: columns to predict from; empty for all others.
        task: "regression"; "classification", by ridge on one column of 0 and 1 a class; or "auto".
        budget: seconds for reading. When they are spent the first pass is given up; after it, the rows are not read
            again, and alpha is chosen by folds of that pass instead of leave-one-out.
        update: moments that an earlier call saved: the new rows are added to them, and they are saved there again.
        save: where to write the moments. checkpoint: see ``scan``; kept until all is solved and saved.

    Returns:
        the solution; and why it could not be saved, or None.

    Raises:
        BadData: the data, the columns or the options do not fit; the file was learned before; or another run adds rows
            to the same moments.
    """
    own = update and save in ("", update)
    with storage.alone(update) if own else contextlib.nullcontext():
        return _solved(path, target, features, task, budget, update, save, checkpoint, progress)


def _solved(
    path: str | Sequence[str], target: str, features: Sequence[str], task: str, budget: float, update: str, save: str,
    checkpoint: str, progress: bool,
) -> tuple[Solution, CannotWrite | None]:  # fmt: skip
    deadline = time.perf_counter() + budget
    old, target, classes, source = _opened(path, target, features, task, update)
    per_row = _reading_seconds(source)
    folds = FOLDS if source.rows is None else min(FOLDS, source.rows)
    begun = time.perf_counter()
    files = files_of(path) or [Path(str(path))]
    with Digest(*files) if save or update else contextlib.nullcontext() as digest:
        m = scan_source(
            Moments, source, folds=folds, checkpoint=checkpoint or None, progress=progress, budget=budget,
            seconds=deadline - time.perf_counter(), keep=True,
        )  # fmt: skip
        contents = [f"content {each}" for each in digest.results()] if digest else []
        m.shards |= set(contents)
    if old is not None and (again := [str(f) for f, each in zip(files, contents, strict=True) if each in old.shards]):
        raise _learned(again, len(files), update, checkpoint)
    new, m = m.n, m if old is None else old + m
    read, start = time.perf_counter() - begun, time.perf_counter()
    rows = None if old is not None or not source.again else encoded(Timed(source, deadline), m)
    try:
        found, answer, score, metric = _fitted(m, rows, classes)
    except Spent:
        rows = None
        found, answer, score, metric = _fitted(m, None, classes)
    except KeyboardInterrupt:
        if not checkpoint:
            raise
        raise KeyboardInterrupt(f"all rows are kept in {checkpoint}: run it again to go on") from None
    seconds = (new * per_row, read, time.perf_counter() - start)
    saved, failure = _saved(m, save or update, target, classes)
    if checkpoint and failure is None:
        Path(checkpoint).unlink(missing_ok=True)
    about = (
        _told(path),
        len(files),
        target or m.targets[0].removeprefix("column "),
        "classification" if classes else "regression",
        saved,
    )
    return _described(about, m, found, answer, (score, metric), seconds, new, rows is not None), failure


def _told(path: str | Sequence[str]) -> str:
    """Of many files the first and the last one."""
    if isinstance(path, str):
        return path
    return path[0] if len(path) == 1 else f"{path[0]} … {path[-1]}"


def _is_npy(path: str | Sequence[str]) -> bool:
    files = files_of(path)
    return ending(files[0] if files else str(path)) == ".npy"


def _opened(
    path: str | Sequence[str], target: str, features: Sequence[str], task: str, update: str
) -> tuple[Moments | None, str, list[str], Source]:
    """The moments to add to, the target, its classes, and the rows."""
    old, notes = storage.load(Moments, update) if update else (None, {})
    saved_target = notes.get("target", "")
    if saved_target and target not in ("", saved_target):
        raise BadData(f"--target {target}", f"the moments in {update} predict {saved_target!r}", "leave it out")
    target = target or saved_target
    npy = _is_npy(path)
    if not target and not npy:
        raise BadData("no target was named", "--target is missing", f"hasten solve {_told(path)} --target COLUMN")
    if task not in ("auto", "regression", "classification"):
        raise BadData(f"--task {task}", "a typing error", "regression or classification")
    labels = _saved_classes(notes.get("classes", ""))
    if old is not None and task not in ("auto", "classification" if labels else "regression"):
        raise BadData(f"--task {task}", f"the moments in {update} are of another task", "leave it out")
    classes = labels if old is not None else _classes(path, target, task)
    if old is not None:
        features = [*old.encoder.numeric, *old.encoder.categorical]
    if old is not None and npy:
        features = [name.removeprefix("x") for name in features]  # the numbers of the columns
    known = None if old is None else old.kinds
    source = open_file(path, [target] if target else [], list(features) or None, None, None, classes, known)
    return old, target, classes, source


def _saved(m: Moments, path: str, target: str, classes: list[str]) -> tuple[str, CannotWrite | None]:
    """Where the moments were written, or why they were not."""
    try:
        if path:
            m.save(path, target=target, classes=json.dumps(classes))
    except CannotWrite as error:
        return "", error
    return path, None


def _learned(again: list[str], files: int, update: str, checkpoint: str) -> BadData:
    """The error where rows are in the moments already; the state of the pass over them is removed.

    Args:
        again: the files that are. files: how many were given.
    """
    if checkpoint:
        Path(checkpoint).unlink(missing_ok=True)
    return BadData(
        f"the rows of {shortened(again) if files > 1 else again[0]} were learned before; {update} is as it was",
        "the command was run twice" if files == 1 else "a folder with files of an earlier run, or the same run again",
        "a file of new rows" if files == 1 else f"the new files alone: hasten solve FILE FILE --update {update}",
    )  # fmt: skip


def _fitted(m: Moments, rows: Source | None, classes: list[str]) -> tuple[paths.Path, Answer, float, str]:
    """Errors along the alphas, the solution, its score on rows left out, and the score's name."""
    grid = ALPHAS * m.weight
    variance = np.diagonal(m.covariance)[: m.p]
    if rows is None:
        found = paths.kfold(m, grid, scale=True)
        return found, from_moments(m, [found.alpha], True, variance), _r2(m, found), "R²"
    found, spectrum = paths.leave_one_out(rows, m, grid, scale=True)
    answer = climb(rows, m, found.alpha * variance, True)
    if classes:
        return found, answer, _accuracy(rows, spectrum, found.alpha), "accuracy"
    return found, answer, _r2(m, found), "R²"


def _r2(m: Moments, found: paths.Path) -> float:
    at = int(np.argmin(np.abs(found.alphas - found.alpha)))
    variance = np.diagonal(m.scatter)[m.p :] / m.weight
    error = found.mse[:, at].mean(axis=0)
    return float(np.mean(1 - error / np.where(variance > 0, variance, np.nan)))


def _accuracy(rows: Source, spectrum: paths.Spectrum, alpha: float) -> float:
    """Leave-one-out share of rows whose class has the largest score, in one more pass."""
    normal = spectrum.normal
    turn, inverse = spectrum.vectors / spectrum.scale[:, None], spectrum.shrunk(np.array([alpha]))[:, 0]
    coef = spectrum.coef(alpha)
    right = count = 0
    for c, t, _ in centred(rows, normal.x_mean, normal.y_mean):
        leverage = (c @ turn) ** 2 @ inverse + 1 / normal.weight
        left = t - (t - c @ coef) / np.maximum(1 - leverage, 1e-10)[:, None] + normal.y_mean
        right += int((left.argmax(axis=1) == (t + normal.y_mean).argmax(axis=1)).sum())
        count += len(c)
    return right / count


def _described(
    about: tuple[str, int, str, str, str], m: Moments, found: paths.Path, answer: Answer, score: tuple[float, str],
    seconds: tuple[float, float, float], new: float, again: bool,
) -> Solution:  # fmt: skip
    """Args: new: rows that were read now; those of an update's moments were read before."""
    path, files, target, task, saved = about
    spread = np.sqrt(np.diagonal(m.covariance)[: m.p])
    shown = 1 if m.q == 2 else 0  # of two classes the latter, as scikit-learn's
    effect = answer.coef_[:, shown] * spread
    order = np.argsort(-np.abs(effect))
    folds, classes = 0 if again else len(found.mse), task == "classification"
    added = Validation.of(new, m.p, m.q, len(found.alphas), folds, classes)
    ways = ranked(new, m.p, m.q, answer.condition_, again)
    known = max((answer.error_bound_ - c.error for c in ways if c.name == answer.method_), default=0.0)
    methods = tuple(_method(c, answer, seconds, added, max(known, 0.0)) for c in ways)
    errors = found.mse.mean(axis=(0, 2))
    validation = "leave-one-out" if again else f"{len(found.mse)}-fold"
    return Solution(
        path, target, task, int(m.n), m.p, answer.method_, tuple(sorted(methods, key=lambda x: not x.chosen)),
        tuple(Alpha(float(a), float(e), float(a) == found.alpha) for a, e in zip(found.alphas, errors, strict=True)),
        score[0], score[1], validation, answer.condition_, answer.error_bound_, *seconds[1:],
        tuple(Coefficient(m.names[j], float(effect[j])) for j in order[:20]), saved,
        m.targets[shown] if task == "classification" else target, int(m.n) - int(new), files,
    )  # fmt: skip


def _method(
    c: Candidate, answer: Answer, seconds: tuple[float, float, float], added: Validation, known: float
) -> Method:  # fmt: skip
    """A candidate with what validation and reading add, and what it really took where it was done.

    Args:
        known: what the residual, which is known now, adds to every way's error.
    """
    done = c.name == answer.method_
    actual = seconds[1] + seconds[2] if done else math.nan
    reason = c.reason if c.chosen == done else "what was done" if done else ""
    error = answer.error_bound_ if done else c.error + known
    passes = c.passes + added.passes
    predicted = c.seconds + added.seconds + seconds[0] * passes
    told = answer.passes_ + added.passes if done else passes
    return Method(c.name, told, c.flops + added.flops, predicted, actual, error, done, reason)


def _reading_seconds(source: Source) -> float:
    """Predicted seconds of reading one row, from as many rows as are decoded at a time.

    Raises:
        BadData: there are no rows, or no columns but the target.
    """
    block = first_block(source)  # which also waits for libraries to be imported
    if not (block.names or block.category_names):
        raise BadData("there is no column to predict from", "a file of the target alone", "a file with more columns")
    start, rows = time.perf_counter(), 0
    for block in source.blocks():
        rows += len(block.x)
        if rows >= BATCH_ROWS:
            break
    return (time.perf_counter() - start) / max(rows, 1)


def _classes(path: str | Sequence[str], target: str, task: str) -> list[str]:
    """Texts of the target's classes; empty for regression. Reads the target's column."""
    npy = _is_npy(path)
    if npy and task == "classification":
        raise BadData(
            f"{_told(path)} holds numbers without names of classes", "--task classification with a .npy",
            "a .parquet or .csv; in Python StreamingLogistic",
        )  # fmt: skip
    if task == "regression" or npy:
        return []
    seen: set[str] = set()
    for block in open_file(path, [], [target], None, None).blocks():
        if task == "auto" and not block.categories:
            return []
        texts = class_texts(block.categories[0] if block.categories else block.x[:, 0])
        seen |= {text for text in texts if text is not None}  # a row without a label is refused, not a class
        if len(seen) > MOST_CLASSES:
            raise BadData(
                f"{target!r} has more than {MOST_CLASSES} classes", "a column of numbers or names", "--task regression"
            )
    if len(seen) == 1:
        raise BadData(
            f"{target!r} holds one class only: {next(iter(seen))!r}", "a column that was filtered by",
            "rows of other classes, too",
        )  # fmt: skip
    return sorted(seen)


def _saved_classes(text: str) -> list[str]:
    found: list[str] = json.loads(text) if text.startswith("[") else text.split("\n") if text else []  # as once saved
    return found
