"""A chat page's HTML to Markdown: `clean.clean_text` decides what is a page, `convert` walks its DOM."""
