"""chaku: turn shared conversations into a chat model, serve it, compare it, and train the next round."""

__version__ = "0.1.0"
