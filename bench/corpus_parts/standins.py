"""Makes the data of the corpus: copies of the originals where they are to be had, else stand-ins of their form.

    python standins.py KIND DEST --repos FOLDER [--data FOLDER]

Run by bench/corpus.py with the corpus' interpreter. DEST/SOURCE.txt, written last, says what the data is.
"""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IMAGES = "EliSchwartz/imagenet-sample-images"
GENERATED = 300  # photographs, where none are to be had
REPOS: dict[str, tuple[str, ...]] = {  # where data comes from that no script brings along
    "etth1": ("zhouhaoyi/ETDataset",),
    "shakespeare": ("karpathy/char-rnn",),
    "gpt2tiny": ("karpathy/char-rnn",),
    "wikitext": ("pytorch/examples",),
    "cifar10": (IMAGES,),
    "cifar100": (IMAGES,),
    "bsds": (IMAGES,),
    "imagenet10": (IMAGES,),
    "cora": ("tkipf/pygcn",),
    "planetoid": ("kimiyoung/planetoid",),
}


@dataclass(frozen=True)
class Sources:
    """Where originals may lie.

    Attributes:
        repos: the cloned repositories, each as ``owner+name``.
        data: a folder with series/ETTh1.csv.gz, text/tinyshakespeare.txt and images/*; may be absent.
    """

    repos: Path
    data: Path | None = None

    def repo(self, name: str) -> Path:
        return self.repos / name.replace("/", "+")

    def first(self, *places: Path | None) -> Path:
        """The first of these that exists."""
        for place in places:
            if place is not None and place.exists():
                return place
        raise FileNotFoundError(f"none of these is there: {', '.join(str(p) for p in places if p)}")

    def given(self, *path: str) -> Path | None:
        return self.data.joinpath(*path) if self.data else None


# -- digits ------------------------------------------------------------------------------------------------------------


def mnist(dest: Path, sources: Sources, train: int = 60000, test: int = 10000) -> str:
    """scikit-learn's digits enlarged to 28x28, turned and moved a little, in the idx format."""
    from sklearn.datasets import load_digits

    known = load_digits()
    images = (known.images * 15.9).astype(np.uint8)
    cut = len(images) * 5 // 6  # the test's digits are of other writers' hands than the training's
    raw = dest / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, n, first, last in (("train", train, 0, cut), ("t10k", test, cut, len(images))):
        rng = np.random.default_rng(n)
        chosen = rng.integers(first, last, n)
        pixels = np.stack([_vary(images[i], rng) for i in chosen])
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + pixels.tobytes())
        labels = known.target[chosen].astype(np.uint8)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels.tobytes())
    return "stand-in: scikit-learn's digits enlarged to 28x28"


def _vary(small: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    large = Image.fromarray(small).resize((20, 20), Image.Resampling.BICUBIC)
    turned = large.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BILINEAR)
    canvas = Image.new("L", (28, 28))
    canvas.paste(turned, (int(rng.integers(2, 7)), int(rng.integers(2, 7))))
    return np.asarray(canvas)


# -- photographs -------------------------------------------------------------------------------------------------------


def photos(sources: Sources) -> tuple[list[Path], str]:
    """Photographs, and what they are."""
    for folder, what in ((sources.repo(IMAGES), IMAGES), (sources.given("images"), "--data")):
        here = sorted(folder.iterdir()) if folder and folder.is_dir() else []
        if found := [p for p in here if p.suffix.lower() in (".jpg", ".jpeg")]:
            return found, f"photographs of {what}"
    made = sources.repos.parent / "data" / "generated"
    return list(_generate(made, GENERATED)), "photographs made as demo/make_photos.py makes them"


def _generate(folder: Path, n: int) -> Iterator[Path]:
    import runpy

    photo = runpy.run_path(str(Path(__file__).resolve().parents[2] / "demo" / "make_photos.py"))["photo"]
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        path = folder / f"{i:04d}.jpg"
        if not path.exists():
            photo(np.random.default_rng(i), i % 10).save(path, quality=95)
        yield path


