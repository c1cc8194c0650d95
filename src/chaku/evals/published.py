"""Suites that others published, at a pinned commit and with the sha256 of every file. None of them is part of chaku."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chaku.evals.suites import suites_folder
from chaku.models.fetch import url
from chaku.models.fetch.progress import Progress
from chaku.models.reference import UrlFile
from chaku.records import append_only, sha256_file

SITE = "https://raw.githubusercontent.com/lm-sys/FastChat"


@dataclass(frozen=True)
class PublishedFile:
    """One file of a suite."""

    path: str
    """Below the suite's folder in the repository."""
    name: str
    """Below the suite's folder here."""
    sha256: str


@dataclass(frozen=True)
class PublishedSuite:
    """What is fetched, and from where."""

    about: str
    commit: str
    folder: str
    """In the repository."""
    files: tuple[PublishedFile, ...]


PUBLISHED = {
    "vicuna80": PublishedSuite(
        "the 80 questions of Vicuna's launch, answers of five models and GPT-4's reviews (FastChat, Apache-2.0)",
        "69d085eadab8e9fcf831a97e17e132658c3d2272",
        "fastchat/eval/table",
        (
            PublishedFile(
                "question.jsonl",
                "question.jsonl",
                "590c39157bc561eadd7f03cad4be18c2b597f93029780af65f86718f39eafa87",
            ),
            PublishedFile(
                "prompt.jsonl",
                "prompt.jsonl",
                "475f1ff9e2872fe0ffd43db38fd5c3277f46fe6b2d62fcd2f968a0c9e59391a3",
            ),
            PublishedFile(
                "answer/answer_alpaca-13b.jsonl",
                "answer/answer_alpaca-13b.jsonl",
                "50a6a9274da00cc74e8b3a8e3e92be2ba23ed6f2bf6ae9bbcc3082424acea540",
            ),
            PublishedFile(
                "answer/answer_bard.jsonl",
                "answer/answer_bard.jsonl",
                "3b807061959b50b2c7cc2d278c02ce4a1608c6afe366d22613ba90be6c9a3f3f",
            ),
            PublishedFile(
                "answer/answer_gpt35.jsonl",
                "answer/answer_gpt35.jsonl",
                "c6545739b0738eba5f9348e77f680031aec076a72ecba71b3014e7b1b0dfe099",
            ),
            PublishedFile(
                "answer/answer_llama-13b.jsonl",
                "answer/answer_llama-13b.jsonl",
                "cbe933439a8a70107761929d72731979ece34e1df0bcdba11af8817ce9975f40",
            ),
            PublishedFile(
                "answer/answer_vicuna-13b.jsonl",
                "answer/answer_vicuna-13b.jsonl",
                "d1a4b3a5d2e3ca90d2d55084ee25d4d90e63e65ac647bf50359da8633e16d0b8",
            ),
            PublishedFile(
                "review/vicuna-13b_20230322-clean-lang/review_alpaca-13b_vicuna-13b.jsonl",
                "review/review_alpaca-13b_vicuna-13b.jsonl",
                "c8fd15e3e128684e6096adc2c93ded78bff5b6c9052c4ec59526c50eee474a6d",
            ),
            PublishedFile(
                "review/vicuna-13b_20230322-clean-lang/review_bard_vicuna-13b.jsonl",
                "review/review_bard_vicuna-13b.jsonl",
                "a5a9d6e77e053d466568abb4834e58b0983e253c81bc63068a8bc3d5984966fb",
            ),
            PublishedFile(
                "review/vicuna-13b_20230322-clean-lang/review_gpt35_vicuna-13b.jsonl",
                "review/review_gpt35_vicuna-13b.jsonl",
                "370f496e6d871c9d932c3ddbe6ccdcbfa9ad04a44b04e037b26e7ac474d9ed56",
            ),
            PublishedFile(
                "review/vicuna-13b_20230322-clean-lang/review_llama-13b_vicuna-13b.jsonl",
                "review/review_llama-13b_vicuna-13b.jsonl",
                "2a66bf23d002fa7d85250233d495ee5ad95fbbd39ffc4c829c1d51865874a1cb",
            ),
        ),
    ),
    "mt-bench": PublishedSuite(
        "80 questions of two turns, GPT-4's references (13 of 30 are wrong) and judge prompts (FastChat, Apache-2.0)",
        "0e6d3e4beaab66f4d3f93db72541a4abab8af28d",
        "fastchat/llm_judge/data",
        (
            PublishedFile(
                "mt_bench/question.jsonl",
                "question.jsonl",
                "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
            ),
            PublishedFile(
                "mt_bench/reference_answer/gpt-4.jsonl",
                "reference.jsonl",
                "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
            ),
            PublishedFile(
                "judge_prompts.jsonl",
                "judge_prompts.jsonl",
                "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
            ),
        ),
    ),
}


def fetch_suite(name: str, progress: Progress, *, site: str = SITE) -> Path:
    """Fetch what is missing of a suite, check it, and return its folder. Raises ModelError, KeyError for the name."""
    suite = PUBLISHED[name]
    folder = suites_folder() / name
    with append_only(folder / ".lock"):
        for file in suite.files:
            target = folder / file.name
            if target.is_file() and sha256_file(target) == file.sha256:
                continue
            source = f"{site.rstrip('/')}/{suite.commit}/{suite.folder}/{file.path}"
            url.pull(UrlFile(source, file.sha256), target.parent, progress).replace(target)
    return folder
