"""A training with threads, processes or forks of its own beside it; the argument says which."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

kind = sys.argv[1]


def train(steps=150, each=None, seed=5):
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    if seed is not None:
        torch.manual_seed(seed)
    loader = DataLoader(TensorDataset(torch.randn(64, 4)), batch_size=8, shuffle=True)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    step = 0
    while step < steps:
        for (x,) in loader:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            step += 1
            time.sleep(0.002)
            if each is not None:
                each(step)
    print("step", step, model.weight.tolist(), model.bias.tolist())
    torch.save(model.state_dict(), "model.pt")


def alone():
    train(steps=400)


def square(x):
    return x * x


def unseeded_thread_beside():
    thread_beside(seed=None)


def long_thread_beside():
    thread_beside(steps=1500)


def thread_beside(**how):
    stop, counts = threading.Event(), [0]

    def count():
        while not stop.is_set():
            counts[0] += sum(i for i in range(100)) > 0
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    train(**how)
    stop.set()
    thread.join()
    print("counted", counts[0] > 10)


def made_by_a_thread():
    """Batches that a thread puts into a queue, and no DataLoader."""
    import queue

    import torch

    torch.manual_seed(5)
    batches, model = queue.Queue(4), torch.nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def make():
        for i in range(600):
            batches.put(torch.arange(32.0).view(8, 4) / (i + 1))
        batches.put(None)

    threading.Thread(target=make, daemon=True).start()
    while (x := batches.get()) is not None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        time.sleep(0.005)
    print(model.weight.tolist())


def in_a_thread():
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()

    def fail():
        raise RuntimeError("in a thread")

    thread = threading.Thread(target=fail, name="failing")
    thread.start()
    thread.join()


def pool():
    with multiprocessing.get_context("fork").Pool(2) as workers:

        def each(step):
            if step % 50 == 0:
                print(workers.map(square, range(5)))

        train(each=each)


def programs():
    def each(step):
        if step % 30 == 0:
            done = subprocess.run([sys.executable, "-S", "-c", f"print({step} + 1)"], capture_output=True, text=True)
            print("program", done.stdout.strip(), os.system(f"echo {step} >> steps.txt"))

    train(each=each)


def forks():
    os.mkdir("made")

    def each(step):
        if step % 30 == 0:
            sys.stdout.flush()
            pid = os.fork()
            if not pid:
                with open(f"made/{step}.json", "w") as file:
                    json.dump({"step": step}, file)
                os._exit(step)
            print("forked", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    train(each=each)


def deadlock():
    """Hangs for ever, but only in a process that is not the one that was started."""
    me = os.getpid()
    lock = threading.Lock()

    def each(step):
        if os.getpid() != me:
            lock.acquire()
            lock.acquire()

    train(each=each)


def endless():
    """Runs for ever, but only in a process that is not the one that was started."""
    me = os.getpid()

    def each(step):
        while os.getpid() != me:
            pass

    train(each=each)


if __name__ == "__main__":
    globals()[kind]()
