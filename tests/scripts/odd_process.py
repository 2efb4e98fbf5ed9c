"""A training whose process is set up in every unusual way; it exits with 7."""

import atexit
import copy
import faulthandler
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings

os.register_at_fork(
    before=lambda: print("before a fork"),
    after_in_parent=lambda: print("after a fork"),
    after_in_child=lambda: print("in a fork", flush=True),
)
script_hook = []


def early_hook(kind, error, trace):
    script_hook.append(kind.__name__)


sys.excepthook = early_hook


def main(steps, seed=0):
    import torch
    from torch.utils.data import DataLoader, Dataset

    settings = locals()
    torch.manual_seed(seed)

    class Rows(Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, i):
            if i == 13 and self.fails:
                raise KeyError(f"row {i}")
            return torch.full((4,), float(i)) / 64

        fails = False

    class Talker:
        say = print
        read = open

    os.register_at_fork(before=lambda: print("before a late fork"), after_in_child=lambda: open("forked", "w").close())
    ended = []

    def reap(number, frame):
        try:
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) > 0:
                ended.append(pid)
        except ChildProcessError:
            pass

    signal.signal(signal.SIGCHLD, reap)
    signal.signal(signal.SIGALRM, lambda number, frame: print("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 3600)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    faulthandler.enable(open("faults", "w"))
    atexit.register(lambda: open("goodbye", "w").write("at exit\n"))
    logging.basicConfig(filename="errors.log", format="%(message)s %(funcName)s %(lineno)d")
    sys.setrecursionlimit(260)
    warnings.simplefilter("default")

    rows = Rows()
    loader = DataLoader(rows, batch_size=8, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = 0
    for epoch in range(steps // 8):
        torch.manual_seed(epoch)
        line = sys.stdin.readline()
        with open("numbers.txt", "a") as file:
            print(f"epoch {epoch} read {line!r} file number {file.fileno()}")
        Talker().say("a class attribute", end="\n")
        with Talker().read("numbers.txt") as file:
            file.read()
        for x in loader:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            step += 1
            warnings.warn("shown once", stacklevel=1)
            time.sleep(0.002)
        if epoch % 6 == 5:
            before = len(ended)
            process = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
            while len(ended) == before:
                time.sleep(0.001)
            print("children ended", len(ended) - before, process.wait())
            Rows.fails = True
            try:
                list(loader)
            except KeyError:
                logging.exception("a row is missing")
                traceback.print_exc(file=sys.stdout)
                print(len(traceback.extract_stack()), *(f.name for f in traceback.extract_stack()))
            Rows.fails = False
    print(sorted(k for k, v in settings.items()), sorted(locals()) == sorted(set(locals())))
    print(pickle.loads(pickle.dumps(print)) is print, copy.copy(print) is print, print, open)
    print("timer", signal.getitimer(signal.ITIMER_REAL)[0] > 3590, signal.getsignal(signal.SIGCHLD) is reap)
    print(sys.excepthook is early_hook, threading.excepthook is threading.__excepthook__)
    print("step", step, [p.sum().item() for p in model.parameters()])
    torch.save(model.state_dict(), "model.pt")


main(160)
sys.exit(7)
