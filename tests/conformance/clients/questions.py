"""What every client asks in this order, and what it prints. The model is small: the questions fit it."""

import json
import os

from pydantic import BaseModel

BASE_URL, MODEL = os.environ["CHAKU_BASE_URL"], os.environ["CHAKU_MODEL"]
OPTIONS = {"temperature": 0, "max_tokens": 300}
FIRST = "What is the capital of France?"
SECOND = "In which country is it?"
THIRD = "Describe it."
SKY = "What is the weather in Paris?"
RESULT = "sunny, 21 °C"


class City(BaseModel):
    """A city."""

    name: str
    country: str


def weather(city: str) -> str:
    """Say what the weather in a city is."""
    return RESULT


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def report(**seen: object) -> None:
    """Print them as one line."""
    print(json.dumps(seen))