def crops(paths: list[Path], n: int, classes: int) -> tuple[np.ndarray, list[int]]:
    """Random 32x32 crops of photographs at 96 pixels, the photograph's number giving the class.

    Returns:
        crops: (n, 3072), uint8, the three colours after each other; labels: n.
    """
    rng = np.random.default_rng(n)
    each = -(-n // len(paths))
    found: list[np.ndarray] = []
    labels: list[int] = []
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            scale = 96 / min(image.size)
            size = [max(96, round(s * scale)) for s in image.size]
            pixels = np.asarray(image.convert("RGB").resize((size[0], size[1])))
        for _ in range(each):
            y, x = (int(rng.integers(0, s - 31)) for s in pixels.shape[:2])
            found.append(pixels[y : y + 32, x : x + 32].transpose(2, 0, 1).reshape(-1))
            labels.append(number % classes)
    order = rng.permutation(len(found))[:n]
    return np.stack(found)[order], [labels[i] for i in order]


def cifar10(dest: Path, sources: Sources, train: int = 50000, test: int = 10000) -> str:
    """CIFAR-10's pickles."""
    paths, what = photos(sources)
    folder = dest / "cifar-10-batches-py"
    data, labels = crops(paths, train + test, 10)
    fifth = train // 5
    for i in range(5):
        some = slice(i * fifth, (i + 1) * fifth)
        _pickle(folder / f"data_batch_{i + 1}", {"data": data[some], "labels": labels[some]})
    _pickle(folder / "test_batch", {"data": data[train:], "labels": labels[train:]})
    _pickle(folder / "batches.meta", {"label_names": [f"class{i}" for i in range(10)]})
    return f"stand-in: 32x32 crops of {what}"


def cifar100(dest: Path, sources: Sources, train: int = 50000, test: int = 10000) -> str:
    """CIFAR-100's pickles."""
    paths, what = photos(sources)
    folder = dest / "cifar-100-python"
    data, labels = crops(paths, train + test, 100)
    _pickle(folder / "train", {"data": data[:train], "fine_labels": labels[:train]})
    _pickle(folder / "test", {"data": data[train:], "fine_labels": labels[train:]})
    _pickle(folder / "meta", {"fine_label_names": [f"class{i}" for i in range(100)]})
    return f"stand-in: 32x32 crops of {what}"


def _pickle(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def bsds(dest: Path, sources: Sources) -> str:
    """200 photographs to train on and 100 to test on, in place of BSDS300."""
    paths, what = photos(sources)
    chosen = [p for p in paths if _plain(p)][:300]
    for i, path in enumerate(chosen):
        folder = dest / ("train" if i < len(chosen) * 2 // 3 else "test")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / f"{path.stem}.jpg")
    return f"stand-in: {len(chosen)} {what}"


def _plain(path: Path) -> bool:
    with Image.open(path) as image:
        return bool(image.mode == "RGB" and min(image.size) >= 256)


def imagenet10(dest: Path, sources: Sources) -> str:
    """Nine tenths of the photographs in 10 folders to train on, the rest in 10 folders beside."""
    paths, what = photos(sources)
    for i, path in enumerate(paths):
        folder = dest / ("train" if i < len(paths) * 9 // 10 else "val") / f"class{i % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / f"{path.stem}.jpg")
    return f"{len(paths)} {what}"


# -- series, text, graphs ----------------------------------------------------------------------------------------------


def etth1(dest: Path, sources: Sources) -> str:
    """Hourly transformer load and oil temperature."""
    original = sources.repo("zhouhaoyi/ETDataset") / "ETT-small" / "ETTh1.csv"
    given = sources.given("series", "ETTh1.csv")
    _copy(sources.first(original, given, given and given.with_suffix(".csv.gz")), dest / "ETTh1.csv")
    return "ETTh1.csv of zhouhaoyi/ETDataset"


def shakespeare(dest: Path, sources: Sources) -> str:
    """Tiny Shakespeare."""
    original = sources.repo("karpathy/char-rnn") / "data" / "tinyshakespeare" / "input.txt"
    _copy(sources.first(original, sources.given("text", "tinyshakespeare.txt")), dest / "input.txt")
    return "tiny Shakespeare of karpathy/char-rnn"


def wikitext(dest: Path, sources: Sources) -> str:
    """wikitext-2's validation and test parts as training text: enough for some hundred steps."""
    folder = sources.repo("pytorch/examples") / "word_language_model" / "data" / "wikitext-2"
    (dest / "train.txt").write_bytes(b"".join((folder / f"{part}.txt").read_bytes() for part in ("valid", "test")))
    return "wikitext-2's validation and test parts as training text"


def _copy(source: Path, dest: Path) -> None:
    content = source.read_bytes()
    dest.write_bytes(gzip.decompress(content) if source.suffix == ".gz" else content)


def gpt2tiny(dest: Path, sources: Sources, vocabulary: int = 2000) -> str:
    """Tiny Shakespeare in two parts, a tokenizer trained on it, and the configuration of a small GPT-2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    shakespeare(dest, sources)
    lines = (dest / "input.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    cut = len(lines) * 9 // 10
    for part, some in (("train", lines[:cut]), ("valid", lines[cut:])):
        (dest / f"shakespeare_{part}.txt").write_text("".join(some), encoding="utf-8")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[end], initial_alphabet=alphabet)
    tokenizer.train([str(dest / "shakespeare_train.txt")], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, unk_token=end)
    fast.save_pretrained(dest / "tok")
    small = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 128, "vocab_size": vocabulary}
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "bos_token_id": 0, "eos_token_id": 0, **small}
    (dest / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return f"tiny Shakespeare of karpathy/char-rnn, a tokenizer of {vocabulary} tokens trained on it"


def cora(dest: Path, sources: Sources) -> str:
    """The citation graph as tkipf/pygcn has it; the words of the papers are made up where that file is missing."""
    folder = sources.repo("tkipf/pygcn") / "data" / "cora"
    _copy(folder / "cora.cites", dest / "cora.cites")
    content = folder / "cora.content"
    if content.exists():
        _copy(content, dest / "cora.content")
        return "Cora of tkipf/pygcn"
    cites = np.loadtxt(dest / "cora.cites", dtype=np.int64)
    (dest / "cora.content").write_text("".join(papers(np.unique(cites))), encoding="utf-8")
    return "cora.cites of tkipf/pygcn, contents made up in the same form"


def papers(ids: np.ndarray, words: int = 1433, kinds: int = 7, held: int = 18) -> Iterator[str]:
    """Lines of cora.content: number, which words occur, kind; a kind has words of its own."""
    rng = np.random.default_rng(0)
    own = rng.random((kinds, words)) ** 8 + 0.02
    own /= own.sum(1, keepdims=True)
    for number in ids:
        kind = int(rng.integers(kinds))
        occurs = np.zeros(words, dtype=np.int64)
        occurs[rng.choice(words, held, replace=False, p=own[kind])] = 1
        yield "\t".join([str(number), *map(str, occurs), f"Kind_{kind}"]) + "\n"


def planetoid(dest: Path, sources: Sources) -> str:
    """Cora in the form of kimiyoung/planetoid."""
    for path in sorted((sources.repo("kimiyoung/planetoid") / "data").glob("ind.cora.*")):
        _copy(path, dest / path.name)
    return "Cora of kimiyoung/planetoid"


MAKERS: dict[str, Callable[[Path, Sources], str]] = {
    f.__name__: f
    for f in (mnist, cifar10, cifar100, bsds, imagenet10, etth1, shakespeare, wikitext, gpt2tiny, cora, planetoid)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(MAKERS))
    parser.add_argument("dest", type=Path)
    parser.add_argument("--repos", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    args.dest.mkdir(parents=True, exist_ok=True)
    what = MAKERS[args.kind](args.dest, Sources(args.repos, args.data))
    (args.dest / "SOURCE.txt").write_text(what + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
