"""Lays out other people's scripts for bench/public_scripts.py: code, data, interpreter, faster copies, manifest.

    python bench/corpus.py DIR
    python bench/public_scripts.py --manifest DIR/manifest.json

Clones each repository at its commit (or takes it from --mirror), makes the data (corpus_parts/standins.py) and a venv
over this interpreter's torch, edits a copy of each script as somebody would who makes it faster by hand
(corpus_parts/scripts.toml and by_hand.py), and lists it all in DIR/manifest.json. What is there already is kept, so it
may be called again, for more scripts or after a failure.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = ROOT / "bench" / "corpus_parts"
VENV, NUMPY1 = "venv", "venv-numpy1"
KEPT = ("seeded", "budget", "least_steps", "prints_samples", "by_hand", "how")  # go into the manifest as they are


class Failed(Exception):
    """One script cannot be laid out; the others can."""


@dataclass(frozen=True)
class Recipe:
    """An entry of scripts.toml, where its keys are explained."""

    name: str
    repo: str
    folder: str
    run: str
    data: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    prepare: str = ""
    venv: str = ""
    env: dict[str, str] = field(default_factory=dict)
    edits: list[list[Any]] | None = None
    pages: bool = False
    by_hand_run: str = ""
    tree: str = ""
    rest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Recipe:
        rest = {key: entry[key] for key in KEPT if key in entry}
        return cls(**{key: value for key, value in entry.items() if key not in KEPT}, rest=rest)

    def kinds(self) -> list[str]:
        """What data it wants, by the names of the makers."""
        return list(dict.fromkeys([*(path.split("/")[0] for path in self.data.values()), *self.needs]))


def load() -> tuple[list[Recipe], dict[str, str], dict[str, list[str]]]:
    """Recipes, commits of the repositories, packages."""
    content = tomllib.loads((PARTS / "scripts.toml").read_text(encoding="utf-8"))
    return [Recipe.of(e) for e in content["script"]], content["commits"], content["packages"]


def say(text: str) -> None:
    print(text, flush=True)


def call(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end.

    Raises:
        Failed: with the last lines that it wrote, if it fails.
    """
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        last = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise Failed(f"{' '.join(str(c) for c in command[:4])} … ended with {done.returncode}:\n    {last}")
    return done


