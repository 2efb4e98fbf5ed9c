"""Whole-batch gathers for datasets that are tensors inside: the batch that ``default_collate`` would have made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from hasten.data.meaning import Unreadable
from hasten.data.reading import read

Gather = Callable[[Sequence[Any]], Any]  # indices of a batch -> the batch, as default_collate gives it


class NotGatherable(Exception):
    """Why a dataset's batches, or this one, cannot be gathered."""


def gather_of(dataset: Any) -> Gather:
    """How to make a whole batch of ``dataset`` at once; what is called raises :class:`NotGatherable`, too.

    Serves ``TensorDataset``, torchvision's MNIST- and CIFAR-like datasets with element-wise transforms, datasets of the
    script's own that :mod:`hasten.data.reading` can read, and ``Subset`` of these, nested at will. Tensors and indices
    are looked up for every batch, since scripts replace them.

    Raises:
        NotGatherable: the dataset is of another kind.
    """
    from torch.utils.data import Subset, TensorDataset

    if type(dataset) is TensorDataset:
        return _Tensors(dataset)
    if type(dataset) is Subset:
        inner = gather_of(dataset.dataset)
        return lambda indices: inner([dataset.indices[i] for i in plain_rows(indices)])
    kind = type(dataset)
    return _Pictures(dataset) if kind.__name__ in _TORCHVISION.get(kind.__module__, ()) else _read(dataset)


def plain_rows(indices: Sequence[Any]) -> Sequence[Any]:
    """Indices as a dataset may be asked for them: numbers of Python's, if they come as a tensor."""
    import torch

    return cast(list[int], indices.tolist()) if isinstance(indices, torch.Tensor) else indices


def _plain(tensors: Sequence[Any]) -> None:
    import torch

    if any(t.device.type != "cpu" or t.layout is not torch.strided for t in tensors):
        raise NotGatherable("its tensors are not plain tensors in memory")


class _Tensors:
    """Batches of a ``TensorDataset``. Code that runs between the steps of others is in no cache, so that a call costs
    several times what it costs in a loop of its own: a usual batch takes as few as there can be.

    Raises:
        NotGatherable: its tensors are of another kind.
    """

    def __init__(self, dataset: Any) -> None:
        import torch

        _plain(dataset.tensors)
        self.dataset = dataset
        self.strided = torch.strided

    def __call__(self, indices: Sequence[Any]) -> list[Any]:
        rows = _rows(indices)
        found = []
        try:
            for tensor in self.dataset.tensors:
                if not (tensor.is_cpu and tensor.layout is self.strided and tensor.numel()):
                    return self._unusual(rows)
                found.append(tensor.index_select(0, rows))
            return found
        except IndexError:
            return self._unusual(rows)

    def _unusual(self, rows: Any) -> list[Any]:
        """Of tensors that have nothing in them any row can be had; rows may be counted from the end."""
        tensors = self.dataset.tensors
        _plain(tensors)
        rows = _within(rows, min(map(len, tensors)))
        return [t.index_select(0, rows) for t in tensors]


# module of torchvision -> classes whose __getitem__ is: picture from .data, transform; label from .targets
_TORCHVISION = {
    "torchvision.datasets.mnist": ("MNIST", "FashionMNIST", "KMNIST", "QMNIST"),
    "torchvision.datasets.cifar": ("CIFAR10", "CIFAR100"),
}


def _read(dataset: Any) -> Gather:
    """Batches of a dataset of the script's own whose ``__getitem__`` picks rows or windows out of arrays."""
    try:
        batch = read(dataset)
    except Unreadable as error:
        kind = type(dataset).__name__
        raise NotGatherable(
            f"{kind} is neither a TensorDataset nor a dataset of pictures in memory, and its samples cannot be read "
            f"from its code: {error}"
        ) from None

    def gather(indices: Sequence[Any]) -> Any:
        rows = _rows(indices)
        if rows is not indices and not set(map(type, indices)) <= {int, np.int64}:
            raise NotGatherable("its sampler gives other things than plain numbers, which the dataset may return")
        try:
            return batch(rows.numpy())
        except Unreadable as error:
            raise NotGatherable(str(error)) from None

    return gather


