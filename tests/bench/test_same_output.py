"""The rule by which two runs count as printing the same."""

from __future__ import annotations

import pytest
from bench.same_output import difference

PLAIN = "epoch 0: loss 0.5213, 1.26 s\nepoch 1: loss 0.4121, 1.31 s\ndone\n"
AGAIN = "epoch 0: loss 0.5213, 1.29 s\nepoch 1: loss 0.4121, 1.31 s\ndone\n"


def test_times_may_differ_wherever_the_plain_runs_show_that_they_do() -> None:
    other = "epoch 0: loss 0.5213, 0.40 s\nepoch 1: loss 0.4121, 0.10 s\ndone\n"
    assert difference(PLAIN, AGAIN, other) == ""


def test_a_loss_may_not() -> None:
    other = PLAIN.replace("0.4121", "0.4122")
    assert difference(PLAIN, AGAIN, other) == "0.4121 became 0.4122 in 'epoch #: loss #, # s'"
    assert difference(PLAIN, AGAIN, other, numbers=False) == ""


@pytest.mark.parametrize("other", [PLAIN + "bye\n", PLAIN.replace("done\n", ""), PLAIN.replace("done", "finished"), ""])
def test_lines_may_not(other: str) -> None:
    assert "shapes differ" in difference(PLAIN, AGAIN, other)


def test_progress_bars_count_once() -> None:
    plain = "\r 10%|█▏  | 1/10\r 50%|████  | 5/10\r100%|██████| 10/10\ndone"
    again = "\r 30%|█▏▏ | 3/10\r100%|██████| 10/10\ndone"
    assert difference(plain, again, "\r 90%|████| 9/10\ndone") == ""
    assert difference(plain, again, "\r 90%|████| 9/10\nfailed") != ""


def test_unseeded_losses_are_not_compared_but_their_lines_are() -> None:
    assert difference("loss 0.1\nloss 0.2", "loss 0.3\nloss 0.4", "loss 9\nloss 8") == ""
    assert difference("loss 0.1\nloss 0.2", "loss 0.3\nloss 0.4", "loss 9") != ""


def test_what_a_clock_shows_is_no_result() -> None:
    plain = "Epoch 1/3 ━━ 50/50 0:00:02 • 0:00:00 loss: 0.5 [00:02<00:10]"
    assert not difference(plain, plain, plain.replace("0:00:02", "0:00:03").replace("00:10", "01:12"))
    assert difference(plain, plain, plain.replace("0.5", "0.6"))
    assert difference(plain, plain, plain.replace("50/50", "49/50"))


def test_a_bar_of_rich_is_shorter_where_its_rate_has_another_digit() -> None:
    plain = "Testing ━━━━━━━━━━ 9/9 0:00:01 • 0:00:00 98.20it/s"
    other = "Testing ━━━━━━━━━ 9/9 0:00:00 • 0:00:00 180.31it/s"
    assert difference(plain, plain.replace("98.20", "97.11"), other) == ""
