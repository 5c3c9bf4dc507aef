"""Files from strangers: what is allowed is read as torch reads it; everything else is refused, and nothing is run."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from priorpaint.errors import CheckpointError
from priorpaint.priors.readers.edm_tree import VOCABULARY as EDM
from priorpaint.priors.readers.training_words import TRAINING
from priorpaint.priors.readers.untrusted import reading as safe
from priorpaint.priors.readers.untrusted.pickle_machine import Machine, Vocabulary
from priorpaint.priors.readers.untrusted.pickle_values import TENSORS, NumpyArray
from tests.priors.readers.small_files import damaged, filled, images, windowed

CONTAINERS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def same(actual: Any, wanted: Any) -> None:
    if isinstance(wanted, Tensor):
        assert actual.dtype == wanted.dtype
        assert actual.shape == wanted.shape
        torch.testing.assert_close(actual, wanted.detach().cpu(), rtol=0, atol=0, equal_nan=True)
    elif isinstance(wanted, dict):
        assert list(actual) == list(wanted)
        for key in wanted:
            same(actual[key], wanted[key])
    elif isinstance(wanted, (list, tuple)):
        assert len(actual) == len(wanted)
        for one, other in zip(actual, wanted, strict=True):
            same(one, other)
    else:
        assert actual == wanted


def contents() -> dict[str, Any]:
    base = images(6, 8)
    return {
        "float": base,
        "window": base[2:4, 1:5],
        "transposed": base.T,
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "double": base.double(),
        "long": torch.arange(5),
        "int": torch.arange(5, dtype=torch.int32),
        "truth": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "parameter": nn.Parameter(torch.ones(2)),
        "module": filled(nn.Linear(2, 3)).state_dict(),
        "plain": [1, -7, 2**40, 3.5, True, None, "text", (1, 2, 3, 4), {"a": {"b": []}}],
        "type": torch.float16,
        "shape": torch.Size([1, 2]),
        "set": {1, 2},
    }


class TestWhatIsRead:
    @CONTAINERS
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_everything_that_weights_are_made_of_comes_back_as_torch_wrote_it(
        self, tmp_path: Path, zipped: bool, protocol: int
    ) -> None:
        path = tmp_path / "a.pt"
        torch.save(contents(), path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
        same(safe.load_torch(path), contents())

    @CONTAINERS
    def test_windows_of_one_storage_may_be_larger_than_the_file(self, tmp_path: Path, zipped: bool) -> None:
        base = images(1000)
        state = {f"w{i}": base[i : i + 900].view(30, 30) for i in range(50)}
        path = tmp_path / "a.pt"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        assert sum(value.nbytes for value in state.values()) > 10 * path.stat().st_size
        same(safe.load_torch(path), state)

    def test_a_file_without_checksums_is_read(self, tmp_path: Path) -> None:
        torch.serialization.set_crc32_options(False)
        try:
            torch.save({"a": images(3)}, tmp_path / "a.pt")
        finally:
            torch.serialization.set_crc32_options(True)
        same(safe.load_torch(tmp_path / "a.pt"), {"a": images(3)})

    def test_memory_of_the_file_is_private(self, tmp_path: Path) -> None:
        path = tmp_path / "a.pt"
        torch.save({"a": torch.ones(4)}, path)
        before = path.read_bytes()
        safe.load_torch(path)["a"].zero_()
        assert path.read_bytes() == before

    def test_what_trainers_leave_is_inert(self, tmp_path: Path) -> None:
        """numpy values become numbers; classes of a trainer stay names; without TRAINING they are refused."""
        path = tmp_path / "a.ckpt"
        torch.save({"best": np.float64(0.5), "array": np.arange(6.0).reshape(2, 3), "state": {"w": images(2)}}, path)
        actual = safe.load_torch(path, vocabulary=TRAINING)
        assert actual["best"] == 0.5
        assert isinstance(actual["array"], NumpyArray)
        np.testing.assert_array_equal(actual["array"].value, np.arange(6.0).reshape(2, 3))
        callback = b"\x80\x02}cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\nK\x01s."
        actual = Machine(memoryview(callback), TRAINING).run()
        assert [str(name) for name in actual] == ["pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"]
        with pytest.raises(CheckpointError, match="ModelCheckpoint"):
            Machine(memoryview(callback), TENSORS).run()

    def test_safetensors(self, tmp_path: Path) -> None:
        state = {"a": images(2, 3), "b": images(2).half()}
        save_file(state, tmp_path / "a.safetensors")
        same(dict(sorted(safe.load_safetensors(tmp_path / "a.safetensors")[0].items())), state)


class Call:
    """Pickles as a call."""

    def __init__(self, what: Any, *args: Any) -> None:
        self.what, self.args = what, args

    def __reduce__(self) -> Any:
        return self.what, self.args


def hostile_pickles() -> dict[str, bytes]:
    """Programs that a careless unpickler runs; each says with which names it does so."""
    marker = b"X\x04\x00\x00\x00true"
    return {
        "system": b"\x80\x02cos\nsystem\n" + marker + b"\x85R.",
        "eval": b"\x80\x02cbuiltins\neval\n" + marker + b"\x85R.",
        "getattr": b"\x80\x02cbuiltins\ngetattr\n" + marker + marker + b"\x86R.",
        "dotted": b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93" + marker + b"\x85R.",
        "dotted trainer": b"\x80\x04\x8c\x08argparse\x8c\x0a_sys.\xc3\xa9xit\x93.",
        "inst": b"(" + marker + b"ios\nsystem\n.",
        "obj": b"(cos\nsystem\n" + marker + b"o.",
        "extension": b"\x80\x02\x82\x01.",
        "build on a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x0c\x00\x00\x00__defaults__Nsb.",
        "call of a value": b"\x80\x02X\x04\x00\x00\x00true)R.",
        "new object of a function": b"\x80\x02cos\nsystem\n" + marker + b"\x85\x81.",
        "load": b"\x80\x02ctorch\nload\n" + marker + b"\x85R.",
        "named storage": b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x01a\x85R.",
    }


class TestWhatIsRefused:
    @pytest.mark.parametrize("name", list(hostile_pickles()))
    @pytest.mark.parametrize("vocabulary", [TENSORS, TRAINING], ids=["tensors", "training"])
    def test_programs(self, tmp_path: Path, name: str, vocabulary: Vocabulary) -> None:
        """In a zip container and alone: refused by name, in one sentence."""
        program = hostile_pickles()[name]
        for path in (tmp_path / "a.pt", tmp_path / "b.pt"):
            if path.stem == "a":
                with zipfile.ZipFile(path, "w") as archive:
                    archive.writestr("a/data.pkl", program)
            else:
                path.write_bytes(program)
            with pytest.raises(CheckpointError, match=str(path)):
                safe.load_torch(path, vocabulary=vocabulary)
            with pytest.raises(CheckpointError, match=str(path)):
                safe.load_pickle(path, EDM, "a pickle")

    @CONTAINERS
    def test_a_call_is_named_and_not_made(self, tmp_path: Path, zipped: bool) -> None:
        touched = tmp_path / "made"
        path = tmp_path / "a.pt"
        hostile = {"w": images(2), "x": Call(Path.touch, touched)}
        torch.save(hostile, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=r"pathlib|getattr"):
            safe.load_torch(path, vocabulary=TRAINING)
        assert not touched.exists()

    def test_whole_modules_and_programs_of_torch(self, tmp_path: Path) -> None:
        torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
        with pytest.raises(CheckpointError, match="torch.nn.modules.linear.Linear"):
            safe.load_torch(tmp_path / "module.pt")
        with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
            archive.writestr("s/data.pkl", b"\x80\x02N.")
            archive.writestr("s/constants.pkl", b"\x80\x02N.")
        with pytest.raises(CheckpointError, match="TorchScript"):
            safe.load_torch(tmp_path / "script.pt")

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "an empty file"),
            (b"<!DOCTYPE html>\n<html></html>", "a web page"),
            (b"\n  <HTML><body>", "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
            (b'{"error": "not found"}', "JSON"),
            (b"\x1f\x8b\x08\x00rest", "gzip"),
            (b"Entry not found", "a text that begins 'Entry not found'"),
            (b"\x89PNG\r\n\x1a\n", "a picture"),
            (bytes([200, 3, 77, 9]), "unknown kind"),
        ],
    )
    def test_what_is_no_checkpoint_is_named(self, tmp_path: Path, data: bytes, words: str) -> None:
        path = tmp_path / "a.pt"
        path.write_bytes(data)
        for load in (safe.load_torch, lambda p: safe.load_pickle(p, EDM, "a pickle"), safe.load_safetensors):
            with pytest.raises(CheckpointError, match=words):
                load(path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="there is no file"):
            safe.load_torch(tmp_path / "a.pt")

    def test_a_plain_pickle_is_no_file_of_torch(self, tmp_path: Path) -> None:
        (tmp_path / "a.pt").write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(CheckpointError, match="a pickle of dict"):
            safe.load_torch(tmp_path / "a.pt")


def zip_of(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return out.getvalue()


def tensor_pickle(shape: tuple[int, ...], stride: tuple[int, ...], count: int, offset: int = 0) -> bytes:
    """A pickle of one tensor with this shape on a storage of this many floats."""

    class Reference:
        pass

    class Writer(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(value, Reference) else None

    class Rebuilt:
        def __reduce__(self) -> Any:
            from torch._utils import _rebuild_tensor_v2

            return _rebuild_tensor_v2, (Reference(), offset, shape, stride, False, OrderedDict())

    out = io.BytesIO()
    Writer(out, protocol=2).dump({"w": Rebuilt()})
    return out.getvalue()


class TestSizes:
    @pytest.mark.parametrize(
        ("shape", "stride", "offset"),
        [
            ((1 << 20, 1 << 19), (0, 0), 0),
            ((4, 4), (1, 1), 0),
            ((5,), (1,), 0),
            ((4,), (1,), 1),
            ((2,), (4,), 0),
            ((2,), (-1,), 3),
            ((-2,), (1,), 0),
            ((1 << 62, 1 << 62), (0, 0), 0),
            ((0, 1 << 62), (0, 0), 0),
            ((2, 2), (1,), 0),
        ],
    )
    def test_a_tensor_stays_inside_its_storage(
        self, tmp_path: Path, shape: tuple[int, ...], stride: tuple[int, ...], offset: int
    ) -> None:
        records = {"a/data.pkl": tensor_pickle(shape, stride, 4, offset), "a/data/0": bytes(16)}
        (tmp_path / "a.pt").write_bytes(zip_of(records))
        with pytest.raises(CheckpointError, match="a.pt"):
            safe.load_torch(tmp_path / "a.pt")

    def test_the_same_file_with_a_tensor_that_fits_is_read(self, tmp_path: Path) -> None:
        data = images(4).numpy().tobytes()
        (tmp_path / "a.pt").write_bytes(zip_of({"a/data.pkl": tensor_pickle((2, 2), (2, 1), 4), "a/data/0": data}))
        torch.testing.assert_close(safe.load_torch(tmp_path / "a.pt")["w"].flatten(), images(4))

    def test_a_compressed_record_is_refused(self, tmp_path: Path) -> None:
        records = {"a/data.pkl": tensor_pickle((4,), (1,), 4), "a/data/0": bytes(16)}
        (tmp_path / "a.pt").write_bytes(zip_of(records, zipfile.ZIP_DEFLATED))
        with pytest.raises(CheckpointError, match="compressed record"):
            safe.load_torch(tmp_path / "a.pt")

    def test_overlapping_records_are_refused(self, tmp_path: Path) -> None:
        data = bytearray(zip_of({"a/data.pkl": tensor_pickle((4,), (1,), 4), "a/data/0": bytes(16), "a/data/1": b""}))
        entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
        data[entries[2] + 42 : entries[2] + 46] = data[entries[1] + 42 : entries[1] + 46]
        (tmp_path / "a.pt").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"overlaps|damaged"):
            safe.load_torch(tmp_path / "a.pt")

    @pytest.mark.parametrize("count", [3, 5, 1 << 40])
    def test_a_storage_has_the_size_that_it_says(self, tmp_path: Path, count: int) -> None:
        records = {"a/data.pkl": tensor_pickle((4,), (1,), count), "a/data/0": bytes(16)}
        (tmp_path / "a.pt").write_bytes(zip_of(records))
        with pytest.raises(CheckpointError, match="a.pt"):
            safe.load_torch(tmp_path / "a.pt")

    def test_the_sum_of_the_tensors_has_a_limit(self, tmp_path: Path) -> None:
        torch.save({"a": images(100), "b": images(100)}, tmp_path / "a.pt")
        safe.load_torch(tmp_path / "a.pt", max_bytes=800)
        with pytest.raises(CheckpointError, match="at most"):
            safe.load_torch(tmp_path / "a.pt", max_bytes=799)

    def test_small_programs_take_little_time_and_memory(self, tmp_path: Path) -> None:
        """Read in a process of its own with a limit of memory, and against the clock."""
        programs = [
            b"\x80\x04\x96\x00\x00\x00\x00\x00\x01\x00\x00.",  # BYTEARRAY8 of 2^40 bytes
            b"\x80\x04\x8e\x00\x00\x00\x00\x00\x01\x00\x00.",  # BINBYTES8
            b"\x80\x02X\xff\xff\xff\xff.",
            b"\x80\x02\x8b\xff\xff\xff\x7f.",  # LONG4
            b"\x80\x02Nr\xff\xff\xff\xff.",  # a memo of four thousand million places
            b"\x80\x02" + b"(" * 1_000_000,
            b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
            b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",  # a key of 2^60 parts
            b"\x80\x02(" + b"N" * 100_000 + b"(1" * 100_000 + b"t.",
        ]
        code = """
            import resource, sys, time
            from pathlib import Path
            from priorpaint.priors.readers.edm_tree import VOCABULARY as EDM
            from priorpaint.priors.readers.untrusted import reading as safe
            from priorpaint.errors import CheckpointError
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
            for path in sorted(Path(sys.argv[1]).iterdir()):
                began = time.process_time()
                try:
                    safe.load_pickle(path, EDM, "a pickle")
                except CheckpointError:
                    pass
                assert time.process_time() - began < 5, path
            print("done")
        """
        for index, program in enumerate(programs):
            (tmp_path / f"{index}.pkl").write_bytes(program)
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert run.stdout == "done\n", run.stderr


class TestDamage:
    @CONTAINERS
    def test_every_truncation_is_refused(self, tmp_path: Path, zipped: bool) -> None:
        path = tmp_path / "a.pt"
        torch.save({"a": images(20), "b": images(3, 3).half()}, path, _use_new_zipfile_serialization=zipped)
        data = path.read_bytes()
        for length in sorted({0, 1, 2, 3, 4, 40, 200, *range(64, len(data) - 1, 61), len(data) - 1}):
            path.write_bytes(data[:length])
            with pytest.raises(CheckpointError, match=r"incomplete|damaged|not a checkpoint"):
                safe.load_torch(path)

    def test_every_changed_bit_of_a_zip_is_noticed(self, tmp_path: Path) -> None:
        """Checksums: what comes back is what was written, or nothing."""
        path = tmp_path / "a.pt"
        state = {"a": images(200), "b": images(30, 30)}
        torch.save(state, path)
        read = 0
        for data in damaged(path.read_bytes(), seed=0, count=150):
            path.write_bytes(data)
            try:
                actual = safe.load_torch(path)
            except CheckpointError:
                continue
            read += 1
            same(actual, state)
        assert read < 75

    def test_changed_bits_of_the_legacy_container(self, tmp_path: Path) -> None:
        """It has no checksums: refused, or tensors; never another error."""
        path = tmp_path / "a.pt"
        torch.save({"a": images(20), "b": images(3, 3)}, path, _use_new_zipfile_serialization=False)
        refused = 0
        for data in damaged(path.read_bytes(), seed=1, count=300):
            path.write_bytes(data)
            try:
                safe.load_torch(path)
            except CheckpointError as error:
                refused += 1
                assert str(path) in str(error)
        assert refused > 30

    def test_safetensors(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        save_file({"a": images(20)}, path)
        data = path.read_bytes()
        for length in (4, 9, 30, len(data) - 1):
            path.write_bytes(data[:length])
            with pytest.raises(CheckpointError):
                safe.load_safetensors(path)
        path.write_bytes(struct.pack("<Q", 1 << 40) + data[8:])
        with pytest.raises(CheckpointError, match="header too large"):
            safe.load_safetensors(path)
        header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(CheckpointError, match="incomplete"):
            safe.load_safetensors(path)
        for changed in damaged(data, seed=2, count=60):
            path.write_bytes(changed)
            try:
                safe.load_safetensors(path)
            except CheckpointError:
                continue


class TestFit:
    PATH = Path("folder/a.pt")

    def test_names_and_shapes_are_named(self) -> None:
        network = nn.Linear(2, 3)
        safe.check_fit(network.state_dict(), network, self.PATH)
        with pytest.raises(CheckpointError, match=r"missing: bias.*not part of it: other"):
            safe.check_fit({"weight": torch.ones(3, 2), "other": torch.ones(1)}, network, self.PATH)
        with pytest.raises(CheckpointError, match=r"weight \(expected \(3, 2\), found \(2, 3\)\)"):
            safe.check_fit({"weight": torch.ones(2, 3), "bias": torch.ones(3)}, network, self.PATH)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite_are_named(self, value: float) -> None:
        with pytest.raises(CheckpointError, match="weight"):
            safe.check_finite({"bias": torch.ones(2), "weight": torch.tensor([1.0, value])}, self.PATH)

    def test_assemble_copies_and_draws_nothing(self) -> None:
        """From windows of half floats to a network of its own, and the global generator stays where it was."""
        before = torch.get_rng_state()
        state = windowed({"weight": images(3, 2).half(), "bias": images(3).half()})
        network = safe.assemble(
            lambda: nn.Linear(2, 3), state, self.PATH, device=torch.device("cpu"), dtype=torch.float32
        )
        state["weight"].zero_()
        torch.testing.assert_close(network.get_parameter("weight"), images(3, 2).half().float())
        assert not any(weight.requires_grad for weight in network.parameters())
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_network_that_exceeds_the_memory_is_refused_before_it_is_made(self) -> None:
        state = {"weight": torch.ones(1).expand(1 << 21, 1 << 21)}
        with pytest.raises(CheckpointError, match="memory"):
            safe.assemble(
                lambda: nn.Linear(1 << 21, 1 << 21, bias=False),
                state,
                self.PATH,
                device=torch.device("cpu"),
                dtype=torch.float32,
            )
