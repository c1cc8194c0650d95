"""Something that turns a request into a stream of deltas, behind one seam."""
