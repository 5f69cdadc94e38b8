"""Tiny models of every family, checkpoints on disk, and a hub that is a folder."""

import hashlib
import os

import tests.typechecker  # noqa: F401 (before rcm, which it checks)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import hypothesis
import pytest
import torch
from omegaconf import OmegaConf

from rcm.errors import InputError
from rcm.models import LoadedModel
from rcm.models.gguf import PackagedGguf
from rcm.models.random import Random
from tests.wandb_server import KEY, WandbServer

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)  # tensors this small gain nothing from threads, and wait long for them on a busy machine

for name, draws in (("hundred", 100), ("thousand", 1000)):  # --hypothesis-profile=thousand
    hypothesis.settings.register_profile(name, max_examples=draws, derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("hundred")

SIZE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 256}
GATED = {"intermediate_size": 64, "num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "qwen2": GATED,
    "qwen3": GATED | {"head_dim": 8},
    "mistral": GATED,
    "gemma": GATED | {"head_dim": 8},
    "gemma2": GATED | {"head_dim": 8},
    "gemma3_text": GATED | {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "phi": {"intermediate_size": 64},
    "phi3": GATED,
    "olmo2": GATED,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "stablelm": GATED,
    "gpt2": {"n_inner": 64},
    "gpt_neox": {"intermediate_size": 64},
}
CHAT = (
    "<bos>{% for m in messages %}[{{ m.role }}] {{ m.content }} [/{{ m.role }}]\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
Tiny = Callable[..., LoadedModel]
# What a model's settings need, and most tests do not.
UNSET: dict[str, Any] = dict.fromkeys(
    ("family", "stage", "quantization", "attn_implementation", "adapter", "refusal_tokens")
)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Every architecture that rcm is tested on."""
    return request.param


@pytest.fixture
def tiny() -> Tiny:
    """`tiny(family, template=..., batch_size=..., **size)`: three layers, bytes for tokens, attention that looks."""
    return tiny_model


def tiny_model(
    architecture: str = "llama", *, template: str | None = CHAT, batch_size: int = 3, seed: int = 0, **size: Any
) -> LoadedModel:
    settings = Random(
        architecture=architecture,
        size={**SIZE, **FAMILIES[architecture], **size},
        seed=seed,
        family="tiny",
        stage="base",
        dtype="float32",
        quantization=None,
        attn_implementation=None,
        adapter=None,
        refusal_tokens=None,
    )
    hf, tokenizer = settings.weights().hf, settings.tokenizer()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)  # as they come, every token attends to all alike
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))  # norms and biases that matter
    tokenizer.chat_template = template
    return LoadedModel.of(hf, tokenizer, "chat", batch_size=batch_size, identity={"name": f"tiny-{architecture}"})


def save(model: LoadedModel, folder: Path) -> Path:
    """A checkpoint as `save_pretrained` writes it."""
    model.hf.save_pretrained(folder)
    model.template.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def hub_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`hub_cache("EleutherAI/pythia-160m", ..., revision="main")` puts tiny GPT-NeoX weights where the hub's would lie.

    Gives HF_HOME, which is set for this process and those that it starts. The commit is `commit(name, revision)`.
    """
    home = tmp_path_factory.mktemp("hf_home")
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))

    def fill(*names: str, revision: str = "main") -> Path:
        for name in names:
            folder = home / "hub" / f"models--{name.replace('/', '--')}"
            sha = commit(name, revision)
            save(tiny_model("gpt_neox", template=None, seed=int(sha[:6], 16)), folder / "snapshots" / sha)
            (folder / "refs").mkdir(exist_ok=True)
            (folder / "refs" / revision).write_text(sha)
        return home

    return fill


def commit(name: str, revision: str = "main") -> str:
    """The commit that the hub of these tests has for a model."""
    return hashlib.sha1(f"{name}@{revision}".encode()).hexdigest()


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The packaged model, converted, where some run has done so already; it takes a download and half a minute."""
    settings: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/model/smollm2-135m.yaml"))
    folder = PackagedGguf(**{key: value for key, value in settings.items() if key != "_target_"}).checkpoint
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; any run with model=smollm2-135m makes it")
    return folder


@pytest.fixture
def sentence() -> Callable[[Callable[[], object]], str]:
    """What the InputError of an action says, once it is known to be one sentence on one line."""

    def said(action: Callable[[], object]) -> str:
        with pytest.raises(InputError) as caught:
            action()
        message = str(caught.value)
        assert message.endswith(".")
        assert "\n" not in message
        assert ". " not in message.replace("... ", "")
        return message

    return said


@pytest.fixture
def wandb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without W&B's settings and keys, for this process and those that it starts."""
    import wandb

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("WANDB_DATA_DIR", "WANDB_ERROR_REPORTING"):  # set by the tracker; here, so that they are undone
        monkeypatch.setenv(name, "")
    wandb.teardown()  # it keeps what it once read from the environment
    yield tmp_path / "home"
    wandb.teardown()


@pytest.fixture
def wandb_server(wandb_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server that the client publishes to; it knows all that was asked of it."""
    with WandbServer(tmp_path / "server") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
    assert not server.unknown
