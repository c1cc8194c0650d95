"""Images that people send: measured by their headers and freed of metadata. No pixel is decoded or changed."""
