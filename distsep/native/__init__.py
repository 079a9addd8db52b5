"""The passes over the pixels, compiled for processors: C++ behind XLA calls."""
