"""The field's vocabulary: messages, templates, text that stays text. Knows no network and no model."""