# -- repositories ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repositories:
    """The repositories at their commits.

    Attributes:
        mirror: a folder of git directories, each below ``owner+name``; None takes them from GitHub.
    """

    folder: Path
    commits: dict[str, str]
    mirror: Path | None = None

    def get(self, name: str) -> Path:
        """Its files; made unless they are there."""
        dest = self.folder / name.replace("/", "+")
        mark = dest / ".corpus-commit"
        if not mark.exists():
            shutil.rmtree(dest, ignore_errors=True)
            dest.mkdir(parents=True)
            commit = self._mirrored(name, dest) if self.mirror else self._cloned(name, dest)
            mark.write_text(commit, encoding="utf-8")
        return dest

    def commit(self, name: str) -> str:
        """That of the files, which a mirror may have another of than asked for."""
        return (self.get(name) / ".corpus-commit").read_text(encoding="utf-8")

    def _cloned(self, name: str, dest: Path) -> str:
        commit = self.commits[name]
        say(f"  cloning {name} at {commit[:12]}")
        call("git", "init", "--quiet", dest)
        call("git", "-C", dest, "fetch", "--quiet", "--depth", "1", f"https://github.com/{name}", commit)
        call("git", "-C", dest, "checkout", "--quiet", "FETCH_HEAD")
        return commit

    def _mirrored(self, name: str, dest: Path) -> str:
        assert self.mirror
        below = (self.mirror / name.replace("/", "+")).rglob("HEAD")
        git = next(
            (p.parent for p in sorted(below, key=lambda p: len(p.parts)) if (p.parent / "objects").is_dir()), None
        )
        if git is None:
            raise Failed(f"{self.mirror} has no git directory of {name}")
        commit = self.commits[name]
        if subprocess.run(["git", "-C", git, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True).returncode:
            commit = call("git", "-C", git, "rev-parse", "HEAD").stdout.strip()
            say(f"  {name}: the mirror has {commit[:12]} only, not {self.commits[name][:12]}")
        absent = export(git, commit, dest)
        say(f"  {name} at {commit[:12]}" + (f"; not in the mirror: {', '.join(absent)}" if absent else ""))
        return commit


def export(git: Path, commit: str, dest: Path) -> list[str]:
    """Write a commit's files, one by one: a mirror may lack the largest.

    Returns:
        the paths of those that it lacks.
    """
    absent = []
    listed = call("git", "-C", git, "ls-tree", "-r", "-z", commit).stdout
    with subprocess.Popen(
        ["git", "-C", str(git), "cat-file", "--batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "GIT_NO_LAZY_FETCH": "1"},
    ) as batch:
        assert batch.stdin and batch.stdout
        for line in filter(None, listed.split("\0")):
            (mode, kind, sha), path = line.split("\t")[0].split(), line.split("\t", 1)[1]
            if kind != "blob":
                continue
            batch.stdin.write(f"{sha}\n".encode())
            batch.stdin.flush()
            header = batch.stdout.readline().split()
            if header[-1] == b"missing":
                absent.append(path)
                continue
            content = batch.stdout.read(int(header[-1]) + 1)[:-1]
            _write(dest / path, mode, content)
    return absent


def _write(path: Path, mode: str, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "120000":
        path.symlink_to(content.decode())
        return
    path.write_bytes(content)
    if mode == "100755":
        path.chmod(0o755)


# -- interpreters ------------------------------------------------------------------------------------------------------


def make_venvs(folder: Path, packages: dict[str, list[str]], numpy1: bool) -> None:
    """Environments over this interpreter's torch, and over hasten as it is in this checkout."""
    place = "import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1]); print(torch.__version__)"
    site, version = call(sys.executable, "-c", place).stdout.split()
    same = folder / "constraints.txt"
    same.write_text(f"torch=={version.split('+')[0]}\n", encoding="utf-8")
    below = [str(ROOT / "src"), site]
    common = ["--constraint", str(same), *packages["common"]]
    lib = _venv(folder / VENV, below, [common, ["--no-deps", *packages["alone"]]])
    if numpy1:
        _venv(folder / NUMPY1, [str(lib), *below], [["--no-deps", *packages["numpy1"]]])
    if (lib / "torch").exists():
        raise SystemExit(f"{lib} got a torch of its own: the scripts would not run with the one under test")


def _venv(venv: Path, below: list[str], installs: list[list[str]]) -> Path:
    """Make it unless it is there; what ``below`` names is importable, too.

    Returns:
        its site-packages.
    """
    python = venv / "bin" / "python"
    if not python.exists():
        say(f"== {venv}")
        call(sys.executable, "-m", "venv", venv)
    lib = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    shutil.copyfile(PARTS / "corpus_site.py", lib / "corpus_site.py")
    (lib / "corpus.pth").write_text("\n".join(["import corpus_site", *below, ""]), encoding="utf-8")
    mark = venv / ".installed"
    wanted = json.dumps(installs)
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        for install in installs:
            call(python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *install)
        mark.write_text(wanted, encoding="utf-8")
    return lib


# -- data --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """The data, made by the venv's interpreter, which has what that takes."""

    folder: Path
    repositories: Repositories
    python: Path
    given: Path | None

    def get(self, kind: str) -> str:
        """What it is; made unless it is there."""
        told = self.folder / kind / "SOURCE.txt"
        if not told.exists():
            say(f"  data: {kind}")
            self._sources(kind)
            options = ["--data", str(self.given)] if self.given else []
            repos = self.repositories.folder
            call(self.python, PARTS / "standins.py", kind, self.folder / kind, "--repos", repos, *options)
        return told.read_text(encoding="utf-8").strip()

    def _sources(self, kind: str) -> None:
        """Repositories of originals; where one cannot be had, the maker looks elsewhere."""
        found = call(self.python, "-c", "import json, standins; print(json.dumps(standins.REPOS))", cwd=PARTS).stdout
        for name in json.loads(found).get(kind, ()):
            try:
                self.repositories.get(name)
            except Failed as failed:
                say(f"  {failed}")

    def lay(self, recipe: Recipe, folder: Path) -> None:
        """Link it to where the script looks for it, seen from its folder."""
        for path, what in recipe.data.items():
            link = Path(os.path.normpath(folder / path))
            target = self.folder / what
            if link.is_symlink() or link.is_file():
                link.unlink()
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target, target_is_directory=target.is_dir())


# -- faster copies -----------------------------------------------------------------------------------------------------


def edit(recipe: Recipe, repo: Path, dest: Path) -> Path:
    """Copy the script's Python files, and exchange a few words in them.

    Returns:
        the copy of the script's folder.

    Raises:
        Failed: if a file does not hold what is to be exchanged as often as the recipe says.
    """
    tree = recipe.tree or recipe.folder
    shutil.rmtree(dest, ignore_errors=True)
    for path in sorted((repo / tree).rglob("*.py")):
        if path.is_file():
            copy = dest / path.relative_to(repo)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    shutil.copyfile(PARTS / "by_hand.py", dest / "by_hand.py")
    home = dest / recipe.folder
    script = recipe.run.split()[0]
    texts = {(home / script): (home / script).read_text(encoding="utf-8")}
    for name, old, new, *often in recipe.edits or []:
        path = next((p for p in (home / name, dest / tree / name) if p.exists()), home / name)
        text = texts.get(path) or path.read_text(encoding="utf-8")
        if text.count(old) != (often[0] if often else 1):
            raise Failed(f"{recipe.name}: {name} holds {old!r} {text.count(old)} times")
        texts[path] = text.replace(old, new)
    for path, text in texts.items():
        extra = "; by_hand.keep_pages()" if recipe.pages and path == home / script else ""
        path.write_text(with_import(text, dest, extra), encoding="utf-8")
    return home


def with_import(text: str, folder: Path, extra: str = "") -> str:
    """The source with ``by_hand`` imported from the folder, after its docstring and what it imports from __future__."""
    line = f"import sys; sys.path.insert(0, {str(folder)!r}); import by_hand{extra}"
    body = ast.parse(text).body
    first = 0
    for i, node in enumerate(body):
        docstring = i == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not docstring and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            break
        first = node.end_lineno or 0
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:first], line + "\n", *lines[first:]])


