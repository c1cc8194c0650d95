"""The program llm, with chaku in its extra-openai-models.yaml. It can't force a call, and this model makes none."""

import json

import llm
from questions import BASE_URL, FIRST, MODEL, OPTIONS, SECOND, SKY, THIRD, City, report, weather

row = {"model_id": "mine", "model_name": MODEL, "api_base": BASE_URL, "supports_schema": True, "supports_tools": True}
(llm.user_dir() / "extra-openai-models.yaml").write_text(json.dumps([row]))
model = llm.get_model("mine")
whole = model.conversation()
first = whole.prompt(FIRST, stream=False, **OPTIONS).text()
second = whole.prompt(SECOND, stream=False, **OPTIONS).text()
parsed = whole.prompt(THIRD, schema=City, stream=False, **OPTIONS).text()
told = whole.chain(SKY, tools=[weather], options=OPTIONS).text()
streaming = model.conversation()
list(streaming.prompt(FIRST, **OPTIONS))
streamed = "".join(streaming.prompt(SECOND, **OPTIONS))
report(first=first, second=second, streamed=streamed, parsed=json.loads(parsed), told=told)