class _Pictures:
    """Batches of pictures. A batch takes tens of microseconds, so what follows from the dataset's settings is kept, and
    worked out anew where one of them has been replaced.

    Raises:
        NotGatherable: its pictures or transforms are of another kind.
    """

    def __init__(self, dataset: Any) -> None:
        import torch

        if type(dataset).__name__ == "QMNIST":
            raise NotGatherable("its labels are transformed")
        self.torch = torch
        self.dataset = dataset
        self._look()

    def __call__(self, indices: Sequence[Any]) -> list[Any]:
        if not self._as_it_was():
            self._look()
        rows = indices if self._numbers(indices) else _rows(indices)
        try:
            found = self._take(rows)
        except IndexError:
            found = self._take(_within(rows, self._length))
        pictures, labels = found
        for step in self._steps:
            pictures = step(pictures)
        return [pictures, labels]

    def _numbers(self, indices: Any) -> bool:
        return type(indices) is self.torch.Tensor and indices.dtype is self.torch.int64 and indices.dim() == 1

    def _as_it_was(self) -> bool:
        dataset, transform = self.dataset, self.dataset.transform
        return (
            dataset.data is self._given
            and dataset.targets is self._targets
            and transform is self._transform
            and dataset.target_transform is None
            and (self._chain is None or transform.transforms == self._chain)  # of transforms that are the same objects
            and self._data.data_ptr() == self._place
            and len(self._data) == self._length
            and self.torch.get_default_dtype() is self._dtype
        )

    def _look(self) -> None:
        dataset, torch = self.dataset, self.torch
        data = torch.as_tensor(dataset.data)
        if dataset.target_transform is not None:
            raise NotGatherable("its labels are transformed")
        if data.dtype != torch.uint8:
            raise NotGatherable("its pictures are not 8-bit")
        self._dtype = torch.get_default_dtype()
        self._steps = [_in_front(tuple(data.shape[1:])), *_element_wise(dataset.transform, self._dtype)]
        self._transform = dataset.transform
        self._chain = list(self._transform.transforms) if hasattr(self._transform, "transforms") else None
        self._given, self._data, self._targets = dataset.data, data, dataset.targets
        self._place, self._length = data.data_ptr(), len(data)
        as_int64 = isinstance(self._targets, torch.Tensor) and self._targets.dtype is torch.int64
        given = type(dataset).__module__.endswith(".cifar")  # MNIST makes integers of its labels
        self._labels = self._targets.index_select if as_int64 else lambda _, rows: _labels(self._targets, rows, given)
        self._flat = data.flatten(1) if data.dim() > 1 and data.is_contiguous() else data

    def _take(self, rows: Any) -> tuple[Any, Any]:
        return self._flat.index_select(0, rows), self._labels(0, rows)


def _in_front(shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """Rows as pictures with the channels in front."""
    if len(shape) == 2:
        return lambda x: x.view(-1, 1, *shape)
    return lambda x: x.view(-1, *shape).permute(0, 3, 1, 2).contiguous()


def _labels(targets: Any, rows: Any, given: bool) -> Any:
    """Labels as torch puts them together.

    Args:
        given: whether samples have them as they are given, not as integers.
    """
    import torch

    if isinstance(targets, torch.Tensor):
        found = targets.index_select(0, rows)
        return found if given else found.to(torch.int64)
    each = [targets[i] for i in rows.tolist()]
    if not set(map(type, each)) <= {int, np.int64}:
        raise NotGatherable("its labels are no plain numbers")
    return torch.tensor(each, dtype=torch.int64)


def _element_wise(transform: Any, dtype: Any) -> list[Callable[[Any], Any]]:
    """Batch versions of a chain of ToTensor and Normalize.

    Args:
        dtype: of the pictures that come out.

    Raises:
        NotGatherable: the chain holds anything else.
    """
    import torch

    chain = list(getattr(transform, "transforms", [transform]))
    names = [type(t).__name__ for t in chain]
    homes = {type(t).__module__ for t in chain}
    if not names or names[0] != "ToTensor" or homes != {"torchvision.transforms.transforms"}:
        raise NotGatherable("its transforms are not ToTensor and Normalize of torchvision")
    if getattr(transform, "transforms", None) is not None and type(transform).__name__ != "Compose":
        raise NotGatherable("its transforms are not a plain Compose")
    to_dtype = torch.Tensor.float if dtype is torch.float32 else lambda x: x.to(dtype)  # the first is parsed faster
    steps: list[Callable[[Any], Any]] = [lambda x: to_dtype(x).div_(255)]  # of a copy: x is uint8
    for stage, name in zip(chain[1:], names[1:], strict=True):
        if name != "Normalize":
            raise NotGatherable(f"{name} is not element-wise")
        steps.append(_normalize(stage))
    return steps


def _normalize(stage: Any) -> Callable[[Any], Any]:
    import torch

    def normalize(x: Any) -> Any:
        mean = torch.as_tensor(stage.mean, dtype=x.dtype)
        std = torch.as_tensor(stage.std, dtype=x.dtype)
        mean = mean.view(-1, 1, 1) if mean.dim() == 1 else mean
        std = std.view(-1, 1, 1) if std.dim() == 1 else std
        return x.sub_(mean).div_(std)

    return normalize


def _rows(indices: Sequence[Any]) -> Any:
    """Indices of a batch as an int64 tensor of rows; whether there are such rows is for the gather to find out.

    Raises:
        NotGatherable: they are not plain row numbers.
    """
    import torch

    if isinstance(indices, torch.Tensor) and indices.dtype is torch.int64 and indices.dim() == 1:
        return indices
    if type(indices) is list and indices and type(indices[0]) is int:
        array = np.array(indices)  # torch takes five times as long
        if array.dtype == np.int64 and array.ndim == 1:
            return torch.from_numpy(array)
    try:
        rows = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError):
        raise NotGatherable("its sampler gives no row numbers") from None
    if rows.dim() != 1 or rows.dtype not in (torch.int64, torch.int32):
        raise NotGatherable("its sampler gives no row numbers")
    return rows.to(torch.int64)


def _within(rows: Any, length: int) -> Any:
    """Rows counted from the start; ``index_select`` knows no others, and says so.

    Raises:
        NotGatherable: a row beyond the dataset.
    """
    import torch

    if bool(((rows < -length) | (rows >= length)).any()):
        raise NotGatherable("a row beyond the dataset")
    return torch.where(rows < 0, rows + length, rows)
