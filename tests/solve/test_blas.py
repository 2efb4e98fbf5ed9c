"""Products of rows as they lie, with and without SciPy's BLAS, and without Python's lock."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from hasten.solve import blas
from hasten.solve.blas import add_square


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["C", "F", "wide", "every other", "one row", "none", "not aligned"])
def test_products_of_rows_however_they_lie(form: str, dtype: Any, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr(blas, "_syrk", lambda kind: None)
    rows = np.random.default_rng(0).standard_normal((40, 7)).astype(dtype)
    if form == "not aligned":
        raw = np.zeros(rows.nbytes + 1, np.uint8)[1:]
        raw[:] = np.frombuffer(rows.tobytes(), np.uint8)
        rows = raw.view(dtype).reshape(40, 7)
    rows = {
        "C": rows, "F": np.asfortranarray(rows), "wide": rows[:, 2:6], "every other": rows[::2], "one row": rows[:1],
        "none": rows[:0], "not aligned": rows,
    }[form]  # fmt: skip
    total = np.full((rows.shape[1],) * 2, np.nan, dtype, order="F")
    add_square(total, rows, 0.0)
    add_square(total, rows)
    wanted = 2 * rows.astype(float).T @ rows.astype(float)
    assert np.allclose(np.triu(total), np.triu(wanted), rtol=1e-5 if dtype == np.float32 else 1e-13, atol=1e-5)


def test_other_threads_go_on_meanwhile() -> None:
    if blas._syrk("d") is None:
        pytest.skip("SciPy has no BLAS for Cython")
    rows = np.ones((400_000, 60))
    total = np.zeros((60, 60), order="F")
    add_square(total, rows[:10])
    over, ticks = threading.Event(), []

    def tick() -> None:
        while not over.is_set():
            ticks.append(time.perf_counter())
            time.sleep(1e-4)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        for _ in range(20):  # a busy machine may run nobody else during one product
            start = time.perf_counter()
            add_square(total, rows)
            end = time.perf_counter()
            if any(start < t < end for t in ticks):
                break
        else:
            pytest.fail("the thread ran during none of the products")
    finally:
        over.set()
        thread.join()
