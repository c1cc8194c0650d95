"""What a model's files say of it: GGUF and safetensors headers, config.json, the sizes of a model."""
