"""The workers of a gateway: who may join, how it knows that they live, and the paths below /fleet."""