# -- the corpus --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """All of it, in one folder."""

    folder: Path
    repositories: Repositories
    data: Data

    def add(self, recipe: Recipe) -> dict[str, Any]:
        """Lay out one script; its entry of the manifest."""
        repo = self.repositories.get(recipe.repo)
        home = repo / recipe.folder
        what = {kind: self.data.get(kind) for kind in recipe.kinds()}
        self.data.lay(recipe, home)
        python = self.folder / (NUMPY1 if recipe.venv == "numpy1" else VENV) / "bin" / "python"
        prepared = home / f".prepared-{recipe.name}"
        if recipe.prepare and not prepared.exists():
            call(python, recipe.prepare, cwd=home, env={**os.environ, **self._filled(recipe.env, repo)})
            prepared.touch()
        entry: dict[str, Any] = {
            "name": recipe.name,
            "repo": recipe.repo,
            "commit": self.repositories.commit(recipe.repo),
            "cwd": str(home.resolve()),
            "argv": self._argv(recipe.run, repo),
            "python": str(python),
            "env": self._filled(recipe.env, repo),
            "data": what,
            **recipe.rest,
        }
        if recipe.edits is not None:
            copy = edit(recipe, repo, self.folder / "by-hand" / recipe.name)
            self.data.lay(recipe, copy)
            script, *args = self._argv(recipe.by_hand_run or recipe.run, repo)
            entry["by_hand_argv"] = [str(copy / script), *args]
        return entry

    def _argv(self, run: str, repo: Path) -> list[str]:
        return [self._fill(word, repo) for word in run.split()]

    def _filled(self, env: dict[str, str], repo: Path) -> dict[str, str]:
        return {key: self._fill(value, repo) for key, value in env.items()}

    def _fill(self, word: str, repo: Path) -> str:
        places = {"data": self.folder / "data", "out": self.folder / "out", "repo": repo, "parts": PARTS}
        for name, path in {**places, "path": os.environ["PATH"]}.items():
            word = word.replace(f"{{{name}}}", str(path))
        return word

    def write(self, entries: list[dict[str, Any]], order: list[str]) -> Path:
        """The manifest; scripts that were laid out before stay in it."""
        path = self.folder / "manifest.json"
        known = {e["name"]: e for e in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}
        known.update({e["name"]: e for e in entries})
        listed = [known[name] for name in order if name in known]
        path.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
        return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--mirror", type=Path, metavar="FOLDER", help="of git directories, each below owner+name")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="that holds series/, text/ or images/ (standins.py)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of scripts; all unless given")
    args = parser.parse_args()
    recipes, commits, packages = load()
    wanted = [r for r in recipes if not args.only or r.name in args.only]
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    make_venvs(folder, packages, any(r.venv == "numpy1" for r in wanted))
    repositories = Repositories(folder / "repos", commits, args.mirror and args.mirror.resolve())
    given = args.data and args.data.resolve()
    data = Data(folder / "data", repositories, folder / VENV / "bin" / "python", given)
    corpus = Corpus(folder, repositories, data)
    entries, failures = [], 0
    for recipe in wanted:
        try:
            entries.append(corpus.add(recipe))
            say(f"{recipe.name}: laid out")
        except Failed as failed:
            failures += 1
            say(f"{recipe.name}: left out: {failed}")
    say(f"{len(entries)} scripts listed in {corpus.write(entries, [r.name for r in recipes])}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
