"""One loader, one round, in a process of its own: `python loaders.py NAME prepare|read|resume FOLDER …`. Prints JSON.

Runs in the peers' environment, which has nothing of xgen. All read windows of seq_len + 1 tokens of the same flat
file, shuffled, in batches, without workers, and hand out what they hand out: nothing is converted for them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def windows(folder: Path, size: int) -> Any:
    tokens = np.memmap(folder / "flat.bin", dtype=np.uint16, mode="r")
    return tokens[: len(tokens) // size * size].reshape(-1, size)


class Litdata:
    def prepare(self, folder: Path, size: int) -> None:
        from litdata import TokensLoader, optimize

        optimize(
            fn=litdata_tokens,
            inputs=[str(folder / "flat.bin")],
            output_dir=str(folder / "litdata"),
            chunk_size=size * 4096,
            item_loader=TokensLoader(block_size=size),
            num_workers=1,
        )

    def read(self, folder: Path, size: int, batch: int) -> Iterator[Any]:
        import torch
        from litdata import StreamingDataset, TokensLoader

        dataset = StreamingDataset(str(folder / "litdata"), item_loader=TokensLoader(block_size=size), shuffle=True)
        rows = []
        for row in dataset:
            rows.append(row)
            if len(rows) == batch:
                yield torch.stack(rows)
                rows = []

    def resume(self, folder: Path, size: int, num_samples: int) -> None:
        """At the end of what there is: its position is that of chunks it has."""
        from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

        def loader() -> Any:
            dataset = StreamingDataset(str(folder / "litdata"), item_loader=TokensLoader(block_size=size), shuffle=True)
            return StreamingDataLoader(dataset, batch_size=8, num_workers=0)

        before = loader()
        for number, _ in enumerate(before, start=1):
            if number == min(num_samples, 12_000) // 8:
                break
        state = before.state_dict()
        began = time.perf_counter()
        again = loader()
        again.load_state_dict(state)
        next(iter(again))
        raise Took(time.perf_counter() - began)


def litdata_tokens(path: str) -> Iterator[Any]:
    import torch

    tokens = np.memmap(path, dtype=np.uint16, mode="r")
    for start in range(0, len(tokens), 1 << 20):
        yield torch.from_numpy(np.array(tokens[start : start + (1 << 20)]))


class Mosaic:
    def prepare(self, folder: Path, size: int) -> None:
        from streaming import MDSWriter

        with MDSWriter(out=str(folder / "mds"), columns={"tokens": f"ndarray:uint16:{size}"}) as out:
            for row in windows(folder, size):
                out.write({"tokens": np.array(row)})

    def read(self, folder: Path, size: int, batch: int) -> Iterator[Any]:
        del size
        rows = []
        for row in self._dataset(folder, batch):
            rows.append(row["tokens"])
            if len(rows) == batch:
                yield np.stack(rows)
                rows = []

    def resume(self, folder: Path, size: int, num_samples: int) -> None:
        """Its index is a permutation of the whole epoch: as many samples as asked for, over the shards there are."""
        del size
        from streaming import StreamingDataset

        dataset = StreamingDataset(
            local=str(folder / "mds"),
            shuffle=True,
            batch_size=8,
            epoch_size=num_samples + 1000,
            sampling_method="fixed",
        )
        dataset.load_state_dict(
            {"epoch": 0, "sample_in_epoch": num_samples, "num_canonical_nodes": 1, "shuffle_seed": 9176,
             "initial_physical_nodes": 1}
        )  # fmt: skip
        next(iter(dataset))

    def _dataset(self, folder: Path, batch: int) -> Any:
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        return StreamingDataset(local=str(folder / "mds"), shuffle=True, batch_size=batch)


class Torchdata:
    """The usual map-style data set over a memory map, under the stateful loader."""

    def prepare(self, folder: Path, size: int) -> None:
        pass

    def read(self, folder: Path, size: int, batch: int) -> Iterator[Any]:
        yield from self._loader(windows(folder, size), batch)

    def resume(self, folder: Path, size: int, num_samples: int) -> None:
        rows = windows(folder, size)
        loader = self._loader(Repeated(rows, num_samples + 1000), 8)
        iterator = iter(loader)
        next(iterator)
        state = loader.state_dict()
        # Where it would be after so many samples; counting there takes hours.
        state["_sampler_iter_yielded"] = state["_num_yielded"] = num_samples // 8
        if state.get("_sampler_iter_state"):
            state["_sampler_iter_state"]["samples_yielded"] = num_samples
        began = time.perf_counter()
        again = self._loader(Repeated(rows, num_samples + 1000), 8)
        again.load_state_dict(state)
        next(iter(again))
        raise Took(time.perf_counter() - began)

    def _loader(self, rows: Any, batch: int) -> Any:
        import torch
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(
            rows, batch_size=batch, shuffle=True, num_workers=0, collate_fn=collate, generator=torch.Generator()
        )


class Took(Exception):  # noqa: N818 - a measurement that began later than its caller thinks
    pass


def collate(rows: list[Any]) -> Any:
    import torch

    return torch.from_numpy(np.stack(rows))


class Repeated:
    """As many samples as asked for, over the windows there are."""

    def __init__(self, rows: Any, length: int) -> None:
        self._rows, self._length = rows, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Any:
        return self._rows[number % len(self._rows)]


class HfDatasets:
    """Arrow on disk, shuffled by an index, as numpy."""

    def prepare(self, folder: Path, size: int) -> None:
        import pyarrow as pa
        from datasets import Dataset

        rows = windows(folder, size)
        column = pa.FixedSizeListArray.from_arrays(pa.array(np.array(rows).reshape(-1)), size)
        Dataset(pa.table({"tokens": column})).save_to_disk(str(folder / "arrow"))

    def read(self, folder: Path, size: int, batch: int) -> Iterator[Any]:
        del size
        from datasets import load_from_disk

        rows = load_from_disk(str(folder / "arrow")).shuffle(seed=1).with_format("numpy")
        for taken in rows.iter(batch_size=batch):
            yield taken["tokens"]

    def resume(self, folder: Path, size: int, num_samples: int) -> None:
        del size
        from datasets import load_from_disk

        stream = (
            load_from_disk(str(folder / "arrow")).to_iterable_dataset(num_shards=8).shuffle(seed=1, buffer_size=1000)
        )
        state = stream.state_dict()
        at = min(num_samples, 12_000)
        iterator = iter(stream)
        for _ in range(at):
            next(iterator)
        state = stream.state_dict()
        began = time.perf_counter()
        stream.load_state_dict(state)
        next(iter(stream))
        raise Took(time.perf_counter() - began)


class Numpy:
    """The floor: random windows of a memory map, stacked, and nothing else."""

    def prepare(self, folder: Path, size: int) -> None:
        pass

    def read(self, folder: Path, size: int, batch: int) -> Iterator[Any]:
        rows = windows(folder, size)
        order = np.random.default_rng(1).permutation(len(rows))
        for start in range(0, len(order) - batch + 1, batch):
            yield rows[order[start : start + batch]]

    def resume(self, folder: Path, size: int, num_samples: int) -> None:
        order = np.random.default_rng(1).permutation(num_samples + 1000)
        rows = windows(folder, size)
        rows[order[num_samples : num_samples + 8] % len(rows)].copy()


PEERS: dict[str, Any] = {
    "numpy": Numpy,
    "torchdata": Torchdata,
    "litdata": Litdata,
    "mosaic": Mosaic,
    "datasets": HfDatasets,
}


def main() -> None:
    name, what, folder, size, count = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
    peer = PEERS[name]()
    began = time.perf_counter()
    if what == "prepare":
        peer.prepare(folder, size)
        seconds = time.perf_counter() - began
    elif what == "resume":
        try:
            peer.resume(folder, size, count)
            seconds = time.perf_counter() - began
        except Took as took:
            (seconds,) = took.args
    else:
        batches = peer.read(folder, size, 8)
        next(batches)  # what is done once is not what is measured
        began, taken = time.perf_counter(), 0
        for batch in batches:
            taken += 8 * (size - 1)
            assert np.asarray(batch).shape == (8, size), np.asarray(batch).shape
            if taken >= count:
                break
        seconds = (time.perf_counter() - began) / taken * count
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
