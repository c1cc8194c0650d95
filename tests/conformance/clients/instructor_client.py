"""Instructor, which has no plain answers: a call and a schema, whole and as a partial object that grows."""

import instructor
from questions import BASE_URL, FIRST, MODEL, OPTIONS, City, report

seen = {}
for mode, name in ((instructor.Mode.JSON_SCHEMA, "parsed"), (instructor.Mode.TOOLS, "parsed_by_call")):
    client = instructor.from_provider(f"openai/{MODEL}", base_url=BASE_URL, api_key="any", mode=mode)
    asking = {"response_model": City, "max_retries": 1, **OPTIONS}
    messages = [{"role": "user", "content": FIRST}]
    city = client.create(messages=messages, **asking)
    messages += [{"role": "assistant", "content": city.model_dump_json()}, {"role": "user", "content": "And of Spain?"}]
    second = client.create(messages=messages, **asking)
    *_, streamed = client.create_partial(messages=messages, **asking)
    assert streamed.model_dump().keys() == second.model_dump().keys()  # the model sees another name, PartialCity
    seen[name] = second.model_dump()
report(**seen)
