"""transformers as an engine: any causal model that it can load, in a child process that speaks OpenAI's API."""
