"""Learn, teach and regression-test PyTorch's data loading and model serialization."""

__version__ = "0.1.0"
