"""Lets torchvision be imported beside any torch, and its data sets read stand-in files: lies in the venv of the corpus.

A .pth file of that venv imports it at the start of every Python, so it does nothing but wait for two imports:

- after ``torchvision.extension``, where its compiled operators could not be loaded (PyPI's wheel is built for CUDA),
  the schemas of those for which torchvision registers fakes are declared. They stay unimplemented; the scripts need
  none of them.
- after ``torchvision.datasets.cifar``, files are taken for whole when they are there: stand-ins cannot have the
  checksums of the originals.
"""

import importlib.util
import sys

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def _declare(extension):
    if not extension._has_ops():
        from torch import library

        declared = library.Library("torchvision", "FRAGMENT")
        for schema in SCHEMAS:
            declared.define(schema)
        extension._declared_here = declared  # dropped, it would take its schemas along


def _accept(cifar):
    original = cifar.check_integrity
    cifar.check_integrity = lambda path, md5=None: original(path)


class _Finder:
    waiting = {"torchvision.extension": _declare, "torchvision.datasets.cifar": _accept}  # noqa: RUF012

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        call = cls.waiting.pop(name, None)
        if call is None:
            return None
        try:
            spec = importlib.util.find_spec(name)
        finally:
            cls.waiting[name] = call  # who asks need not import
        original = spec.loader.exec_module

        def exec_module(module):
            original(module)
            call(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder)
