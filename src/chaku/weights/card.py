"""A model card out of a run's manifest: what the manifest does not hold is said to be missing, and never made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaku.errors import ModelError
from chaku.models.files.modelconfig import read_object
from chaku.weights.licences import hub_fields
from chaku.weights.local_paths import shown

_MISSING = "not recorded"
_RECIPE = (
    ("method", "method"), ("preset", "preset"), ("lr", "learning rate"), ("schedule", "schedule"),
    ("warmup", "warm-up"), ("weight_decay", "weight decay"), ("batch_rows", "rows a step"),
    ("precision", "numbers"), ("seed", "seed"),
)  # fmt: skip


def read_manifest(run: Path) -> dict[str, Any]:
    """The manifest of a run: its folder, the `final` folder inside it, or the file itself.

    Raises ModelError where there is none, or where it is not one.
    """
    places = [run] if run.is_file() else [run / "manifest.json", run.parent / "manifest.json"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise ModelError(f"{run} has no manifest.json", fix="give the folder of a run, such as runs/NAME")
    manifest = read_object(path)
    if not {"name", "base", "data", "recipe"} <= manifest.keys():
        raise ModelError(
            f"{path} is not the manifest of a training run", fix="it has name, base, data and recipe: give runs/NAME"
        )
    return manifest


def model_card(
    manifest: Mapping[str, Any], *, developer: str | None = None, licence: str | None = None, hub_id: str | None = None
) -> str:
    """The card as Markdown with the front matter that model hubs read; no path of this machine stands in it.

    `developer` and `licence` win over what was recorded; `hub_id` is where the model is published.
    """
    name, base = str(manifest["name"]), manifest["base"]
    licence_of_model = licence or manifest.get("licence")
    inherited = None if licence_of_model else base.get("licence")
    of_base = f"{inherited} (of the base model)" if inherited else None
    of_theirs = {"Licence of the base": str(base["licence"])} if licence_of_model and base.get("licence") else {}
    facts = {
        "Developed by": developer or manifest.get("developer") or _MISSING,
        "Model type": "auto-regressive language model, a transformer",
        "Licence": licence_of_model or of_base or _MISSING,
        **of_theirs,
        "Fine-tuned from": _base(base),
        **lineage(manifest),
        "Made with": f"chaku {manifest.get('chaku') or _MISSING}, commit {manifest.get('git_commit') or _MISSING}",
        "Finished": manifest.get("finished") or "not yet: the run has no end",
    }
    parts = [
        _front_matter(manifest, licence_of_model or inherited, None if licence_of_model else base.get("licence_url")),
        f"# {name}",
        f"A chat model: {shown(base.get('name') or 'a base model')} fine-tuned on conversations.",
        "## Model details", _bullets(facts),
        "## Uses",
        "For research on language models and chatbots, by researchers and hobbyists. It was not tested for anything in"
        " which a wrong answer does harm.",
        "## How to start", _start(f"runs/{name}", hub_id),
        "## Training", _training(manifest),
        "## Evaluation", _evaluation(manifest.get("result") or {}),
        "## Limitations",
        "It may state falsehoods with confidence, fail at arithmetic and reasoning, repeat what is wrong or unfair in"
        " its data, and be mistaken about what it is. Nothing was done for its safety beyond the choice of the data.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _front_matter(manifest: Mapping[str, Any], licence: str | None, licence_url: str | None) -> str:
    """Only a hub's id is a `base_model` there: what a built-in name or a folder is to others, nobody can look up."""
    base, is_adapter = manifest["base"], manifest["recipe"].get("method") in ("lora", "qlora")
    fields: dict[str, Any] = {"library_name": "peft" if is_adapter else "transformers"}
    fields["pipeline_tag"] = "text-generation"
    if base.get("hub_id"):
        fields |= {"base_model": base["hub_id"], "base_model_relation": "adapter" if is_adapter else "finetune"}
    fields |= hub_fields(licence, licence_url) if licence else {}
    fields["tags"] = ["chaku", "chat", *(["lora"] if is_adapter else [])]
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in fields.items()), "---"])


def _base(base: Mapping[str, Any]) -> str:
    kind = "sha256" if base.get("sha256") else "revision"
    name = _with_hash(base.get("name"), base.get(kind), kind)
    is_named = base.get("hub_id") in (None, base.get("name"))
    return name if is_named else f"{name}, published as {base['hub_id']}"


def lineage(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The runs that a run went on from, the nearest first; nothing where there are none."""
    found, parent = [], manifest.get("continued_from")
    while parent:
        found.append(_with_hash(f"run {parent['name']} after step {parent['step']:,}", parent["sha256"]))
        parent = parent.get("earlier")
    return {"Continued from": "; before it ".join(found)} if found else {}


def _start(folder: str, hub_id: str | None) -> str:
    fetch = ""
    if hub_id:
        folder = f"./{hub_id.split('/')[-1]}"
        fetch = f"hf download {hub_id} --local-dir {folder}\n"
    return (
        f"```sh\n{fetch}chaku serve {folder}        # page and OpenAI-compatible API\n"
        f"chaku chat -m {folder}      # in the terminal\n```\n\nOr load this folder with transformers; the chat"
        " template comes with the tokenizer."
    )


def _training(manifest: Mapping[str, Any]) -> str:
    data, recipe, result = manifest["data"], manifest["recipe"], manifest.get("result") or {}
    tokens = f"{_count(data.get('num_tokens'))}, {_count(data.get('num_trained_tokens'))} of them trained"
    facts = {
        **(
            {"Preference pairs": _count(pairs)}
            if (pairs := data.get("num_pairs"))
            else {"Conversations": _count(data.get("num_conversations"))}
        ),
        "Tokens": tokens,
        "Rows": _count(data.get("num_rows")),
        "Chat template": data.get("template") or _MISSING,
        "Tokenizer": shown(data.get("tokenizer") or _MISSING),
        "Set": _with_hash(data.get("folder"), data.get("manifest_sha256")),
        "Passes": result.get("epochs", recipe.get("epochs", _MISSING)),
        "Steps": _count(result.get("steps")),
        "Hardware": result.get("hardware") or _MISSING,
        "Time": f"{result['hours']:.2f} h" if "hours" in result else _MISSING,
        "Cost": f"${result['dollars']:.2f}" if "dollars" in result else _MISSING,
    }
    known = [(words, recipe[key]) for key, words in _RECIPE if recipe.get(key) is not None]
    rows = ["| setting | value |", "|---|---|", *(f"| {words} | {value} |" for words, value in known)]
    return _bullets(facts) + "\n\n" + "\n".join(rows)


def _evaluation(result: Mapping[str, Any]) -> str:
    facts = {
        "Loss at the last step": _loss(result.get("final_loss")),
        "Loss on held-out conversations": _loss(result.get("heldout_loss")),
    }
    return _bullets(facts) + "\n\nLosses are nats a trained token. No benchmark, judge or human preference is recorded."


def _loss(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.4f}"


def _count(value: int | None) -> str:
    return _MISSING if value is None else f"{value:,}"


def _with_hash(name: object, sha256: object, kind: str = "sha256") -> str:
    if not name:
        return _MISSING
    return f"{shown(str(name))} ({kind} {str(sha256)[:16]}…)" if sha256 else shown(str(name))


def _bullets(facts: Mapping[str, object]) -> str:
    return "\n".join(f"- **{name}:** {value}" for name, value in facts.items())
